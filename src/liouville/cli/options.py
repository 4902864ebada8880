"""What the words of the command line mean: lists of numbers, and NAME=VALUE pairs."""

from __future__ import annotations

__all__ = ["INTEGERS", "convert_data_options", "convert_numbers", "data_option", "on_device"]

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


def data_option(option: Callable[..., Callable[[Any], Any]] = click.option) -> Callable[[Any], Any]:
    """A decorator that gives a command ``-d NAME=VALUE``, declared by ``option``."""
    help = "Set an option of the data set."
    return option("-d", "--data-option", "data_options", multiple=True, metavar="NAME=VALUE", help=help)


def on_device(command: Any) -> Any:
    """The command with ``--device``: where it runs a trained network."""
    help = "Compute there; a network's file says nothing of where it was trained."
    return click.option("--device", metavar="cpu|cuda|cuda:1", default="cpu", show_default=True, help=help)(command)


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
