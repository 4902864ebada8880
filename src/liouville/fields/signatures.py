"""Which arguments a function takes beside the state, and which arguments of a run it therefore gets."""

from __future__ import annotations

__all__ = ["Signature", "named"]

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class Signature(NamedTuple):
    """The parameters after the first ones: ``order`` by position, ``names`` by keyword, ``required`` without default.

    Examples:
        >>> Signature.of(lambda x, mask=None: x).takes((), {"mask": 1})
        True
        >>> Signature.of(lambda x: x).takes((), {"mask": 1})
        False
    """

    order: tuple[str, ...] = ()
    places: float = 0
    names: frozenset[str] = frozenset()
    any_name: bool = False
    required: tuple[str, ...] = ()

    @classmethod
    def of(cls, function: Callable[..., Any], skip: int = 1) -> Signature:
        """The signature of ``function`` after its first ``skip`` parameters; empty where Python cannot tell."""
        try:
            parameters = list(inspect.signature(function).parameters.values())
        except (TypeError, ValueError):
            return cls()
        more = math.inf if any(p.kind is p.VAR_POSITIONAL for p in parameters) else 0
        any_name = any(p.kind is p.VAR_KEYWORD for p in parameters)
        parameters = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        order = tuple(p.name for p in parameters if p.kind in _POSITIONAL)[skip:]
        rest = parameters[min(skip, sum(p.kind in _POSITIONAL for p in parameters)) :]
        names = frozenset(p.name for p in rest if p.kind is not p.POSITIONAL_ONLY)
        required = tuple(p.name for p in rest if p.default is p.empty)
        return cls(order, len(order) + more, names, any_name, required)

    def chosen(self, args: Sequence[Any], context: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments for this function: all by position if it takes so many, and the keywords that it names."""
        own = tuple(args) if len(args) <= self.places else ()
        return own, {k: v for k, v in context.items() if self.any_name or k in self.names}

    def takes(self, args: Sequence[Any], context: Mapping[str, Any]) -> bool:
        """Whether this function takes all of them."""
        return self.chosen(args, context) == (tuple(args), dict(context))

    def missing(self, args: Sequence[Any], context: Mapping[str, Any]) -> list[str]:
        """The required parameters that are not among them."""
        known = {*self.order[: len(args)], *context}
        return [name for name in self.required if name not in known]


def named(args: Sequence[Any], context: Mapping[str, Any]) -> str:
    """The arguments of a run, named for a sentence."""
    by_place = [f"{len(args)} by position"] if args else []
    return " and ".join([*by_place, *context])
