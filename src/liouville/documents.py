"""JSON that somebody may have edited: read strictly, compared once with what it has to be, refused in one sentence.

What a document has to be is said by annotations: ``int``, ``float | None``, ``list[str]``, ``tuple[int, ...]``,
``Literal``, ``Mapping[str, X]``, a dataclass (its fields and no others; one with a default may be missing) or a
TypedDict (its keys, others are left aside), each narrowed by ``Annotated[X, rule]`` where the type does not say it all.
"""

from __future__ import annotations

__all__ = [
    "AT_LEAST_ONE",
    "Count",
    "FileName",
    "Name",
    "Numbers",
    "Rule",
    "Size",
    "conform",
    "content",
    "parse",
    "read",
    "read_lines",
]

import dataclasses
import functools
import json
import math
import os
import types
import typing
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, NoReturn

_NOTHING = object()  # what is missing
_LARGEST = 2**63 - 1  # of a whole number
_BYTES = 1 << 28  # of a document
_SPARE, _FACTOR = 3 << 24, 7  # bytes that a document may take in memory, and per byte of its own
_COSTS = {"[": 64, "{": 240, ",": 20, ":": 40, '"': 24}  # bytes that Python takes for what these begin or separate


class Rule(NamedTuple):
    """What a value must be beyond its type: words after "must be", and whether it is."""

    words: str
    holds: Callable[[Any], bool]


def _regular(value: Any, depth: int = 0) -> tuple[int, ...] | None:
    """The shape of nested lists of numbers; None where they are ragged or hold something else."""
    if not isinstance(value, list):
        return () if isinstance(value, int | float) and not isinstance(value, bool) else None
    shapes = {_regular(part, depth + 1) for part in value} if depth < 8 else {None}
    shape = shapes.pop() if len(shapes) == 1 else None
    return None if shape is None else (len(value), *shape)


def _is_file_name(text: str) -> bool:
    return Path(text).name == text and text.isprintable()


Count = Annotated[int, Rule("a whole number of at least 0", lambda n: n >= 0)]
Size = Annotated[int, Rule("a whole number from 1 to 2^31", lambda n: 1 <= n <= 2**31)]
Name = Annotated[str, Rule("text of printable characters", str.isprintable)]
FileName = Annotated[str, Rule("the name of a file in the same folder", _is_file_name)]
AT_LEAST_ONE = Rule("a list that is not empty", bool)
Numbers = Annotated[Any, Rule("a number, or a list of numbers", lambda v: _regular(v) is not None)]


def read(path: str | os.PathLike[str]) -> Any:
    """The JSON value in a file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not JSON as the standard has it, in UTF-8, with every name once in its object.
    """
    return parse(content(path), str(path))


def read_lines(path: str | os.PathLike[str]) -> list[Any]:
    """The JSON values in a file, one a line, refused as in `read`; blank lines are left out."""
    lines = enumerate(content(path).splitlines(), 1)
    return [parse(line, f"line {k} of {path}") for k, line in lines if line.strip()]


def parse(document: bytes | str, name: str) -> Any:
    """The JSON value in a text; ``name`` is what an error calls it.

    Examples:
        >>> parse('{"a": NaN}', "config.json")
        Traceback (most recent call last):
            ...
        ValueError: config.json is damaged: it is not JSON (NaN is no number of JSON).
    """
    try:
        text = document if isinstance(document, str) else document.decode("utf-8-sig")
        _require_light(text)
        return json.loads(
            text, object_pairs_hook=_object, parse_constant=_refuse, parse_float=_finite, parse_int=_whole
        )
    except RecursionError:
        raise ValueError(f"{name} is damaged: its lists or objects are nested too deeply.") from None
    except ValueError as error:
        raise ValueError(f"{name} is damaged: it is not JSON ({error}).") from error


def conform(value: Any, kind: Any, name: str = "", file: object = None) -> None:
    """Raise where ``value``, which `parse` gave, is not what the annotation ``kind`` says.

    Args:
        value: of JSON.
        kind: an annotation.
        name: what an error calls the value; the parts of a whole document have names of their own.
        file: what an error calls the document.

    Raises:
        ValueError: "NAME must be ..., got ..."; NAME leads to the part that does not fit.

    Examples:
        >>> conform({"layers": [2, True]}, dict[str, list[int]], "plan")
        Traceback (most recent call last):
            ...
        ValueError: plan.layers[1] must be a whole number, got true.
    """
    problem = _problem(value, kind, name)
    if problem is not None:
        where, words, got = problem
        damaged = f"{file} is damaged: " if file is not None else ""
        raise ValueError(
            f"{damaged}{where.removeprefix('.') or 'it'} must be {words or 'left out'}, got {_shown(got)}."
        )


Problem = tuple[str, str, Any] | None  # where, what it must be, what it is


def _problem(value: Any, kind: Any, where: str) -> Problem:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        return _annotated(value, kind, where)
    if origin is Literal:
        return None if value in arguments and type(value) in map(type, arguments) else (where, _words(kind), value)
    if origin in (typing.Union, types.UnionType):
        return _either(value, arguments, where)
    if origin in (list, tuple, Sequence):
        return _list(value, kind, arguments, where)
    if origin in (dict, Mapping):
        return _mapping(value, arguments, where)
    if typing.is_typeddict(kind) or dataclasses.is_dataclass(kind):
        return _object_of(value, kind, where)
    if kind is Any:
        return None
    fits = _PLAIN[kind][0](value) if kind in _PLAIN else isinstance(value, origin or kind)
    return None if fits else (where, _words(kind), value)


def _annotated(value: Any, kind: Any, where: str) -> Problem:
    inner, *rules = typing.get_args(kind)
    found = _problem(value, inner, where)
    if found is not None:
        return found if found[0] != where else (where, _words(kind), value)
    for rule in rules:
        if isinstance(rule, Rule) and not rule.holds(value):
            return where, rule.words, value
    return None


def _either(value: Any, kinds: Sequence[Any], where: str) -> Problem:
    found = [_problem(value, kind, where) for kind in kinds]
    if None in found:
        return None
    inside = next((f for f in found if f is not None and f[0] != where), None)  # the right kind, wrong within
    return inside or (where, _any_of(kinds), value)


def _list(value: Any, kind: Any, arguments: tuple[Any, ...], where: str) -> Problem:
    if not isinstance(value, list | tuple):
        return where, _words(kind), value
    open_ended = len(arguments) < 2 or arguments[-1] is ...
    kinds = [arguments[0]] * len(value) if open_ended else arguments
    if len(kinds) != len(value):
        return where, _words(kind), value
    found = (_problem(part, k, f"{where}[{i}]") for i, (part, k) in enumerate(zip(value, kinds, strict=True)))
    return next((f for f in found if f is not None), None)


def _mapping(value: Any, arguments: tuple[Any, ...], where: str) -> Problem:
    if not isinstance(value, Mapping):
        return where, "an object", value
    found = (_problem(part, arguments[-1], f"{where}.{key}") for key, part in value.items())
    return next((f for f in found if f is not None), None)


def _object_of(value: Any, kind: Any, where: str) -> Problem:
    if not isinstance(value, Mapping):
        return where, "an object", value
    hints, needed = _fields(kind)
    missing = [name for name in needed if name not in value]
    if missing:
        return f"{where}.{missing[0]}", _words(hints[missing[0]]), _NOTHING
    unknown = [] if typing.is_typeddict(kind) else [name for name in value if name not in hints]
    if unknown:
        known = f"; known are {', '.join(hints)}" if hints else ""
        return f"{where}.{unknown[0]}", f"left out{known}", value[unknown[0]]
    found = (_problem(value[name], hint, f"{where}.{name}") for name, hint in hints.items() if name in value)
    return next((f for f in found if f is not None), None)


@functools.cache
def _fields(kind: Any) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The annotations by name, and the names that must be there."""
    hints = typing.get_type_hints(kind, include_extras=True)
    if typing.is_typeddict(kind):
        optional = {name for name, hint in hints.items() if typing.get_origin(hint) is typing.NotRequired}
        bare = {name: typing.get_args(hint)[0] if name in optional else hint for name, hint in hints.items()}
        return bare, tuple(name for name in hints if name not in optional)
    taken = [f for f in dataclasses.fields(kind) if f.init]
    required = tuple(f.name for f in taken if f.default is f.default_factory is dataclasses.MISSING)
    return {f.name: hints[f.name] for f in taken}, required


_PLAIN: dict[Any, tuple[Callable[[Any], bool], str]] = {
    bool: (lambda v: isinstance(v, bool), "true or false"),
    int: (lambda v: isinstance(v, int) and not isinstance(v, bool), "a whole number"),
    float: (lambda v: isinstance(v, int | float) and not isinstance(v, bool), "a number"),
    str: (lambda v: isinstance(v, str), "text"),
    None: (lambda v: v is None, "null"),
    types.NoneType: (lambda v: v is None, "null"),
}


def _any_of(kinds: Sequence[Any]) -> str:
    return " or ".join(dict.fromkeys(words for words in map(_words, kinds) if words))


def _words(kind: Any) -> str:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        return next((rule.words for rule in arguments[1:] if isinstance(rule, Rule)), _words(arguments[0]))
    if origin in (typing.Union, types.UnionType):
        return _any_of(arguments)
    if origin is Literal:
        return " or ".join(json.dumps(a) for a in arguments)
    if origin in (list, tuple, Sequence):
        return f"a list of {len(arguments)}" if len(arguments) > 1 and arguments[-1] is not ... else "a list"
    if kind in _PLAIN:
        return _PLAIN[kind][1]
    known = origin or dataclasses.is_dataclass(kind) or typing.is_typeddict(kind)
    return "an object" if known else ""  # a class that JSON has no word for


def _shown(value: Any) -> str:
    """The value in a few words of JSON."""
    if value is _NOTHING:
        return "nothing"
    if isinstance(value, dict):
        return f"an object of {', '.join(list(value)[:4])}{' ...' * (len(value) > 4)}" if value else "{}"
    if isinstance(value, list) and (len(value) > 4 or not _regular(value)):
        return f"a list of {len(value)}"
    text = json.dumps(value, default=repr)
    return text if len(text) <= 60 else f"{text[:56]} ..."


def content(path: str | os.PathLike[str]) -> bytes:
    """The bytes of a file that holds JSON.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no file, or larger than any document of ours.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is damaged: it is not a file.")
    if path.exists() and path.stat().st_size > _BYTES:
        raise ValueError(f"{path} is damaged: it is larger than {_BYTES >> 20} MiB.")
    return path.read_bytes()


def _require_light(text: str) -> None:
    """A file of brackets takes twenty times its size in memory; documents that say something, a few times theirs."""
    if sum(cost * text.count(mark) for mark, cost in _COSTS.items()) > _SPARE + _FACTOR * len(text):
        raise ValueError("it has too many parts for its size")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        twice = next(name for name, times in Counter(name for name, _ in pairs).items() if times > 1)
        raise ValueError(f"the name {twice!r} stands twice in one object")
    return value


def _refuse(word: str) -> NoReturn:
    raise ValueError(f"{word} is no number of JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text} is too large")
    return value


def _whole(text: str) -> int:
    if len(text) > 20 or abs(int(text)) > _LARGEST:
        raise ValueError(f"the number {text[:20]}{'...' * (len(text) > 20)} is too large")
    return int(text)
