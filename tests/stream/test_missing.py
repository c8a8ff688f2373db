"""Memory that a file lacks is an error, and memory that there never was to send is not."""

import json

import pytest

import qmigtool
from qmigtool.stream.missing import Missing, missing_memory
from tests.support import casefiles, packedsamples, samplefiles
from tests.support.streamwriter import PAGE, StreamWriter, Vmsd, eos, mem_size, num, page, raw, zero


def written(device=None, *, sent=4, whole=True, postcopy=False):
    """A stream with 8 pages of memory of which so many were sent."""
    w = StreamWriter()
    if postcopy:
        w.command(3, "POSTCOPY_ADVISE", (4096).to_bytes(8, "big") * 2)
    w.start(1, "ram", 0, 4, mem_size([("pc.ram", 8 * PAGE)]) + eos())
    pages = [page(0, b"\1" * PAGE, "pc.ram") if whole else zero(0, "pc.ram")]
    w.end(1, b"".join([*pages, *(zero(n * PAGE) for n in range(1, sent))]) + eos())
    if device is not None:
        w.device(3, device, 0, Vmsd(device.rpartition("/")[2], 1, [raw("virtio", bytes(20), "virtio")]))
    w.device(2, "timer", 0, Vmsd("timer", 2, [num("ticks", "int64", 1)]))
    return bytes(w.finish())


MULTIFD = [name for name in packedsamples.NAMES if name.startswith("multifd")]


@pytest.mark.parametrize("name", [*MULTIFD, "postcopy-preempt-7.2", "postcopy-preempt-11.1"])
def test_a_main_channel_alone(call, name):
    sample = packedsamples.packed(name)
    main, channels = str(sample.path), [str(channel) for channel in sample.channels]
    status, out, err = call("info", main, "--json")
    found = json.loads(out)
    assert (status, found["complete"]) == (1, False)
    assert found["pages_missing"] > 0
    assert "pages of memory are missing" in err
    status, out, _ = call("check", main, "--json")
    assert status == 1
    findings = [f for one in json.loads(out)["files"] for f in one["findings"] if f["rule"].startswith("ram-")]
    assert [f["severity"] for f in findings if f["rule"] == "ram-pages-sent"] == ["error"]
    with_them = [part for channel in channels for part in ("--channel", channel)]
    status, out, err = call("info", main, *with_them, "--json")
    found = json.loads(out)
    assert (status, err, found["complete"], found["pages_missing"]) == (0, "", True, 0)
    status, out, _ = call("check", main, *with_them, "--json")
    assert "ram-pages-sent" not in [f["rule"] for one in json.loads(out)["files"] for f in one["findings"]]


def test_the_case_of_a_real_destination(call, tmp_path):
    status, out, err = call("info", casefiles.put("load", "mfddest-10.0.mig", tmp_path))
    assert status == 1
    assert "6274 of 6274 pages of memory are missing" in err
    assert "6274 of 6274 pages of memory are missing" in out
    assert "complete      NO" in out


@pytest.mark.parametrize("name", ["pmem-10.0.mig", "ignshared-7.2.mig"])
def test_what_there_never_was_to_send(call, name, tmp_path):
    """virtio-mem that is not plugged; shared memory that the capability leaves where it is."""
    path = casefiles.put("load", name, tmp_path)
    status, out, err = call("info", path)
    assert (status, err) == (0, "")
    assert "missing" not in out
    assert ("- m: 24 MiB, shared memory that is not in the file" in out) is name.startswith("ignshared")
    status, out, _ = call("check", path, "--json")
    assert [f["rule"] for one in json.loads(out)["files"] for f in one["findings"] if f["rule"][:4] == "ram-"] == []


@pytest.mark.parametrize("name", ["multifd-10.0.pcap", "postcopy-10.0.pcap"])
def test_a_capture_has_its_channels(name):
    with qmigtool.open(samplefiles.container(name)) as stream:
        assert missing_memory(stream) is None


@pytest.mark.parametrize(
    ("options", "excuse"),
    [
        ({}, ""),
        ({"device": "0000:00:02.0/virtio-balloon"}, "balloon"),
        ({"device": "0000:00:02.0/virtio-balloon", "whole": False}, ""),  # as with multifd: no whole page here
        ({"device": "0000:00:02.0/virtio-balloon", "postcopy": True}, ""),
        ({"device": "0000:00:02.0/virtio-mem"}, "virtio-mem"),  # its state says nothing that could be read
        ({"device": "0000:00:02.0/virtio-net"}, ""),
    ],
)
def test_why_it_may_be_missing(options, excuse, call, tmp_path):
    path = tmp_path / "vm.mig"
    path.write_bytes(written(**options))
    with qmigtool.open(path) as stream:
        found = missing_memory(stream)
        assert (found.pages, found.total) == (4, 8)
        assert excuse in found.excuse
        assert bool(found.excuse) is bool(excuse)
    assert call("info", str(path))[0] == (0 if excuse else 1)


def test_nothing_is_missing():
    with qmigtool.open(written(sent=8)) as stream:
        assert missing_memory(stream) is None


@pytest.mark.parametrize("name", ["multifd-zlib-7.2", "multifd-none-11.1", "postcopy-preempt-7.2"])
def test_packed_channels_are_unpacked(call, name):
    sample = packedsamples.packed(name)
    folder = packedsamples.FOLDER
    channels = sorted(str(one) for one in folder.glob(f"{name}.*.bin.xz"))
    assert len(channels) == len(sample.channels)
    with_them = [part for channel in channels for part in ("--channel", channel)]
    status, out, err = call("info", str(folder / f"{name}.mig.xz"), *with_them, "--json")
    found = json.loads(out)
    assert (status, err, found["complete"], found["pages_missing"]) == (0, "", True, 0)


@pytest.mark.parametrize(
    ("data", "status", "said"),
    [
        (b"\x02\x21\x4c\x18" + bytes(60), 63, "the legacy format of lz4 (lz4 -l) is not supported yet"),
        (b"QFI\xfb" + bytes(60), 2, "a qcow2 image is not an extra channel of a migration"),
        (b"\xfd7zXZ\x00" + bytes(60), 3, "xz"),
    ],
)
def test_a_channel_that_cannot_be_unpacked_is_named(call, tmp_path, data, status, said):
    channel = tmp_path / "channel"
    channel.write_bytes(data)
    got, _, err = call("info", str(packedsamples.packed("multifd-zlib-7.2").path), "--channel", str(channel))
    assert got == status
    assert said in err
    assert "channel" in err


def test_what_is_missing_can_be_added() -> None:
    assert "--channel" in Missing(1, 8, "").advice
    assert not Missing(1, 8, "the guest may have reported them as free (balloon)").advice
