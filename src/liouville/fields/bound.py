"""A field with the noise or the arguments of a run bound to it."""

from __future__ import annotations

__all__ = ["Bound", "original"]

from typing import Any


class Bound:
    """Stands for a field during a run: ``original`` is the field, and any other attribute is read from it."""

    original: Any

    def __getattr__(self, name: str) -> Any:
        return getattr(self.original, name)


def original(field: Any) -> Any:
    """The field that a run has fixed, or the field itself."""
    return field.original if isinstance(field, Bound) else field
