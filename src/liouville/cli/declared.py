"""Options that a record of the library declares: one for each field, with what the docstring says of it as help.

The records need torch, which takes seconds to import, and ``--help`` must not wait for it. So the class is read as the
documentation reads it: from its source, without running it.
"""

from __future__ import annotations

__all__ = ["Declared", "declared", "options"]

import ast
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import liouville

_KINDS = {"int": int, "float": float}


class Declared(NamedTuple):
    """A field of a record: a number of ``kind``, or one of some ``words``."""

    name: str
    kind: type
    words: tuple[str, ...]
    help: str
    former: str | None


def declared(file: str, name: str) -> list[Declared]:
    """The numbers and choices among the fields of a dataclass, in their order.

    Args:
        file: within the package.
        name: of the class; its docstring explains each field under ``Args:``, in the first clause for ``--help``.

    Examples:
        >>> [field.help for field in declared("train/settings.py", "Settings") if field.name == "batch_size"]
        ['Take this many samples for each step.']
    """
    tree = ast.parse((Path(liouville.__file__).parent / file).read_text(encoding="utf-8"))
    cls = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name)
    said, former = _arguments(ast.get_docstring(cls) or ""), _former(cls)
    found = []
    for node in cls.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            field = node.target.id
            kind, words = _kind(node.annotation)
            if kind is not None:
                found.append(Declared(field, kind, words, _in_a_line(said[field]), former.get(field)))
    return found


def options(
    option: Callable[..., Callable[[Any], Any]],
    fields: Iterable[Declared],
    help: Mapping[str, str] = MappingProxyType({}),
    more: Mapping[str, tuple[str, ...]] = MappingProxyType({}),
) -> Callable[[Any], Any]:
    """A decorator that gives a command the options of some fields.

    Args:
        option: like ``click.option``.
        fields: from `declared`.
        help: texts that replace those of the class.
        more: words that a choice has at the command line only.
    """

    def decorated(command: Any) -> Any:
        for field in reversed(tuple(fields)):
            words = (*field.words, *more.get(field.name, ()))
            kind = {"metavar": "|".join(words)} if words else {"type": field.kind}
            former = None if field.former is None else _dashed(field.former)
            text = help.get(field.name, field.help)
            command = option(_dashed(field.name), former=former, help=text, **kind)(command)
        return command

    return decorated


def _dashed(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _kind(annotation: ast.expr) -> tuple[type | None, tuple[str, ...]]:
    """``int``, ``float | None``, ``Literal["a", "b"]``; None for what is no word of a command line."""
    if isinstance(annotation, ast.BinOp):
        return _kind(annotation.left)
    if isinstance(annotation, ast.Subscript) and ast.unparse(annotation.value) == "Literal":
        return str, tuple(ast.literal_eval(annotation.slice))
    return _KINDS.get(ast.unparse(annotation)), ()


def _former(cls: ast.ClassDef) -> dict[str, str]:
    """The former name of each field that ``@fields_renamed(old="new")`` renames."""
    calls = [node for node in cls.decorator_list if isinstance(node, ast.Call)]
    return {ast.literal_eval(word.value): str(word.arg) for call in calls for word in call.keywords if word.arg}


def _arguments(docstring: str) -> dict[str, str]:
    """What the docstring says of each argument, by its name."""
    section = re.search(r"^Args:\n(.*?)(?:\n\n|\Z)", docstring, re.DOTALL | re.MULTILINE)
    found: dict[str, str] = {}
    for entry in re.split(r"\n(?=    \w)", section[1] if section else ""):
        names, _, text = entry.partition(":")
        found |= dict.fromkeys((name.strip() for name in names.split(",")), " ".join(text.split()))
    return found


def _in_a_line(text: str) -> str:
    """The first clause without its markup, as a sentence."""
    plain = re.sub(r"`|\"", "", text.split(";")[0]).rstrip(".")
    return f"{plain[:1].upper()}{plain[1:]}."
