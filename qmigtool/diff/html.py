"""A comparison as one self-contained HTML page: for an issue tracker, or a CI job's artifacts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from qmigtool.util.html import html_text

__all__ = ["page"]

_STYLE = """
:root { color-scheme: light dark; }
body { font: 14px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 110rem; padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
.verdict { font-weight: 600; padding: .4rem .8rem; border-radius: .3rem; display: inline-block; color: #fff; }
.same { background: #1a7f37; } .different { background: #b42318; } .undecided { background: #9a6700; }
table { border-collapse: collapse; width: 100%; }
th { text-align: left; position: sticky; top: 0; background: Canvas; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid #8884; vertical-align: top; overflow-wrap: anywhere; }
td.code { font-family: ui-monospace, monospace; font-size: 12.5px; }
"""


def page(
    title: str, verdict: str, *, same: bool | None, parts: Iterable[tuple[str, Sequence[str], list[list[str]]]]
) -> str:
    """Return the page: a verdict, and for each part a heading and a table (header, lines of cells) of plain text.

    All columns except the last use a fixed-width font. An empty table is left out.
    """
    kind = {True: "same", False: "different", None: "undecided"}[same]
    body = [f"<h1>{escape(title)}</h1>", f'<p class="verdict {kind}">{escape(verdict)}</p>']
    for heading, head, lines in parts:
        if not lines:
            continue
        body.append(f"<h2>{escape(heading)}</h2>\n<table>\n<tr>" + "".join(f"<th>{escape(h)}</th>" for h in head))
        for line in lines:
            *code, words = map(html_text, line)
            cells = "".join(f'<td class="code">{cell}</td>' for cell in code)
            body.append(f"<tr>{cells}<td>{words}</td></tr>")
        body.append("</table>")
    return (
        f'<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style></head>\n<body>\n" + "\n".join(body) + "\n</body>\n</html>\n"
    )
