"""What the words of the command line mean: lists of numbers, NAME=VALUE pairs, and help in sections."""

from __future__ import annotations

__all__ = ["INTEGERS", "SectionedCommand", "convert_data_options", "convert_numbers", "on_device", "section"]

import copy
import inspect
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import click

from liouville.cli.exits import BadInput

_YES_NO = {"true": True, "yes": True, "1": True, "on": True, "false": False, "no": False, "0": False, "off": False}


class _Integers(click.ParamType):
    """``8`` or ``16,32``."""

    name = "N[,N...]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, int | tuple):
            return value
        try:
            numbers = tuple(int(word) for word in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is not a whole number, nor several with commas between.", param, ctx)
        return numbers[0] if len(numbers) == 1 else numbers


INTEGERS = _Integers()


class _Option(click.Option):
    """An option of one section; ``former`` is a name of an earlier version, which works and is not shown."""

    section = "Options"

    def __init__(self, declarations: Sequence[str], *, former: str | None = None, **attributes: Any) -> None:
        super().__init__([*declarations, former] if former else declarations, **attributes)
        self.former = former

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        shown = copy.copy(self)
        shown.opts = [name for name in self.opts if name != self.former]
        return super(_Option, shown).get_help_record(ctx)


class SectionedCommand(click.Command):
    """A command whose help shows the options in sections."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                sections.setdefault(getattr(parameter, "section", "Other"), []).append(record)
        for name, records in sections.items():
            with formatter.section(name):
                formatter.write_dl(records)


def on_device(command: Any) -> Any:
    """The command with ``--device``: where it runs a trained network."""
    help = "Compute there; a network's file says nothing of where it was trained."
    return click.option("--device", metavar="cpu|cuda|cuda:1", default="cpu", show_default=True, help=help)(command)


def section(name: str) -> Callable[..., Callable[[Any], Any]]:
    """``click.option`` for one section of the help."""
    kind = type("_SectionOption", (_Option,), {"section": name})

    def option(*declarations: str, **attributes: Any) -> Callable[[Any], Any]:
        return click.option(*declarations, cls=kind, **attributes)

    return option


def convert_data_options(loader: Callable[..., Any], pairs: Iterable[str]) -> dict[str, Any]:
    """``("points=200", "noise=0.1")`` -> values of the types that ``loader`` declares.

    Unknown names pass as they are: `liouville.data.load` answers them with the nearest right one.

    Raises:
        BadInput: a word without ``=``, or a value of another type.
    """
    hints = typing.get_type_hints(loader)
    known = inspect.signature(loader).parameters
    values = {}
    for name, text in _pairs(pairs, "-d points=2000"):
        if name == "dtype":
            raise BadInput("the floating-point type is chosen with --dtype, not with -d dtype.")
        values[name] = _convert(f"the data option {name}", text.strip(), hints[name]) if name in known else text
    return values


def convert_numbers(settings: type, names: Sequence[str], pairs: Iterable[str]) -> dict[str, Any]:
    """``("products=40", "rtol=1e-4")`` -> values of the types that the record ``settings`` declares.

    Raises:
        BadInput: a word without ``=``, a value of another type, or a name that is not among ``names``.
    """
    hints = typing.get_type_hints(settings)
    found = {}
    for name, text in _pairs(pairs, "-g products=40"):
        if name not in names:
            raise BadInput(f"gauss-newton has no number {name!r}; -g takes {', '.join(names)}.")
        found[name] = _convert(f"the gauss-newton option {name}", text.strip(), hints[name])
    return found


def _pairs(pairs: Iterable[str], example: str) -> Iterator[tuple[str, str]]:
    for pair in pairs:
        name, equals, text = pair.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or not name:
            raise BadInput(f"{example.split()[0]} expects NAME=VALUE, got {pair!r}; for example {example}.")
        yield name, text


def _convert(what: str, text: str, hint: Any) -> Any:
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if type(None) in kinds and text.lower() == "none":
        return None
    kind = next((k for k in (bool, int, float) if k in kinds), str)
    if kind is bool:
        if text.lower() not in _YES_NO:
            raise BadInput(f"{what} expects true or false, got {text!r}.")
        return _YES_NO[text.lower()]
    try:
        return kind(text)
    except ValueError:
        number = "a whole number" if kind is int else "a number"
        raise BadInput(f"{what} expects {number}, got {text!r}.") from None
