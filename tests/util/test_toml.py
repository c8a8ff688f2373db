from pathlib import Path

import pytest

from qmigtool.errors import UsageError
from qmigtool.util.toml import load_toml, parse_toml


def test_what_is_written() -> None:
    assert parse_toml("a = 1\n[b]\nc = [0xffffffffffffffff]\n", "it") == {"a": 1, "b": {"c": [2**64 - 1]}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a = ", "it is not TOML"),
        ("a = " + "1" * 5000, "it is not TOML"),  # Python refuses to read so many digits
        ("a = 0x" + "f" * 5000, "a number of 20000 bits"),  # and to print these
        ("a = [[0x1ffffffffffffffff]]", "a number of 65 bits"),
        ("a = " + "[" * 5000, "nested too deeply"),
        ("a = " + "[" * 80 + "]" * 80, "nested too deeply"),
        (".".join("a" * 400) + " = 1", "more than 64 dots"),
        ("\n".join(f"a{i}" + ".b" * 40 + " = 1" for i in range(600)), "20000 in all"),
        ("#" * (2 << 20), "it is too long"),
        (b"\xff\xfe", "it is not text"),
    ],
)
def test_what_nobody_writes(text: str | bytes, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_toml(text, "it")


def test_files(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text("a = true")
    assert load_toml(file) == {"a": True}
    file.write_text("a")
    with pytest.raises(UsageError) as caught:
        load_toml(file)
    assert caught.value.file == str(file)
    with pytest.raises(UsageError, match="cannot be read"):
        load_toml("/dev/zero")
