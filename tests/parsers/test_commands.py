"""The commands of a stream: each one, and advise without a payload."""

import pytest

from qmigtool.errors import StreamError
from qmigtool.parsers.savevm import Reader
from qmigtool.parsers.window import Window
from tests.parsers.framing import error_of
from tests.parsers.reading import as_spans, read_whole
from tests.parsers.test_record import COMMANDS as NUMBERS
from tests.support.streamwriter import (
    PAGE,
    StreamWriter,
    be16,
    be64,
    eos,
    mem_size,
    str8,
)

COMMANDS = {number: name for name, number in NUMBERS.items()}


@pytest.mark.parametrize("number", range(1, 12))
def test_every_command(number):
    lengths = {1: 0, 2: 4, 3: 16, 4: 0, 5: 0, 6: 41, 7: 4, 8: 0, 9: 0, 10: 7, 11: 0}
    name = COMMANDS[number].removeprefix("MIG_CMD_")
    payload = bytes(lengths[number])
    if number == 6:
        payload = b"\0" + str8("r") + b"\0" + be64(0) + be64(PAGE)
    w = StreamWriter()
    w.start(1, "ram", 0, 4, mem_size([("r", 2 * PAGE)]) + eos())
    w.command(number, name, payload)
    assert as_spans(read_whole(w.finish()).sections) == w.spans
    if number not in (6, 10):
        wrong = b"QEVM\0\0\0\x03\x08" + be16(number) + be16(lengths[number] + 1) + bytes(99)
        error = error_of(wrong)
        assert (type(error), error.offset) == (StreamError, 11)


def test_advise_without_a_payload_is_for_bitmaps_only():
    w = StreamWriter()
    w.command(3, "POSTCOPY_ADVISE")
    w.start(1, "ram", 0, 4, mem_size([("r", PAGE)]) + eos())
    reader = Reader(Window(w.finish(), final=True))
    list(reader.sections())
    assert reader.ram.advise is None
