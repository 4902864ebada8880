"""Look a name up in a table; the error for an unknown name suggests the nearest ones."""

from __future__ import annotations

__all__ = ["lookup", "spelled", "suggestion"]

import difflib
from collections.abc import Iterable, Mapping
from typing import TypeVar

T = TypeVar("T")


def lookup(table: Mapping[str, T], name: object, what: str) -> T:
    """Return ``table[name]``; raise a `ValueError` that suggests the nearest name where there is none.

    Examples:
        >>> lookup({"h1": 1, "h2": 2}, "H2", "model")
        Traceback (most recent call last):
            ...
        ValueError: unknown model 'H2'; did you mean 'h2'? Known models: h1, h2.
    """
    if isinstance(name, str) and name in table:
        return table[name]
    near = suggestion(name, table)
    raise ValueError(f"unknown {what} {name!r}; {near}{'K' if near else 'k'}nown {what}s: {', '.join(table)}.")


def spelled(name: T, known: Iterable[str]) -> T | str:
    """The only known name that differs from ``name`` just by case, or _ for -, if there is one; else ``name``.

    It is for typed names: `lookup` needs exact names.

    Examples:
        >>> spelled("H2", ("h1", "h2")), spelled("Swiss_Roll", ("swiss-roll", "peaks")), spelled("h3", ("h1",))
        ('h2', 'swiss-roll', 'h3')
    """
    known = tuple(known)
    same = [k for k in known if _folded(k) == _folded(name)] if isinstance(name, str) and name not in known else []
    return same[0] if len(same) == 1 else name


def _folded(name: str) -> str:
    return name.lower().replace("_", "-")


def suggestion(name: object, known: Iterable[str]) -> str:
    """``"did you mean 'x'? "`` for the known name nearest to ``name``, or an empty string."""
    folded, word = {_folded(candidate): candidate for candidate in known}, _folded(str(name))
    close = 0.5 if len(word) < 4 else 0.6  # of two letters one may be wrong
    begun = [candidate for candidate in folded if len(word) > 2 and candidate.startswith(word)]
    near = begun[:1] or difflib.get_close_matches(word, folded, n=1, cutoff=close)
    return f"did you mean {folded[near[0]]!r}? " if near else ""
