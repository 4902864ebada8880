"""``liouville check``: the certificate of a trained network, as a table, as JSON and as an exit code."""

from __future__ import annotations

__all__ = ["check", "find_run", "samples_of", "split_of"]

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from liouville.cli.errors import BadInput, Broken
from liouville.cli.options import convert_data_options
from liouville.cli.output import say, table

if TYPE_CHECKING:
    from torch import Tensor

    from liouville.analysis import Certificate, Claim
    from liouville.network import Network
    from liouville.runs import Run

_SAMPLES = 256


@click.command(short_help="What is guaranteed of a network, and what was measured; exit 1 if it is broken.")
@click.argument("run")
@click.option(
    "--data", metavar="NAME", help="Measure over this data set.  [default: the run's own; probes without one]"
)
@click.option(
    "-d", "--data-option", "data_options", multiple=True, metavar="NAME=VALUE", help="Option of the data set."
)
@click.option("--json", "as_json", is_flag=True, help="Print the certificate as JSON.")
def check(run: str, data: str | None, data_options: tuple[str, ...], as_json: bool) -> None:
    """Check the network of RUN, a run folder or a model file, and write certificate.json into the run folder, unless
    it is measured over other data than the run's.

    Each claim is proved from the weights, with the assumptions of the proof measured on them, and compared with the
    sensitivities of up to 256 training samples. Exit codes: 0 no claim is broken; 1 a claim is broken, by the weights,
    by the file, or by the label that the run's config.json puts on them; 2 there is nothing to check.
    """
    import torch

    torch.set_flush_denormal(True)
    if data_options and data is None:
        raise BadInput("-d belongs to --data; give both, or none for the run's own data.")
    certificate, folder = _certify(run, data, data_options)
    if folder is not None and data is None:  # over other data it is not the run's
        _write(folder, certificate)
    if as_json:
        say(certificate.to_json())
    else:
        columns = ("claim", "status", "guaranteed", "measured", "route or reason")
        note = "a claim without a proof is not applicable, not broken"
        table(certificate.subject, columns, certificate.rows(), note, heads=True)
    if not certificate.holds:
        reasons = "; ".join(f"{claim.name}: {claim.note}" for claim in _once(certificate.broken))
        raise Broken(f"{run} is not what it claims to be. {reasons}.")


def _certify(name: str, data: str | None, options: tuple[str, ...]) -> tuple[Certificate, Path | None]:
    """The certificate, and the run folder that it belongs to."""
    from liouville.analysis import Certificate, certify
    from liouville.checkpoint import DamagedModelError, load

    run, file = find_run(name)
    folder = run.path if run is not None else None
    try:
        network = load(file)
    except DamagedModelError as error:
        return Certificate(str(file), (_file(str(error)),)), folder
    split = split_of(run, data, options)
    x = None if split is None else samples_of(network, split)
    certificate = certify(network, x)
    labels = [] if run is None or data is not None else [_label(run, network, split)]
    over = "probes" if x is None else f"at most {len(x)} training samples of {split.name}"
    subject = f"{certificate.subject}; measured over {over}"
    return replace(certificate, subject=subject, claims=(_file(), *labels, *certificate.claims)), folder


def find_run(name: str) -> tuple[Run | None, Path]:
    """The run and its model file; no run where a model file lies alone."""
    from liouville.runs import CONFIG, MODEL, Run

    path = Path(name)
    if not path.exists():
        raise FileNotFoundError(f"there is no run folder or model file {name}.")
    folder = path if path.is_dir() else path.parent
    if not path.is_dir() and not (path.name == MODEL and (folder / CONFIG).is_file()):
        return None, path
    run = Run.open(folder)
    if not (folder / MODEL).is_file():
        raise FileNotFoundError(f"{folder} has no {MODEL}: its training did not come to an end; train again.")
    return run, folder / MODEL


def split_of(run: Run | None, data: str | None, options: tuple[str, ...]) -> Any:
    """The data set that was asked for, else the run's own; None where there is neither."""
    from liouville.data import SOURCES, load
    from liouville.names import lookup, spelled

    data = spelled(data, SOURCES)
    if data is not None:
        loader = lookup(SOURCES, data, "data set").loader
        return load(data, **convert_data_options(loader, options))
    return None if run is None else run.plan.load()


def samples_of(network: Any, split: Any) -> Tensor:
    """Training inputs, as many as are measured at most, that the network accepts."""
    import torch

    from liouville.flow import Flow

    if isinstance(network, Flow):
        raise BadInput("a file with a flow alone is measured at probes; leave --data out.")
    x = split.x_train[:_SAMPLES].to(next(network.parameters()))
    try:
        with torch.no_grad():
            network(x[:1])
    except (RuntimeError, ValueError) as error:
        raise BadInput(f"the network does not accept the inputs of {split.name}: {error}") from error
    return x


def _file(damage: str = "") -> Claim:
    from liouville.analysis import Claim

    text = "the weights and the description are those that were written: their SHA-256 hash matches"
    note = damage.rstrip(".") or "the hash finds accidents, not forgers: who can write the file can write its hash"
    return Claim("file", text, "broken" if damage else "pass", "measured", note=note)


def _label(run: Run, network: Network, split: Any) -> Claim:
    """Whether the file holds the network that the run's plan describes."""
    from liouville.analysis import Claim
    from liouville.checkpoint import describe
    from liouville.runs import CONFIG, describe_data

    text = f"the network is the one that {CONFIG} describes, and the data are those of its plan"
    found, plan = json.loads(json.dumps(describe(network, {}))), run.plan
    differences = []
    for levels in range(1, plan.levels + 1):  # a training that ended early may have left any of its depths
        planned = json.loads(json.dumps(describe(plan.changed(levels=levels).network(split).cpu(), {})))
        differences.append(next(_differences(planned, found, "network"), ""))
    difference = "" if "" in differences else differences[0]
    data, written = json.loads(json.dumps(describe_data(split))), run.config["data"]
    wrong = [name for name, value in data.items() if name in written and not _same(written[name], value)]
    if wrong and not difference:
        difference = f"data.{wrong[0]} in {CONFIG} is not that of the plan's data set"
    return Claim("label", text, "broken" if difference else "pass", "measured", note=difference)


def _differences(planned: Any, found: Any, where: str) -> Iterator[str]:
    """What differs between two descriptions, part by part; how the depth is run is nobody's claim."""
    if isinstance(planned, dict) and isinstance(found, dict) and planned.get("type") == found.get("type"):
        for key in sorted({*planned, *found} - {"backprop"}):
            yield from _differences(planned.get(key), found.get(key), f"{where}.{key}")
    elif isinstance(planned, list) and isinstance(found, list) and len(planned) == len(found):
        for i, (a, b) in enumerate(zip(planned, found, strict=True)):
            yield from _differences(a, b, f"{where}[{i}]")
    elif planned != found:
        yield f"{where} is {_short(found)} in the model file, {_short(planned)} in config.json"


def _same(a: Any, b: Any) -> bool:
    """Equal; numbers that another machine computed may differ by rounding."""
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, float) and isinstance(b, float):
        return math.isclose(a, b, rel_tol=1e-4, abs_tol=1e-6)
    return bool(a == b)


def _short(value: Any) -> str:
    return str(value["type"]) if isinstance(value, dict) and "type" in value else repr(value)


def _once(claims: tuple[Claim, ...]) -> list[Claim]:
    """One claim per reason."""
    return list({claim.note: claim for claim in reversed(claims)}.values())[::-1]


def _write(folder: Path, certificate: Certificate) -> None:
    from liouville.files import atomic
    from liouville.runs import CERTIFICATE

    try:
        with atomic(folder / CERTIFICATE) as path:
            path.write_text(certificate.to_json() + "\n", encoding="utf-8")
    except OSError as error:
        click.echo(f"liouville: note: {folder / CERTIFICATE} could not be written ({error.strerror}).", err=True)
