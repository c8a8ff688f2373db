"""Whatever the bytes are: what can be read is shown, what is wrong is said with its place, and nothing else is raised.

The default run looks at a choice of cuts and flips; with QMIGTOOL_EXHAUSTIVE=1 in the environment, at every byte.
"""

import io
import os
import random
import resource
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import qmigtool
from qmigtool import tables
from qmigtool.errors import QmigError
from tests.support import samplefiles
from tests.support.streamwriter import (
    PAGE,
    StreamWriter,
    Vmsd,
    be32,
    capabilities,
    compressed,
    eos,
    gtree,
    mem_size,
    num,
    page,
    pointers,
    qtailq,
    raw,
    struct_,
    tmp,
    x86_cpu,
    xbzrle,
    zero,
)

EXHAUSTIVE = os.environ.get("QMIGTOOL_EXHAUSTIVE") == "1"
MEMORY = 200 << 20

STREAM_TABLES = [
    tables.sections, tables.devices, tables.fields, tables.ram_blocks, tables.vcpus, tables.xsave_components,
]  # fmt: skip


def attempt(action, found):
    """Do it; one of our errors is an answer, any other exception fails the test."""
    try:
        action()
    except QmigError as error:
        found.append(error)


def look_into(fields):
    for field in fields:
        _ = field.raw, field.value, field.struct_name, repr(field)
        look_into(field.children)


def look_at(vcpu):
    _ = vcpu.xcr0, vcpu.xss, vcpu.xstate_bv, vcpu.enabled, vcpu.carried, vcpu.live, vcpu.undeclared, vcpu.mxcsr
    _ = vcpu.supervisor, repr(vcpu)
    area = vcpu.xsave
    _ = area.data, vcpu.vmstate_bytes(area)


def exercise(target, size, *, thorough=True):
    """Open and look at everything; return the problems. ``thorough``: every field and every table too."""
    try:
        stream = qmigtool.open(target)
    except QmigError as error:
        return with_place([error])
    met = []
    with stream:
        sections = list(stream.sections)
        if stream.size is not None:
            at = 0
            for section in sections:
                assert section.offset == at, section
                at = section.end
            assert at == stream.size == size
        for device in stream.devices:
            if thorough or device.name == "cpu":
                attempt(lambda device=device: look_into(device.fields), met)
        _ = stream.accelerator, stream.complete, stream.error, stream.machine, stream.ram_blocks, repr(stream)
        for vcpu in stream.vcpus:
            attempt(lambda vcpu=vcpu: look_at(vcpu), met)
        if thorough:
            for table in STREAM_TABLES:
                attempt(lambda table=table: list(table.rows(stream)), met)
        problems = list(stream.problems)
        assert stream.complete is (not problems and any(s.type == "eof" for s in sections))
    with_place(met)
    return with_place(problems)


def with_place(errors):
    for error in errors:
        assert error.offset is not None, error
        assert str(error)
    return errors


# -- pc-7.2 -----------------------------------------------------------------------------------------------------------

PC = samplefiles.read("pc-7.2")
with qmigtool.open(PC) as _whole:
    SPANS = [(s.type.value, s.offset, s.body_offset, s.body_length, s.end) for s in _whole.sections]
    RECORDS = SPANS[3][2]  # where the first PART's records start
VMDESC = SPANS[-1][1]


def boundaries():
    """Every header and boundary and the bytes next to it."""
    places = set()
    for _, start, body, length, end in SPANS:
        for at in (start, body, body + length, end):
            places.update(range(at - 2, at + 3))
    return sorted(at for at in places if 0 <= at < len(PC))


CHOICE = random.Random("qmigtool")  # noqa: S311 - a reproducible choice, not a secret


def check_cut(cut, *, thorough):
    problems = exercise(PC[:cut], cut, thorough=thorough)
    # A stream that ends behind its EOF byte is whole: it has no vmdesc.
    assert bool(problems) is (cut != VMDESC), cut


@pytest.mark.slow
def test_cut_at_boundaries():
    for number, cut in enumerate(boundaries()[:: 1 if EXHAUSTIVE else 3]):
        check_cut(cut, thorough=number % 20 == 0)


@pytest.mark.slow
def test_cut_anywhere():
    cuts = range(len(PC)) if EXHAUSTIVE else sorted(CHOICE.sample(range(len(PC)), 200))
    for number, cut in enumerate(cuts):
        check_cut(cut, thorough=number % 40 == 0)


@pytest.mark.slow
def test_cut_in_a_pipe():
    cuts = boundaries()[::12] + sorted(CHOICE.sample(range(len(PC)), 40))
    for cut in cuts:
        assert bool(exercise(io.BytesIO(PC[:cut]), cut, thorough=False)) is (cut != VMDESC)


def header_bytes():
    """The offsets of all that is framing: (what, offset)."""
    found = [("file header", at) for at in range(SPANS[0][4])]
    found += [("configuration", at) for at in range(SPANS[1][1], SPANS[1][4])]
    for type_, start, body, length, end in SPANS[2:]:
        if type_ in ("start", "part", "end", "full"):
            found += [("section header", at) for at in range(start, body)]
            found += [("footer", at) for at in range(body + length, end)]
    found += [("vmdesc header", at) for at in range(VMDESC - 1, VMDESC + 6)]
    return found


def flipped(at, mask):
    data = bytearray(PC)
    data[at] ^= mask
    return bytes(data)


@pytest.mark.slow
def test_flips_of_headers():
    places = header_bytes()
    for number, (what, at) in enumerate(places if EXHAUSTIVE else places[:40] + places[40::31]):
        for mask in range(1, 256) if EXHAUSTIVE and number % 5 == 0 else (0x01, 0x80):
            problems = exercise(flipped(at, mask), len(PC), thorough=number % 30 == 0)
            if what == "footer":
                assert problems, (what, at, mask)


@pytest.mark.slow
@pytest.mark.parametrize("mask", [0x01, 0x40])
def test_a_flipped_type_or_id_is_noticed(mask):
    for type_, start, _body, _length, _end in SPANS[2:-2]:
        for at in (start,) if type_ == "command" else (start, start + 4):
            if at == start and mask == 1 and type_ in ("part", "end"):
                continue  # PART and END differ by this bit, and nothing says which of them it must be
            assert exercise(flipped(at, mask), len(PC), thorough=False), (start, at)


@pytest.mark.slow
def test_flips_of_ram_words():
    words = []
    at = RECORDS
    while len(words) < (2000 if EXHAUSTIVE else 4):
        words.append(at)
        flags = PC[at + 7] | (PC[at + 6] & 0xF) << 8
        at += 8 + (0 if flags & 0x20 else 1 + PC[at + 8]) + (4096 if flags & 8 else 1)
    for at in words:
        for byte in range(8):
            for mask in (0x01, 0x02, 0x20, 0xFF):
                exercise(flipped(at + byte, mask), len(PC), thorough=False)


@pytest.mark.slow
def test_flips_of_the_vmdesc():
    places = range(VMDESC + 5, len(PC)) if EXHAUSTIVE else sorted(CHOICE.sample(range(VMDESC + 5, len(PC)), 150))
    for number, at in enumerate(places):
        exercise(flipped(at, CHOICE.choice([0x01, 0x04, 0x10, 0x20, 0x80])), len(PC), thorough=number % 10 == 0)


SWAPS = [
    (b'"uint64"', b'"buffer"'),
    (b'"uint64"', b'"int64" '),
    (b'"int64"', b'"uint64"'),
    (b'"int64"', b'"buffer"'),
    (b'"uint32"', b'"bool"'),
    (b'"uint16"', b'"struct"'),
    (b'"int32"', b'"qtailq"'),
    (b'"struct", ', b'"gtree", '),
    (b'"tmp"', b'"struct"'),
    (b'"array_len": 8', b'"array_len": 0'),
    (b'"array_len": 16', b'"array_len": 1'),
    (b'"size": 8', b'"size": 0'),
    (b'"size": 8', b'"size": 7'),
    (b'"size": 1', b'"size": 1000000'),
    (b'"env.', b'"'),
    (b'"name": "env.xmm_regs[1]"', b'"name": "env.xmm_regs[0]"'),
    (b'"vmsd_name": "ymmh_reg"', b'"vmsd_name": "xmm_reg"'),
    (b'"vmsd_name": "ymmh_reg"', b'"vmsd_name": "hi16_zmm_reg"'),
    (b'"name": "env.fpop"', b'"name": "env.fpip"'),
    (b'"name": "env.tsc"', b'"name": "env.fpregs"'),
    (b'"name": "env.regs"', b'"name": "env.mp_state"'),
    (b'"vmsd_name": "segment"', b'"vmsd_name": "fpreg"'),
]


def swappable():
    """Return each sample with each swap of what its vmdesc contains."""
    found = []
    for name in ("pc-7.2", "twin-kvm-10.0"):
        data = samplefiles.read(name)
        text = data[data.rindex(b'"devices"') :]
        found += [(name, old, new) for old, new in SWAPS if old in text]
    return found


@pytest.mark.parametrize(
    ("name", "old", "new"), swappable(), ids=lambda word: word.decode() if isinstance(word, bytes) else word
)
def test_a_vmdesc_that_lies_about_types(name, old, new):
    """The lengths may still be right, so that headers and footers confirm what is nonsense."""
    data = samplefiles.read(name)
    start = data.rindex(b"\0\6", 0, data.rindex(b'"devices"'))
    text = data[start + 6 :].replace(old, new)
    assert text != data[start + 6 :]
    data = data[: start + 2] + be32(len(text)) + text
    exercise(data, len(data))


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in samplefiles.NAMES if name != "pc-7.2"])
def test_other_samples(name):
    data = samplefiles.read(name)
    for _ in range(40 if EXHAUSTIVE else 4):
        cut = CHOICE.randrange(len(data))
        exercise(data[:cut], cut)
        broken = bytearray(data)
        for _ in range(3):
            broken[CHOICE.randrange(len(data))] ^= 1 << CHOICE.randrange(8)
        exercise(bytes(broken), len(data))


# -- small streams, all of them ---------------------------------------------------------------------------------------


def little(*, footers=True, vmdesc=True):
    """A small stream with something of everything; device state within 3 KiB of the end."""
    w = StreamWriter("m", config=capabilities("x"), footers=footers)
    w.start(1, "ram", 0, 4, mem_size([("r", 40 * PAGE)]) + eos())
    records = zero(0, "r") + b"".join(zero(n * PAGE) for n in range(1, 20)) + xbzrle(0, b"abc") + compressed(0, b"z")
    w.part(1, records + eos())
    w.command(11, "SWITCHOVER_START")
    w.end(1, eos())
    point = Vmsd("p", 1, [num("x", "uint8", 1)])
    w.device(
        2,
        "d",
        0,
        Vmsd(
            "d",
            1,
            [
                qtailq("l", [point, point]),
                gtree("g", [(1, point)]),
                pointers("n", [None, point]),
                struct_("s", point),
                tmp("t", point),
                raw("b", b"\x7e\0\0\0\2"),
            ],
            [Vmsd("d/s", 1, [num("y", "uint64", 7)])],
        ),
    )
    w.old_style(0, "o", 0, 1, b"12345")
    return w.finish(vmdesc=vmdesc)


LITTLE = {"whole": little(), "no vmdesc": little(vmdesc=False), "no footers": little(footers=False)}


@pytest.mark.slow
@pytest.mark.parametrize("name", LITTLE)
def test_every_cut_of_a_small_stream(name):
    data = LITTLE[name]
    for cut in range(len(data)):
        exercise(data[:cut], cut)
        if EXHAUSTIVE or cut % 7 == 0:
            exercise(io.BytesIO(data[:cut]), cut)


@pytest.mark.slow
@pytest.mark.parametrize("name", LITTLE)
def test_flips_of_every_byte_of_a_small_stream(name):
    data = LITTLE[name]
    for at in range(len(data)):
        for mask in range(1, 256) if EXHAUSTIVE else (0x01, 0x82):
            broken = bytearray(data)
            broken[at] ^= mask
            exercise(bytes(broken), len(data))


EDIT = st.tuples(st.sampled_from(["set", "insert", "delete", "copy"]), st.integers(0, 1 << 20), st.binary(max_size=12))
FULL = StreamWriter()
FULL.start(1, "ram", 0, 4, mem_size([("r", 4 * PAGE)]) + eos())
FULL.end(1, page(0, bytes(PAGE), "r") + zero(PAGE) + eos())
FULL.device(2, "cpu", 0, x86_cpu(xmm=[(1, 2)], subsections=[Vmsd("cpu/xss", 1, [num("env.xss", "uint64", 8)])]))
FULL.device(3, "cpu_common", 0, Vmsd("cpu_common", 1, [num("halted", "uint32", 1)]))
FULL_BYTES = FULL.finish()


@given(st.sampled_from([*LITTLE.values(), FULL_BYTES]), st.lists(EDIT, min_size=1, max_size=6), st.booleans())
@settings(max_examples=2000 if EXHAUSTIVE else 250, deadline=None, suppress_health_check=list(HealthCheck))
def test_mutations(data, edits, pipe):
    broken = bytearray(data)
    for kind, at, piece in edits:
        at %= len(broken) + 1
        if kind == "set":
            broken[at : at + len(piece)] = piece
        elif kind == "insert":
            broken[at:at] = piece
        elif kind == "delete":
            del broken[at : at + len(piece)]
        else:
            broken[at:at] = broken[-40 * len(piece) - 1 :]
    exercise(io.BytesIO(bytes(broken)) if pipe else bytes(broken), len(broken))


@given(st.binary(max_size=300))
@settings(max_examples=300, deadline=None)
def test_any_bytes_behind_a_good_start(data):
    w = StreamWriter()
    w.start(1, "ram", 0, 4, mem_size([("r", PAGE)]) + eos())
    whole = bytes(w.data) + data
    exercise(whole, len(whole))


# -- memory -----------------------------------------------------------------------------------------------------------

PEAK = (
    "import sys\n"
    "from qmigtool.cli.main import run\n"
    "code = run(sys.argv[1:])\n"
    "sys.stdout.flush()\n"
    # VmHWM: ru_maxrss would also count what pytest had before it started this program.
    "status = dict(line.split(':', 1) for line in open('/proc/self/status'))\n"
    "print(status['VmHWM'].split()[0], code, file=sys.stderr)\n"
)


def bomb(kind):
    """A small file that asks for a lot."""
    w = StreamWriter()
    if kind == "machine":
        return b"QEVM\0\0\0\3\7\xff\xff\xff\xff" + b"x" * 100
    if kind == "ram total":
        w.start(1, "ram", 0, 4, mem_size([("r", 1 << 62)]) + eos())
        w.end(1, b"".join(zero(n << 40, "r") for n in range(1000)) + eos())
        w.device(2, "d", 0, Vmsd("d", 1, []))
        return w.finish()
    w.start(1, "ram", 0, 4, mem_size([("r", PAGE)]) + eos())
    if kind == "parts":
        for _ in range(200_000):
            w.data += b"\2\0\0\0\1" + eos() + b"\x7e\0\0\0\1"
    if kind == "vmdesc length":
        return bytes(w.data) + b"\0\6\xff\xff\xff\xff{"
    item = raw("x", b"12345678")
    if kind == "array_len":
        item.entries[0].insert(1, ("array_len", 1 << 23))
    if kind == "gtree":
        item = gtree("t", [])
        item.data = b"\xff\xff\xff\xff\0"
        item.entries[0][-1] = ("size", 5)
    w.device(2, "cpu", 0, Vmsd("cpu", 1, [item, num("env.fpuc", "uint16", 0)]))
    return w.finish()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["machine", "ram total", "parts", "vmdesc length", "array_len", "gtree"])
@pytest.mark.parametrize("command", [["info"], ["show", "--json"]], ids=lambda words: words[0])
def test_memory_of_the_command_line(kind, command, tmp_path):
    path = tmp_path / "bomb.mig"
    path.write_bytes(bomb(kind))
    done = subprocess.run(
        [sys.executable, "-c", PEAK, *command, str(path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Traceback" not in done.stderr
    peak, code = map(int, done.stderr.splitlines()[-1].split())
    assert code in (0, 1, 3, 63)  # 1: memory is missing
    assert peak * 1024 < MEMORY


@pytest.mark.parametrize("cut", [0, 9, 200_000, 600_000, 660_000])
@pytest.mark.parametrize("stdin", [False, True], ids=["file", "pipe"])
def test_memory_is_bounded_by_the_kernel_too(cut, stdin, tmp_path):
    """RLIMIT_AS counts what is mapped as well: the interpreter, the libraries and the file."""
    path = tmp_path / "cut.mig"
    path.write_bytes(PC[:cut])

    def limit():
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY + (100 << 20), MEMORY + (100 << 20)))

    with path.open("rb") as file:
        done = subprocess.run(
            [sys.executable, "-m", "qmigtool", "info", "-" if stdin else str(path)],
            stdin=file,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            preexec_fn=limit,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        )
    assert "Traceback" not in done.stderr
    assert done.returncode == 3
    assert "offset 0x" in done.stderr
