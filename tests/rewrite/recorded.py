"""What the tests of page records and RAM blocks share: the records of a stream, and notes of an edit."""

import qmigtool
from tests.rewrite.memories import CONTINUE, walk


def records(data, **options):
    return [(r.block, r.page, r.kind | (0 if r.named else CONTINUE)) for r in walk(data, **options).records]


def raws(data):
    return [r.raw for r in walk(data).records]


def notes(data, edit):
    with qmigtool.open(data) as stream:
        rewriter = qmigtool.Rewriter(stream)
        edit(rewriter)
        return rewriter.notes
