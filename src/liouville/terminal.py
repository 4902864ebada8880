"""Text from files of others, for a terminal: what a terminal would obey is shown, not sent."""

from __future__ import annotations

__all__ = ["printable"]

import re

# Controls, among them the escape that begins a command; marks that turn or hide text; halves of characters.
_OBEYED = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff]"
)


def printable(text: str) -> str:
    r"""The text with such characters written as Python writes them; tabs and line ends stay.

    Examples:
        >>> print(printable("\x1b[2Ja b"))
        \x1b[2Ja b
    """
    return _OBEYED.sub(lambda found: ascii(found[0])[1:-1], text)
