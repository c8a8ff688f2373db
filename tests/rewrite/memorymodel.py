"""Streams of random records, and a model of what edits make of them; nothing of it is qmigtool's.

The model keeps two accounts: of the list of records, and of memory page by page.
"""

import zlib

from hypothesis import strategies as st

from tests.rewrite.memories import NORMAL, XBZRLE, ZERO
from tests.support import naiveram
from tests.support.ramwriter import filled
from tests.support.streamwriter import PAGE, StreamWriter, Vmsd, compressed, eos, mem_size, num, page, xbzrle, zero

DELTA = bytes((5, 2, 0xAA, 0xBB))  # skip 5, write 2
DEVICE = Vmsd("timer", 2, [num("ticks", "int64", 5)])


def stream_of(blocks, *parts, end=b"", config=b"", footers=True):
    """Blocks of so many pages; a PART of each list of records."""
    size = 1 << (config[-1] if config else 12)
    w = StreamWriter(config=config, footers=footers)
    w.start(1, "ram", 0, 4, mem_size([(name, count * size) for name, count in blocks]) + eos())
    for part in parts:
        w.part(1, b"".join(part) + eos())
    w.end(1, end + eos())
    w.device(2, "timer", 0, DEVICE)
    return w.finish()


NAMES = ("a", "bb", "/rom@x")


def built(run):
    """Records of a run: (block, first page, count, kind, value, whether each names its block)."""
    _, first, count, kind, value, _ = run
    for i in range(first, first + count):
        addr = i * PAGE
        if kind == "zero":
            yield lambda name, addr=addr: zero(addr, name, value % 2 * value)
        elif kind == "normal":
            yield lambda name, addr=addr: page(addr, filled(value % 3), name)
        elif kind == "xbzrle":
            yield lambda name, addr=addr: xbzrle(addr, bytes((value, 1 + value % 2)) + bytes(1 + value % 2), name)
        else:
            data = zlib.compress(filled(value % 3))
            yield lambda name, addr=addr, data=data: compressed(addr, data, name)


runs = st.tuples(
    st.sampled_from(NAMES),
    st.integers(0, 7),
    st.integers(1, 4),
    st.sampled_from(["zero", "normal", "normal", "xbzrle", "compressed"]),
    st.integers(0, 5),
    st.sampled_from([False, False, True]),
)
blocks_of_12 = st.sampled_from(NAMES)
edits = st.lists(
    st.one_of(
        st.tuples(st.just("drop"), blocks_of_12),
        st.tuples(st.just("resize"), blocks_of_12, st.integers(1, 14)),
        st.tuples(st.just("rename"), blocks_of_12, st.sampled_from(["a", "z", "longer name", "bb"])),
        st.tuples(st.just("scrub"), st.lists(blocks_of_12, max_size=2).map(tuple)),
        st.tuples(st.just("squeeze")),
    ),
    max_size=4,
)


class Model:
    """The same edits on a list of records and, on their own, on the pages that those make."""

    def __init__(self, walked):
        self.blocks = dict(walked.blocks)
        self.source = {name: name for name in self.blocks}  # name by now -> in the source
        self.records = [r.meaning for r in walked.records]
        self.pages = content(self.records)
        self.touched = set()  # names in the source
        self.squeezed = False

    def fits(self, edit):
        what, *more = edit
        if what == "scrub":
            return all(name in self.blocks for name in more[0])
        if what == "squeeze":
            return True
        return more[0] in self.blocks and not (what == "rename" and more[1] in self.blocks)

    def make(self, edit):
        what, *more = edit
        getattr(self, what)(*more)

    def drop(self, name):
        self.touched.add(self.source[name])
        del self.blocks[name]
        self.records = [r for r in self.records if r[2] != name]
        self.pages = {page: data for page, data in self.pages.items() if page[0] != name}

    def resize(self, name, count):
        self.touched.add(self.source[name])
        self.blocks[name] = count * PAGE
        self.records = [r for r in self.records if r[2] != name or r[3] < count]
        self.pages = {page: data for page, data in self.pages.items() if page[0] != name or page[1] < count}

    def rename(self, old, new):
        def now(name):
            return new if name == old else name

        self.touched.add(self.source[old])
        self.source[new] = self.source[old]
        self.blocks = {now(name): size for name, size in self.blocks.items()}
        self.records = [(*r[:2], now(r[2]), *r[3:]) for r in self.records]
        self.pages = {(now(name), number): data for (name, number), data in self.pages.items()}

    def scrub(self, names):
        names = names or tuple(self.blocks)
        self.touched |= {self.source[name] for name in names}
        self.records = [(r[0], ZERO, *r[2:4], b"\0") if r[2] in names else r for r in self.records]
        self.pages = {page: bytes(PAGE) if page[0] in names else data for page, data in self.pages.items()}

    def squeeze(self):
        self.squeezed = True
        empty = NORMAL, bytes(PAGE)
        self.records = [(r[0], ZERO, *r[2:4], b"\0") if (r[1], r[4]) == empty else r for r in self.records]

    @property
    def live(self):
        """The pages that are not zero."""
        return {page: data for page, data in self.pages.items() if any(data)}


def call(rewriter, edit):
    what, *more = edit
    if what == "drop":
        rewriter.drop_block(more[0])
    elif what == "resize":
        rewriter.resize_block(more[0], more[1] * PAGE)
    elif what == "rename":
        rewriter.rename_block(*more)
    elif what == "scrub":
        rewriter.scrub_ram(*more[0])
    else:
        rewriter.squeeze_zero_pages()


def content(records):
    """What the records make of memory."""
    out = {}
    for _, kind, block, number, data in records:
        if kind == XBZRLE:
            out[block, number] = naiveram.patch(out.get((block, number), bytes(PAGE)), data)
        else:
            out[block, number] = {ZERO: data * PAGE, NORMAL: data}.get(kind) or zlib.decompress(data)
    return out


def random_stream(listed):
    """A stream of runs, each with whether a new PART starts with it."""
    parts, last = [[]], None
    for run, new_part in listed:
        if new_part:
            parts.append([])
        for make in built(run):
            parts[-1].append(make(run[0] if run[5] or run[0] != last else None))
            last = run[0]
    return stream_of([(name, 12) for name in NAMES], *parts)


streams = st.lists(st.tuples(runs, st.booleans()), max_size=12).map(random_stream)
