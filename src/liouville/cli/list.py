"""``liouville list``: the names that the other subcommands know, and the runs that there are."""

from __future__ import annotations

__all__ = ["list_command"]

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from liouville.cli.completion import names_of
from liouville.cli.exits import BadInput
from liouville.cli.help import Command
from liouville.names import lookup, spelled

Rows = list[tuple[str, ...]]


@click.command(
    "list",
    cls=Command,
    short_help="Show runs, models, data sets, schemes, presets, engines, activations, experiments.",
    examples=(
        ("liouville list models", "the networks of `liouville train --model NAME`"),
        ("liouville list data", "the data sets and their options"),
        ("liouville list runs", "which runs are finished, and which can go on"),
    ),
)
@click.argument("kind", required=False, **names_of(lambda: [*KINDS, "runs"]))
@click.argument("folder", required=False, type=click.Path())
def list_command(kind: str | None, folder: str | None) -> None:
    """Show the names that `liouville train` and `liouville reproduce` know, or the runs in a folder.

    KIND is models, data, schemes, presets, engines, activations or experiments; without it all of them are shown.
    With `runs` a FOLDER may follow (default: runs): each run in it is finished, interrupted or being trained.
    """
    from liouville.cli.output import table

    if kind is not None and kind.lower() == "runs":
        _runs(Path("runs" if folder is None else folder))
        return
    if folder is not None:
        raise BadInput(f"only runs are in a folder; leave {folder!r} out, or write `liouville list runs {folder}`.")
    chosen = list(KINDS) if kind is None else [spelled(kind, KINDS)]
    for name in chosen:
        columns, rows = lookup(KINDS, name, "kind")
        table(name, columns, rows(), _NOTES.get(name, ""))


def _runs(folder: Path) -> None:
    from liouville.cli.output import say, table
    from liouville.runs.overview import overview

    if not folder.is_dir():
        raise BadInput(f"there is no folder {folder}; give one that holds runs.")
    found = overview(folder)
    if not found:
        say(f"no runs in {folder}")
        return
    rows = [(str(one.path), one.data, one.model, one.state, one.epochs, one.score) for one in found]
    again = [one.command for one in found if one.resumable]
    commands = " or ".join(f"liouville {command} --resume RUN" for command in sorted(set(again), reverse=True))
    note = f"{len(again)} can go on: {commands}" if again else ""
    table("runs", ("run", "data", "model", "state", "epochs", "test"), rows, note)


def _models() -> Rows:
    from liouville.runs.choices import model_options
    from liouville.zoo import MODELS

    own = {name: {f"--{k}": v for k, v in model_options(name).items() if k in ("J", "gamma")} for name in MODELS}
    return [(name, _first_line(model), _options(own[name])) for name, model in MODELS.items()]


def _data() -> Rows:
    from liouville.data import SOURCES

    return [(name, source.description, _options(source.options)) for name, source in SOURCES.items()]


def _schemes() -> Rows:
    from liouville.schemes import SCHEMES, ReversibleScheme

    return [
        (name, f"order {s.order}", "reversible" if issubclass(s, ReversibleScheme) else "no inverse", _first_line(s))
        for name, s in SCHEMES.items()
    ]


def _presets() -> Rows:
    from liouville.runs import PRESETS

    return list(PRESETS.items())


def _engines() -> Rows:
    from liouville.kernels import ENGINES

    return [(name, _first_line(engine)) for name, engine in ENGINES.items()]


def _activations() -> Rows:
    from liouville.activations import ACTIVATIONS

    return [
        (name, f"|sigma'| <= {a.lipschitz:g}", "monotone" if a.monotone else "not monotone")
        for name, a in ACTIVATIONS.items()
    ]


def _experiments() -> Rows:
    from liouville.experiments import EXPERIMENTS, load

    return [(name, load(name).title, load(name).source) for name in EXPERIMENTS]


KINDS: Mapping[str, tuple[tuple[str, ...], Callable[[], Rows]]] = {
    "models": (("model", "one layer", "its own options"), _models),
    "data": (("data set", "what it is", "options (-d NAME=VALUE)"), _data),
    "schemes": (("scheme", "order", "backwards", "what it is"), _schemes),
    "presets": (("preset", "what it is"), _presets),
    "engines": (("engine", "what it does"), _engines),
    "activations": (("activation", "derivative", "guarantees need monotone ones"), _activations),
    "experiments": (("experiment", "what it shows", "from"), _experiments),
}


_NOTES = {
    "models": "P1: Haber & Ruthotto, 1705.03341; P2: Galimberti et al., 2105.13205; P3: 2104.13166; "
    "P4: Chang et al., 1709.03698. Every model takes --activation and --shared.",
    "data": "All but mnist take -d seed=N; mnist takes -d root=FOLDER. "
    "Your own table: --data FILE.csv --target COLUMN.",
}


def _first_line(thing: Any) -> str:
    return (inspect.getdoc(thing) or "").split("\n", 1)[0].replace("``", "`")


def _options(options: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={_value(value)}" for name, value in options.items())


def _value(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) or value is None else str(value)
