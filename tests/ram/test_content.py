"""Reading the bytes of pages: deltas, compressed pages, pages of mapped-ram."""

import io
import tracemalloc
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmigtool.errors import StreamError, TruncatedError, UnsupportedError, UsageError
from tests.ram.memories import DELTA, MIB, ram_of
from tests.support.ramwriter import (
    QATZIP,
    QPL,
    UADK,
    ZLIB,
    ZSTD,
    Deflate,
    channel,
    filled,
    greeting,
    mapped,
    multifd_main,
    named_page,
    packet,
    plain,
    sync,
)
from tests.support.streamwriter import PAGE, StreamWriter, be64, compressed, eos, mem_size, page, xbzrle, zero


def test_a_block_whose_last_page_is_not_whole():
    w = StreamWriter()
    w.start(1, "ram", 0, 4, mem_size([("r", PAGE), ("s", 100)][:1]) + eos())
    w.end(1, page(0, filled(1), "r") + eos())
    with ram_of(w.finish()) as stream:
        assert stream.ram.read("r", PAGE - 8, 8, absent="zero") == be64(1)
        with pytest.raises(UsageError):
            stream.ram.read("r", PAGE - 8, 9, absent="zero")


def test_xbzrle_changes_what_the_page_was():
    w = plain(named_page(0, 1), xbzrle(0, DELTA), xbzrle(0, b"\x00\x01\xff"))
    want = bytearray(filled(1))
    want[291:293] = b"\x07\x0c"
    want[0] = 0xFF
    with ram_of(w.finish()) as stream:
        assert stream.ram.read("r", 0, 2 * PAGE, absent="zero") == bytes(want) + bytes(PAGE)
        assert stream.ram.page("r", 0, absent="zero") == bytes(want)
        assert [r.encoding.name for r in stream.ram.history("r", 0)] == ["NORMAL", "XBZRLE", "XBZRLE"]


def test_a_whole_page_forgets_the_deltas_before_it():
    w = plain(named_page(0, 1), xbzrle(0, DELTA), named_page(0, 2), xbzrle(0, b"\x01\x01\x99"), zero(PAGE, "r"))
    want = bytearray(filled(2))
    want[1] = 0x99
    with ram_of(w.finish()) as stream:
        assert stream.ram.page("r", 0, absent="zero") == bytes(want)
        assert stream.ram.final("r").run.tolist() == [r.order for r in stream.ram.history("r", 0)[-1:]] + [4]


def test_a_delta_on_a_page_never_sent_changes_zeros():
    with ram_of(plain(zero(PAGE, "r"), xbzrle(0, DELTA)).finish()) as stream:
        assert stream.ram.page("r", 0, absent="zero")[285:300] == bytes(6) + b"\x07\x0c" + bytes(7)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from("zpx"), st.integers(0, 255)), min_size=1, max_size=25))
def test_any_mix_of_pages_and_deltas(ops):
    state, records = {}, [zero(0, "r")]
    for number, kind, value in ops:
        before = state.get(number, bytes(PAGE))
        if kind == "z":
            records.append(zero(number * PAGE))
            state[number] = bytes(PAGE)
        elif kind == "p":
            records.append(page(number * PAGE, filled(value)))
            state[number] = filled(value)
        else:
            delta = bytes([value & 0x7F, 2, value, value ^ 0xFF])
            records.append(xbzrle(number * PAGE, delta))
            at = value & 0x7F
            state[number] = before[:at] + bytes([value, value ^ 0xFF]) + before[at + 2 :]
    with ram_of(plain(*records).finish()) as stream:
        want = b"".join(state.get(i, bytes(PAGE)) for i in range(8))
        assert stream.ram.read("r", 0, 8 * PAGE, absent="zero") == want
        assert b"".join(stream.ram.page("r", i * PAGE, absent="zero") for i in range(8)) == want


@pytest.mark.parametrize(
    "delta",
    [
        b"\x00",  # no count
        b"\x00\x02\x01",  # one byte too few
        b"\x00\x00",  # nothing changed
        b"\x80",  # half a number
        b"\xff\xff\xff\x01\x00",  # a number of three bytes
        b"\xff\x7f\x01\x00",  # 16383 bytes skipped
        bytes([0xFF, 0x1F, 2, 0, 0]),  # 4095 skipped, two changed
        b"\x00\x01\xaa\x00\x01\xbb",  # a second pair that skips nothing
    ],
)
def test_a_hostile_delta_is_a_stream_error(delta):
    with ram_of(plain(named_page(0, 1), xbzrle(0, delta), named_page(1, 5)).finish()) as stream:
        assert stream.complete  # its framing is whole
        for action in (
            lambda: stream.ram.page("r", 0, absent="zero"),
            lambda: stream.ram.read("r", 0, 1, absent="zero"),
            lambda: stream.ram.write_block("r", io.BytesIO(), absent="zero"),
        ):
            with pytest.raises(StreamError, match="XBZRLE") as caught:
                action()
            assert caught.value.offset is not None
        assert stream.ram.page("r", PAGE, absent="zero") == filled(5)


@pytest.mark.parametrize(
    "data",
    [
        b"\x00",
        zlib.compress(filled(1))[:-1],
        zlib.compress(filled(1))[:-4] + b"\0\0\0\0",
        zlib.compress(bytes(PAGE - 1)),
        zlib.compress(bytes(PAGE + 1)),
        zlib.compress(bytes(3 << 20)),  # a bomb
        zlib.compress(b""),
    ],
)
def test_a_hostile_zlib_page_is_a_stream_error(data):
    with ram_of(plain(named_page(0, 1), compressed(PAGE, data)).finish()) as stream:
        assert stream.ram.page("r", 0, absent="zero") == filled(1)
        for action in (
            lambda: stream.ram.page("r", PAGE, absent="zero"),
            lambda: stream.ram.read("r", 0, 8 * PAGE, absent="zero"),
        ):
            with pytest.raises(StreamError) as caught:
                action()
            assert caught.value.offset is not None


def test_compressed_pages_in_a_row():
    records = [compressed(i * PAGE, zlib.compress(filled(i + 10))) for i in range(1, 8)]
    with ram_of(plain(named_page(0, 10), *records).finish()) as stream:
        assert stream.ram.read("r", 0, 8 * PAGE, absent="zero") == b"".join(filled(i + 10) for i in range(8))
        assert stream.ram.count() == {"r": {"normal": 1, "compressed": 7}}


def test_stale_bytes_of_a_mapped_page_are_ignored():
    with ram_of(mapped({1: filled(5)}, 64, stale={2: filled(6)})) as stream:
        assert stream.ram.read("r", PAGE, 2 * PAGE, absent="zero") == filled(5) + bytes(PAGE)


def test_a_mapped_file_cut_in_its_pages():
    data = mapped({1: filled(5), 60: filled(6)}, 70)
    with ram_of(data[: data.index(filled(6))]) as stream:
        assert not stream.complete
        assert any(isinstance(problem, TruncatedError) for problem in stream.problems)


def zstd_or_skip():
    try:
        from compression import zstd
    except ImportError:
        zstd = pytest.importorskip("backports.zstd")
    return zstd


def zstd_packer():
    zstd = zstd_or_skip()
    packer = zstd.ZstdCompressor()
    return lambda data: packer.compress(data, packer.FLUSH_BLOCK)


@pytest.mark.parametrize(("method", "packer"), [(ZLIB, Deflate), (ZSTD, zstd_packer)])
def test_packed_payloads_share_one_stream_per_channel(method, packer):
    pack, pack_other = packer(), packer()
    first = packet([0, 3 * PAGE], pack(filled(1) + filled(2)), flags=method)
    stale = packet([], flags=0, size=99)
    one = channel(3, first, stale + packet([PAGE], pack(filled(3)), zero=[2 * PAGE], flags=method))
    second = channel(3, b"", packet([4 * PAGE], pack_other(filled(9)), flags=method), number=1)
    with ram_of(multifd_main(1, 8).finish(), one, second) as stream:
        assert not stream.problems
        assert stream.ram.read("r", 0, 5 * PAGE, absent="zero") == filled(1) + filled(3) + bytes(PAGE) + filled(
            2
        ) + filled(9)
        assert stream.ram.page("r", PAGE, absent="zero") == filled(3)


@pytest.mark.parametrize(("method", "name"), [(QPL, "QPL"), (UADK, "UADK"), (QATZIP, "QATZIP")])
def test_rare_compressions_are_recognised_by_name(method, name):
    other = channel(2, packet([0], b"whatever", flags=method) + packet([PAGE], b"more", flags=method))
    with ram_of(multifd_main(0, 8).finish(), other) as stream:
        assert stream.ram.count() == {"r": {f"multifd_{name.lower()}": 2}}
        assert len(stream.ram.history("r", 0)) == 1
        for action in (
            lambda: stream.ram.page("r", 0, absent="zero"),
            lambda: stream.ram.read("r", 0, 8 * PAGE, absent="zero"),
        ):
            with pytest.raises(UnsupportedError) as caught:
                action()
            assert name.lower() in caught.value.feature.lower()
            assert caught.value.exit_code == 63
        assert stream.ram.page("r", 2 * PAGE, absent="zero") == bytes(PAGE)


@pytest.mark.parametrize("payload", [b"", b"\x78\x01garbage", Deflate()(filled(1)[:-1]), Deflate()(filled(1) + b"x")])
def test_a_hostile_packed_payload_is_one_of_our_errors(payload):
    other = channel(2, packet([0], payload or b"\0", flags=ZLIB))
    with ram_of(multifd_main(0, 8).finish(), other) as stream:
        for action in (
            lambda: stream.ram.page("r", 0, absent="zero"),
            lambda: stream.ram.read("r", 0, 8 * PAGE, absent="zero"),
        ):
            with pytest.raises(StreamError) as caught:
                action()
            assert caught.value.section == "multifd"


def test_a_zstd_bomb_is_bounded():
    pack = zstd_packer()
    other = channel(2, packet([0], pack(bytes(64 << 20)), flags=ZSTD))
    with ram_of(multifd_main(0, 8).finish(), other) as stream:
        tracemalloc.start()
        tracemalloc.reset_peak()
        with pytest.raises(StreamError):
            stream.ram.page("r", 0, absent="zero")
        assert tracemalloc.get_traced_memory()[1] < 8 * MIB
        tracemalloc.stop()


@pytest.mark.parametrize("method", [ZLIB, ZSTD])
def test_what_was_unpacked_before_the_damage_stays(method):
    if method == ZSTD:
        zstd = pytest.importorskip("backports.zstd")
        packer = zstd.ZstdCompressor()
        good = packer.compress(filled(1), packer.FLUSH_BLOCK)
    else:
        good = Deflate()(filled(1))
    channel = greeting() + sync() + packet([0], good, flags=method) + packet([PAGE], b"garbage", flags=method)
    channel += sync() * 2
    with ram_of(multifd_main(1, 8).finish(), channel) as stream:
        ram = stream.ram
        for _ in range(2):
            assert ram.page("r", 0) == filled(1)
            with pytest.raises(StreamError) as caught:
                ram.page("r", PAGE)
            assert caught.value.section == "multifd"
