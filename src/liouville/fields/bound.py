"""A field that something of a run is bound to, its noise or its arguments, and the field itself."""

from __future__ import annotations

__all__ = ["Bound", "original"]

from typing import Any


class Bound:
    """What a run puts in place of a field: ``original`` is the field, and whatever else is asked is its own."""

    original: Any

    def __getattr__(self, name: str) -> Any:
        return getattr(self.original, name)


def original(field: Any) -> Any:
    """The field that a run has fixed, or the field itself."""
    return field.original if isinstance(field, Bound) else field
