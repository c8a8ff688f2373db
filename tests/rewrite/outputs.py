"""What the tests of the rewriter and its output share."""

import io

import qmigtool
from qmigtool.rewrite import write_stream
from tests.support import samplefiles
from tests.support.packedsamples import packed
from tests.support.ramwriter import named_page, plain


def path(name):
    return samplefiles.path(name) if name in samplefiles.NAMES else packed(name).path


def names_in(folder):
    return sorted(one.name for one in folder.iterdir())


SMALL = plain(named_page(0, 1), named_page(3, 2)).finish(tail=b"tail")


def spliced(data, splices):
    out = io.BytesIO()
    with qmigtool.open(data) as stream:
        written = write_stream(stream, out, splices)
    assert written == len(out.getvalue())
    return out.getvalue()
