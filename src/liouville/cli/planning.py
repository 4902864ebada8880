"""The plan that the words of ``liouville train`` ask for: what the command line says, then a file, then the recipe."""

from __future__ import annotations

__all__ = ["numbers", "of_one_network", "plan_of"]

import typing
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from liouville.cli import config as files
from liouville.cli.exits import BadInput
from liouville.cli.options import convert_data_options, convert_numbers
from liouville.cli.own import HOW, Words, table_of

if TYPE_CHECKING:
    from liouville.data import TableFile
    from liouville.runs import Plan, Run


def plan_of(words: Words, preset: str | None, like: str | None, config: str | None, changes: dict[str, Any]) -> Plan:
    """The plan.

    Args:
        words: what was typed of the data.
        preset, like, config: what to start from: a recipe, a run, a file.
        changes: the other options by their names; None where one was not typed.

    Raises:
        BadInput, ValueError: what was typed, or stands in the file, does not fit.
    """
    from liouville.data import SOURCES
    from liouville.data.own import is_file_name
    from liouville.names import lookup, spelled
    from liouville.runs import PRESETS, Plan, Run
    from liouville.runs.written import overlaid

    settings = {} if config is None else _as_spelled(files.read(config))
    words, start, before = _start(words, settings, config)
    data, preset = spelled(words.data, SOURCES), spelled(preset if preset is not None else start, PRESETS)
    if like is not None and preset is not None:
        raise BadInput("--like and --preset both say where to start from; give one of them.")
    old = of_one_network(Run.open(like)).plan if like is not None else None
    if data is not None and data not in SOURCES and not is_file_name(data):
        _unknown(data)
    table = table_of(words, before if old is None else old.table, data in SOURCES)
    if table is not None:
        base = old or Plan.of(table, _given(preset, "default"))
        return overlaid(base.changed(table=table), settings, config).changed(**_as_spelled(changes))
    base = old or Plan.of(_given(data, "swiss-roll"), _given(preset, "default"))
    name = base.data if data is None else data
    if name is None:
        raise BadInput(
            f"{like} was trained on data of one's own, which no name loads: give --data, or in Python "
            "runs.train(runs.Run.open(...).plan, split)."
        )
    base = overlaid(base.changed(data=name), settings, config)
    options = convert_data_options(lookup(SOURCES, name, "data set").loader, words.options)
    return base.changed(data_options=options, **_as_spelled(changes))


def of_one_network(run: Run) -> Run:
    """A run of `liouville train`.

    Raises:
        BadInput: it is one of agents.
    """
    if run.command == "agents":
        raise BadInput(
            f"{run.path} is a run of agents, with a graph: `liouville agents --resume {run.path}` goes on with it."
        )
    return run


def _start(words: Words, settings: dict[str, Any], file: str | None) -> tuple[Words, str | None, TableFile | None]:
    """What is said of the data, at the command line or else in the file; the recipe and the table of the file.

    It is taken out of ``settings``, except the options of a data set with a name.
    """
    from liouville.data import SOURCES, TableFile
    from liouville.documents import conform
    from liouville.names import spelled

    lists = str | list[str]
    kinds: dict[str, Any] = {
        "data": str | None,
        "table": TableFile | None,
        "target": str,
        "ids": lists,
        "categories": lists,
    }
    kinds |= {"header": Literal["auto", "yes", "no"], "preset": str, "data_options": dict[str, Any]}
    said = {name: settings[name] for name in kinds if name in settings}
    for name, value in said.items():
        conform(value, kinds[name], f"{file}: {name}")
        if name != "data_options":
            del settings[name]
    data, table = said.get("data"), said.get("table")
    if words.data is None and "data" in said and data is None and table is None:
        raise BadInput(f"{file} is of a run on data of one's own, which no name loads: give --data.")
    taken = spelled(data if words.data is None else words.data, SOURCES)
    if taken != spelled(data, SOURCES) or taken not in SOURCES:
        settings.pop("data_options", None)
    if words.data is not None and taken in SOURCES:
        return words, said.get("preset"), None
    options = said.get("data_options", {}) if words.data is None and taken not in (*SOURCES, None) else {}
    typed = words._replace(
        data=taken,
        target=words.target or said.get("target"),
        ids=words.ids or _several(said.get("ids")),
        categories=words.categories or _several(said.get("categories")),
        header=words.header or said.get("header"),
        options=(*(f"{name}={value}" for name, value in options.items()), *words.options),
    )
    return typed, said.get("preset"), None if table is None else TableFile.from_dict(table)


def _several(value: str | list[str] | None) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value or ())


def numbers(pairs: tuple[str, ...]) -> dict[str, Any]:
    """The numbers of Gauss-Newton's solver."""
    from liouville.train.settings import SOLVER, GaussNewton

    return convert_numbers(GaussNewton, SOLVER, pairs)


def _unknown(name: str) -> NoReturn:
    from liouville.data import SOURCES
    from liouville.names import lookup

    try:
        lookup(SOURCES, name, "data set")
    except ValueError as error:
        raise BadInput(f"{error} {HOW}") from None
    raise AssertionError(name)


def _given(word: str | None, default: str) -> str:
    """What was typed; an empty word, of a variable that is not set, is no default."""
    return default if word is None else word


def _as_spelled(changes: dict[str, Any]) -> dict[str, Any]:
    """Names as the library writes them: ``--model H2`` is h2."""
    from liouville.activations import ACTIVATIONS
    from liouville.kernels import ENGINES
    from liouville.names import spelled
    from liouville.runs.choices import DEVICES, DTYPES, INITS, LIFTS
    from liouville.schemes import FORMER_NAMES, SCHEMES
    from liouville.train import GaussNewton, Penalty, Settings
    from liouville.zoo import MODELS

    known: dict[str, Iterable[str]] = {"model": MODELS, "scheme": (*SCHEMES, *FORMER_NAMES), "activation": ACTIVATIONS}
    known |= {"lift": LIFTS, "init": INITS, "engine": ENGINES, "dtype": DTYPES, "device": DEVICES}
    known |= {"J": ("canonical", "full")}
    for record in (Settings, Penalty, GaussNewton):
        hints = typing.get_type_hints(record)
        known |= {name: typing.get_args(hint) for name, hint in hints.items() if typing.get_origin(hint) is Literal}
    known["optimizer"] = (*known["optimizer"], GaussNewton.optimizer)
    return {name: spelled(value, known.get(name, ())) for name, value in changes.items()}
