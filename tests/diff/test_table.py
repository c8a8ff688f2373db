"""The differences as a data frame."""

from qmigtool.diff import differences
from tests.diff.comparing import compared


def test_the_data_frame() -> None:
    frame = differences(compared("twin-kvm-10.0", "twin-tcg-10.0"))
    assert list(frame.columns) == [column.name for column in differences.columns]
    for column in differences.columns:
        assert str(frame[column.name].dtype).startswith(column.dtype.replace("string", "str")[:3]), column.name
    assert set(frame.query("not excused").topic.dropna()) == {
        "clock",
        "execution",
        "accelerator",
        "SMM",
        "APIC",
        "PIC",
        "PIT",
    }
