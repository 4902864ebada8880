"""What a cell of a table is: a number, a missing value, a name, or a number that somebody spelled in another way."""

from __future__ import annotations

__all__ = ["is_name", "missing", "number", "numbers", "spelling"]

import re
from collections.abc import Sequence

_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_PLAIN = re.compile(r"[0-9+\-.eE ]*")  # over these characters `float` reads what `_NUMBER` reads, and nothing else
_BLANKS = " \t"

_MISSING = """
na n/a #n/a #na <na> n.a. nd n.d. n.v. k.a. k.w. nan -nan +nan nat null nul none nil undef undefined unknown missing
void blank empty error nodata notavailable #null! #div/0! #value! #ref! #name? #num! - -- --- ? . .. *
1.#ind -1.#ind 1.#qnan -1.#qnan 1.#inf -1.#inf inf +inf -inf infinity +infinity -infinity
"""
_MISSING_WORDS = frozenset(_MISSING.split())
_ERRORS = re.compile(r"#[^,;]*[!?]|[+-]?nan\(.*\)")  # of a spreadsheet in any language; of C
_VALUES = "true false yes no wahr falsch vrai faux verdadero falso vero"  # and no names of columns
_WORDS = frozenset(_VALUES.split())
_MONTHS = "jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec|mai|okt|dez"

_INVISIBLE = "a no-break space or another invisible character"
_DIGITS = r"\d+(?:\.\d*)?(?:[eE][+-]?\d+)?"
_SPELLINGS = (  # what is unusual, and how to find it; the first that fits is told
    (r"\W*\d+(?:_\d+)+\W*.*", "an underscore within a number"),
    (r"[+-]?0[xXbBoO][0-9a-fA-F]+", "not a decimal number"),
    (r"[+-]?\d{1,3}(?:,\d{3})+\.\d*", "commas between thousands"),
    (r"[+-]?\d{1,3}(?:\.\d{3})+,\d*", "points between thousands and a comma"),
    (r"[+-]?\d{1,3}(?:['’\s]\d{3})+(?:[.,]\d*)?", "marks between thousands"),
    (r"[+-]?\d{1,3}(?:,\d{3}){2,}|[+-]?\d{1,2}(?:,\d{2})+,\d{3}(?:\.\d*)?", "commas between thousands"),
    (r"[+-]?(?:\d+,\d*|,\d+)(?:[eE][+-]?\d+)?", "a comma in it"),
    (r"[+-]?\d+(?:\.\d+){2,}", "several points"),
    (rf"[+-]?{_DIGITS}\s*[%‰]", "a per cent sign"),
    (
        rf"[+-]?\s*(?:USD|EUR|GBP|JPY|CHF|CNY|INR|[$€£¥₹])\s*[+-]?{_DIGITS}|[+-]?{_DIGITS}\s*[$€£¥₹]",
        "a currency",
    ),
    (r"[+-]?\d+(?:\.\d*)?[eEdD][+-]?", "an exponent without digits"),
    (r"[+-]?\d*\.?\d+[dD][+-]?\d+", "a Fortran exponent; write e"),
    (r"[OoIl][.,]\d+", "a letter in place of a digit"),
    (rf"[+-]\s+{_DIGITS}|[+-]{{2,}}{_DIGITS}", "a sign that stands apart or twice"),
    (rf"{_DIGITS}[+-]|\({_DIGITS}\)", "a minus sign in another place"),
    (rf"'{_DIGITS}'?|'[+-]{_DIGITS}'?", "an apostrophe"),
    (r"\d+/\d+", "a fraction"),
    (rf"\d{{1,4}}[-:/]\d{{1,2}}.*|(?i:{_MONTHS})[a-zA-Z]*[-./ ]+\d{{1,4}}", "a date or time"),
    (rf"[+-]?{_DIGITS}\s*[^\W\d_].*", "a unit or other letters"),
)


def number(cell: str) -> float | None:
    """The number that ``cell`` spells in ASCII, with blanks around it allowed; None for anything else.

    Sign, digits with at most one point, exponent: what every program writes and reads alike. Too large a number is
    infinite; the words inf and nan are no numbers.

    Examples:
        >>> [number(cell) for cell in (" -1.5e3", ".5", "1_0", "0,1", "nan", "")]
        [-1500.0, 0.5, None, None, None, None]
    """
    cell = cell.strip(_BLANKS)
    return float(cell) if _NUMBER.fullmatch(cell) else None


def numbers(cells: Sequence[str]) -> list[float | None]:
    """`number` of every cell, in a fraction of the time where all of them are numbers."""
    if _PLAIN.fullmatch("".join(cells)):
        try:
            return list(map(float, cells))
        except ValueError:
            pass
    return [number(cell) for cell in cells]


def missing(cell: str) -> bool:
    """Whether ``cell`` is a word for a missing or infinite value, or empty.

    Examples:
        >>> [missing(cell) for cell in ("", "NA", "#N/A", "#WERT!", "-", "k. A.", "nap")]
        [True, True, True, True, True, True, False]
    """
    word = "".join(cell.split()).casefold()
    return not word or word in _MISSING_WORDS or _ERRORS.fullmatch(word) is not None


def spelling(cell: str) -> str | None:
    """What is unusual in a number that people write and `number` refuses; None for what is no such number.

    Examples:
        >>> spelling("0,1"), spelling("5 %"), spelling("age")
        ('a comma in it', 'a per cent sign', None)
    """
    text = cell.strip()
    if len(text) <= 100 and number(text) is not None and number(cell) is None:
        return _INVISIBLE
    if len(text) > 100 or number(text) is not None:
        return None
    if re.match(r"[\u2010-\u2015\u2212\ufe63\uff0d]\s*[\d.,]", text):
        return "a minus sign that is not ASCII"
    if any(c.isnumeric() for c in text) and not any(c.isalpha() and c not in "eE" for c in text):
        if any(c.isnumeric() and not c.isascii() for c in text):
            return "digits that are not ASCII"
        if any(not c.isprintable() or (c.isspace() and c not in _BLANKS) for c in cell):
            return _INVISIBLE
    return next((what for pattern, what in _SPELLINGS if re.fullmatch(pattern, text)), None)


def is_name(cell: str) -> bool:
    """Whether ``cell`` is clearly the name of a column: it has a letter, and is no value in any spelling.

    Examples:
        >>> [is_name(cell) for cell in ("age", "x1", "sepal length (cm)", "NA", "5 kg", "1e", "0.1", "true")]
        [True, True, True, False, False, False, False, False]
    """
    text = cell.strip()
    if not any(c.isalpha() for c in text) or text[0].isnumeric() or missing(text) or text.casefold() in _WORDS:
        return False
    return number(cell) is None and spelling(cell) is None
