"""What notebooks show of an object: a small table in HTML, every string escaped."""

from __future__ import annotations

__all__ = ["table"]

import html
from collections.abc import Sequence


def table(caption: str, head: Sequence[str], rows: Sequence[Sequence[object]], note: str = "") -> str:
    """A table whose first column names the rows; a note below it.

    Examples:
        >>> table("a < b", ("name", "value"), [("<x>", 1)])[:38]
        '<table><caption style="text-align:left'
        >>> "<x>" in table("a < b", ("name", "value"), [("<x>", 1)])
        False
    """

    def line(tag: str, cells: Sequence[object]) -> str:
        first = ' scope="row"' if tag == "td" else ' scope="col"'
        inside = [html.escape(str(cell)) for cell in cells]
        others = "".join(f'<{tag} style="text-align:left">{cell}</{tag}>' for cell in inside[1:])
        return f'<tr><th{first} style="text-align:left">{inside[0]}</th>{others}</tr>'

    lines = "".join(line("td", row) for row in rows)
    above = f"<thead>{line('th', head)}</thead>" if head else ""
    below = f"<p>{html.escape(note)}</p>" if note else ""
    title = f'<caption style="text-align:left;font-weight:bold">{html.escape(caption)}</caption>'
    return f"<table>{title}{above}<tbody>{lines}</tbody></table>{below}"
