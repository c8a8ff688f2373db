"""The page of a comparison, with hostile names in the streams."""

from pathlib import Path

from qmigtool.cli.main import run
from tests.cli.calling import PC
from tests.diff.comparing import edited


def test_html_of_a_broken_stream_is_neither_green_nor_red(tmp_path: Path) -> None:
    whole = Path(PC).read_bytes()
    cut = tmp_path / "cut.mig"
    cut.write_bytes(whole[:-1000])
    assert run(["diff", str(cut), str(cut), "--html", str(tmp_path / "out.html")]) == 3
    assert '<p class="verdict undecided">' in (tmp_path / "out.html").read_text(encoding="utf-8")


def test_html_escapes_what_a_stream_says(tmp_path: Path) -> None:
    evil = tmp_path / "evil.mig"
    evil.write_bytes(edited("pc-7.2", lambda r: r.rename_block("pc.rom", "<script>alert(1)</script>\x1b[31m")))
    page = tmp_path / "page.html"
    run(["diff", PC, str(evil), "--html", str(page)])
    text = page.read_text(encoding="utf-8")
    assert "<script>" not in text
    assert "\x1b" not in text
    assert "&lt;script&gt;" in text
