"""``liouville check``: the certificate of a trained network, as a table, as JSON and as an exit code."""

from __future__ import annotations

__all__ = ["check", "find_run", "split_of"]

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from liouville.cli import completion
from liouville.cli.completion import names_of
from liouville.cli.exits import BadInput, Broken
from liouville.cli.help import Command
from liouville.cli.options import convert_data_options, data_option, on_device
from liouville.cli.output import say, table

if TYPE_CHECKING:
    from liouville.analysis import Certificate, Claim
    from liouville.runs import Run


@click.command(
    cls=Command,
    short_help="Certify a network; exit 1 if a claim is broken.",
    examples=(
        ("liouville check runs/swiss-roll-h2-1", "what is guaranteed of a run, and what was measured"),
        ("liouville check model.safetensors --data wine", "of a model file, over these inputs"),
        ("liouville check runs/mnist --json > claims.json", "for another program"),
    ),
    failure="a claim is broken",
)
@click.argument("run", type=click.Path())
@click.option(
    "--data",
    metavar="NAME|FILE",
    help="Measure over this data set, or the table of the run.  [default: the run's own with a name; else probes]",
    **names_of(completion.data, files=True),
)
@data_option()
@click.option("--json", "as_json", is_flag=True, help="Print the certificate as JSON.")
@on_device
def check(run: str, data: str | None, data_options: tuple[str, ...], as_json: bool, device: str) -> None:
    """Check the network of RUN, a run folder or a model file, and write certificate.json into the run folder, except
    with other data than the run's.

    Each claim is proved from the weights, with the assumptions of the proof measured on them, and compared with the
    sensitivities of up to 256 training samples. A claim may be broken by the weights, by the file, or by the label that
    the run's config.json puts on them.
    """
    import torch

    torch.set_flush_denormal(True)
    if data_options and data is None:
        raise BadInput("-d belongs to --data; give both, or none for the run's own data.")
    certificate, folder = _certify(run, data, data_options, device)
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


def _certify(name: str, data: str | None, options: tuple[str, ...], device: str) -> tuple[Certificate, Path | None]:
    """The certificate, and the run folder that it belongs to."""
    from liouville.checkpoint import DamagedModelError, load
    from liouville.runs.certifying import damaged, measured, sound
    from liouville.runs.place import device_of

    place = device_of(device)
    run, file = find_run(name)
    folder = run.path if run is not None else None
    if run is not None and data is None:
        return run.certificate(place), folder
    try:
        network = load(file)
    except DamagedModelError as error:
        return damaged(file, str(error)), folder
    return measured(network.to(place), split_of(run, data, options), sound()), folder


def find_run(name: str) -> tuple[Run | None, Path]:
    """The run and its model file; no run for a model file without one."""
    from liouville.runs import Run
    from liouville.runs.run import CONFIG, MODEL

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
    """The data set that was asked for, else the run's own, if it has a name; None where there is neither.

    A table in a file must be the one that the run was trained on.
    """
    from liouville.data import SOURCES, load
    from liouville.data.own import is_file_name
    from liouville.names import lookup, spelled

    data = spelled(data, SOURCES)
    if data is not None and data not in SOURCES and is_file_name(data):
        return _own_table(run, data)
    if data is not None:
        loader = lookup(SOURCES, data, "data set").loader
        return load(data, **convert_data_options(loader, options))
    plan = None if run is None else run.plan
    return plan.load() if plan is not None and plan.data is not None else None


def _own_table(run: Run | None, file: str) -> Any:
    import dataclasses

    plan = None if run is None else run.plan
    if run is None or plan is None or plan.table is None:
        raise BadInput(f"--data {file} is a table, and goes with the folder of a run that was trained on it.")
    table = dataclasses.replace(plan.table, path=str(Path(file).absolute()))
    split = plan.changed(table=table).load()
    if split.facts().fingerprint != run.facts.fingerprint:
        raise BadInput(f"{file} is not the table that {run.path} was trained on: its fingerprint differs.")
    return split


def _once(claims: tuple[Claim, ...]) -> list[Claim]:
    """One claim per reason."""
    return list({claim.note: claim for claim in reversed(claims)}.values())[::-1]


def _write(folder: Path, certificate: Certificate) -> None:
    from liouville.files import atomic
    from liouville.runs.run import CERTIFICATE

    try:
        with atomic(folder / CERTIFICATE) as path:
            path.write_text(certificate.to_json() + "\n", encoding="utf-8")
    except OSError as error:
        click.echo(f"liouville: note: {folder / CERTIFICATE} could not be written ({error.strerror}).", err=True)
