"""``flows``: the connections of captures, and their migrations in time."""

import json
import lzma
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest

from qmigtool import tables
from qmigtool.cli.main import run
from qmigtool.parsers.pcap import Role
from qmigtool.stream.traffic import read_traffic
from tests.support import samplefiles
from tests.support.capturewriter import Packets
from tests.support.samplefiles import CONTAINERS
from tests.support.streamwriter import PAGE, StreamWriter, eos, mem_size, page

POSTCOPY, MULTIFD = CONTAINERS / "postcopy-10.0.pcap.xz", CONTAINERS / "multifd-10.0.pcap.xz"


def document(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> dict[str, object]:
    assert run(["flows", *arguments, "--json"]) == status
    found = json.loads(capsys.readouterr().out)
    assert isinstance(found, dict)
    return found


def test_a_real_postcopy_migration(capsys: pytest.CaptureFixture[str]) -> None:
    found = document(capsys, str(POSTCOPY))
    main, back = found["flows"]
    assert (main["role"], main["bytes"], main["missing"]) == ("main", 15249261, 0)
    assert (back["role"], back["bytes"]) == ("return path", 40)
    (migration,) = found["migrations"]
    assert migration["postcopy"]
    # The manifest: switched after 3 s.
    assert 3.0 < migration["stopped"]["seconds"] < 3.2
    assert migration["stopped"]["evidence"] == "command SWITCHOVER_START"
    assert migration["resumed"]["evidence"] == "PONG on the return path"
    assert 0.001 < migration["downtime_at_least"] < 0.1
    assert [one["pages"] for one in migration["passes"]] == [4226, 1024, 800]


def test_multifd_channels_and_passes(capsys: pytest.CaptureFixture[str]) -> None:
    found = document(capsys, str(MULTIFD))
    assert [one["role"] for one in found["flows"]] == ["main", "multifd", "multifd", "multifd"]
    assert {one["migration"] for one in found["flows"]} == {1}
    (migration,) = found["migrations"]
    assert [(one["pages"], one["zero"]) for one in migration["passes"]] == [(4226, 3081), (1024, 0)]
    assert migration["resumed"]["evidence"] == "the last byte of device state"


def timed() -> Packets:
    """A made-up migration of four pages in two passes, a second between the frames: one record in each."""
    w, cuts = StreamWriter(), [0]
    w.start(1, "ram", 0, 4, mem_size([("r", 4 * PAGE)]) + eos())
    cuts.append(len(w.data))
    w.part(1, page(0, b"a" * PAGE, "r") + b"".join(page(i * PAGE, b"b" * PAGE) for i in (1, 2, 3)) + eos())
    cuts.append(len(w.data))
    w.part(1, page(0, b"x" * PAGE) + page(PAGE, b"y" * PAGE) + eos())
    cuts.append(len(w.data))
    w.end(1, eos())
    cuts.append(len(w.data))
    w.eof()
    data = bytes(w.data)
    parts = [data[a:b] for a, b in pairwise([*cuts, len(data)])]
    packets = Packets()
    packets.parts(parts, port=40000)
    return packets


def test_times_of_a_made_up_migration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """SYN and SYN-ACK at 0 and 1 s, then head, first pass, second pass, END and EOF, a second each."""
    file = tmp_path / "timed.pcap"
    file.write_bytes(timed().pcap(interval=1_000_000))
    (migration,) = document(capsys, str(file))["migrations"]
    first, second = migration["passes"]
    assert (first["pages"], first["start"], first["dirtied"]) == (4, 3.0, 2.0)  # two pages in the second meanwhile
    assert (second["pages"], second["start"], second["dirtied"]) == (2, 4.0, None)
    assert migration["stopped"]["seconds"] == 5.0
    assert migration["stopped"]["evidence"] == "END of ram"
    assert migration["downtime_at_least"] == 1.0


def test_text_and_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "flows.svg"
    assert run(["flows", str(POSTCOPY), "--plot", str(picture)]) == 0
    out = capsys.readouterr().out
    assert "downtime: at least 5.111 ms" in out
    assert "meanwhile the guest wrote 3.48 MB/s" in out
    root = ElementTree.fromstring(picture.read_text())  # noqa: S314 - ours
    texts = [one.text for one in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"stopped", "resumed", "pass 0", "pass 1"} <= set(texts)
    assert len(list(root.iter("{http://www.w3.org/2000/svg}polygon"))) == 2
    assert run(["flows", str(POSTCOPY), "--csv"]) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith("1,main,127.0.0.1:33676 -> 127.0.0.1:4830,15249261,0,")


def test_several_migrations_and_other_connections(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    packets = Packets()
    packets.connection(samplefiles.read("pc-7.2"), port=40000)
    for i in range(30):
        packets.connection(b"GET / HTTP/1.1\r\n\r\n", port=50000 + i, to=80)
    packets.connection(samplefiles.read("q35-7.2"), port=40001)
    file = tmp_path / "several.pcap"
    file.write_bytes(packets.pcap())
    assert [one["migration"] for one in document(capsys, str(file))["migrations"]] == [1, 2]
    assert [one["migration"] for one in document(capsys, str(file), "--migration", "2")["migrations"]] == [2]
    assert run(["flows", str(file)]) == 0
    assert "and 10 more connections that carry nothing of a migration" in capsys.readouterr().out
    assert run(["flows", str(file), "--migration", "3"]) == 2


def test_holes_and_what_is_no_capture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    packets = Packets()
    packets.connection(samplefiles.read("pc-7.2"), port=40000)
    del packets.frames[100]
    file = tmp_path / "hole.pcap"
    file.write_bytes(packets.pcap())
    found = document(capsys, str(file), status=3)
    assert found["flows"][0]["holes"] == [{"offset": 98 * 1448, "length": 1448}]
    assert run(["flows", str(samplefiles.path("pc-7.2"))]) == 2
    assert "pc-7.2.mig: not a capture (expected pcap or pcapng)" in capsys.readouterr().err


def test_in_python() -> None:
    with read_traffic(lzma.decompress(MULTIFD.read_bytes())) as traffic:
        assert [channel.role for _, channel in traffic.every] == [Role.MAIN, *[Role.MULTIFD] * 3]
        frame = tables.flows(traffic)
        assert frame["bytes"].tolist() == [123331, 3212160, 3093504, 2655360]
        assert tables.passes(traffic)["pages"].tolist() == [4226, 1024]
