"""What the words of the command line mean: lists of numbers, NAME=VALUE pairs, and help in sections."""

from __future__ import annotations

__all__ = ["INTEGERS", "SectionedCommand", "convert_data_options", "section"]

import inspect
import types
import typing
from collections.abc import Callable, Iterable
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
    section = "Options"


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
    for pair in pairs:
        name, equals, text = pair.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or not name:
            raise BadInput(f"-d expects NAME=VALUE, got {pair!r}; for example -d points=2000.")
        if name == "dtype":
            raise BadInput("the floating-point type is chosen with --dtype, not with -d dtype.")
        values[name] = _convert(name, text.strip(), hints[name]) if name in known else text
    return values


def _convert(name: str, text: str, hint: Any) -> Any:
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if type(None) in kinds and text.lower() == "none":
        return None
    kind = next((k for k in (bool, int, float) if k in kinds), str)
    if kind is bool:
        if text.lower() not in _YES_NO:
            raise BadInput(f"the data option {name} expects true or false, got {text!r}.")
        return _YES_NO[text.lower()]
    try:
        return kind(text)
    except ValueError:
        what = "a whole number" if kind is int else "a number"
        raise BadInput(f"the data option {name} expects {what}, got {text!r}.") from None
