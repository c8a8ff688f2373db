"""Tables in HTML, for notebooks (``_repr_html_``): every name in them is escaped, as it comes from a file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from qmigtool.util.text import printable

__all__ = ["html_table", "html_text"]

SHOWN = 200  # lines of a table in a notebook


def html_text(text: str) -> str:
    """Escape text for HTML, inside an element or an attribute; what does not print is escaped as for a terminal."""
    return escape(printable(text))


def html_table(title: str, head: Sequence[str], lines: Iterable[Sequence[object]], notes: Iterable[str] = ()) -> str:
    """Return a heading, a table of plain text (at most :data:`SHOWN` lines) and notes; an empty table is left out.

    None is an empty cell, a flag is ``yes`` or ``no``.
    """
    rows = list(lines)
    parts = [f"<p><b>{html_text(title)}</b></p>"]
    if rows:
        parts.append("<table>\n<thead><tr>" + "".join(f"<th>{html_text(one)}</th>" for one in head) + "</tr></thead>")
        parts.append("<tbody>")
        parts += [
            "<tr>" + "".join(f"<td>{html_text(_cell(one))}</td>" for one in row) + "</tr>" for row in rows[:SHOWN]
        ]
        parts.append("</tbody>\n</table>")
    more = [f"... and {len(rows) - SHOWN} more"] if len(rows) > SHOWN else []
    parts += [f"<p>{html_text(note)}</p>" for note in (*more, *notes)]
    return "<div>" + "\n".join(parts) + "</div>"


def _cell(value: object) -> str:
    if value is None:
        return ""
    return ("no", "yes")[value] if isinstance(value, bool) else str(value)
