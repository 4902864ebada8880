"""The record of a run, which is what its report shows: its words, its network, its data, its certificate."""

from __future__ import annotations

__all__ = ["record_of"]

from collections.abc import Iterator
from typing import TYPE_CHECKING

from liouville.checkpoint import DamagedModelError
from liouville.data import Split
from liouville.facts import Facts
from liouville.network import Network
from liouville.report.page import Record
from liouville.runs.certifying import drawn
from liouville.runs.plan import Plan
from liouville.runs.summary import flow_in_words, training_in_words
from liouville.task import in_words

if TYPE_CHECKING:
    from liouville.runs.run import Run

_CERTIFIED = 64  # training samples that the certificate is measured over, to be ready in seconds


def record_of(run: Run, split: Split | None = None) -> Record:
    """What a report shows of a run.

    Args:
        run: in its folder or in memory, finished or not.
        split: its data; those in memory, or those that the plan makes without reading a file, if None.
    """
    plan, network, why, damaged = _plan(run), None, "", False
    try:
        network = run.network()
    except (FileNotFoundError, ValueError) as error:
        why, damaged = str(error), isinstance(error, DamagedModelError)
    if split is None:
        split = run.trained.split if run.trained is not None else None if plan is None else drawn(plan)
    facts = (network.facts if network is not None else None) or run.facts
    if split is not None and tuple(split.x_test.shape[1:]) != facts.shape:
        shape = tuple(split.x_test.shape[1:])
        raise ValueError(f"the network is for samples of shape {facts.shape}, the data have {shape}.")
    certificate = None
    if plan is not None and (network is not None or damaged):
        certificate = run.certificate(split=split, samples=_CERTIFIED)
    name = facts.name if run.path is None else run.path.name
    return Record(
        name=name,
        facts=facts,
        what=dict(_what(run, plan, facts, network, why)),
        history=run.history(),
        metrics=run.metrics,
        use=_use(run),
        command="" if run.path is None else f"liouville predict {run.path} {_input(facts)}",
        network=network,
        split=split,
        certificate=certificate,
        without_data="the data were not read; `liouville report RUN --data ...` names them.",
    )


def _plan(run: Run) -> Plan | None:
    """The plan; None where it is of a version that knew what this one does not."""
    try:
        asked = run.asked
    except ValueError:
        return None
    return asked if isinstance(asked, Plan) else asked.plan  # of agents


def _what(run: Run, plan: Plan | None, facts: Facts, network: Network | None, why: str) -> Iterator[tuple[str, str]]:
    shape = " × ".join(map(str, facts.shape))
    task = f"{in_words(facts.classes)} classes" if facts.classes else f"{facts.outputs} real target(s)"
    counts = f"{facts.train_samples:,} training and {facts.test_samples:,} test samples"
    yield "Data", f"{facts.name}: {counts}; inputs {shape}, {task}"
    if network is not None:
        parameters = sum(p.numel() for p in network.parameters())
        words = "; then ".join(map(flow_in_words, network.flows()))
        yield "Network", f"{'' if plan is None else f'{plan.model}: '}{words}; {parameters:,} parameters"
    elif why:
        yield "Network", why
    if plan is not None:
        levels = f"{plan.levels} levels, each at most " if plan.levels > 1 else ""
        yield "Training", levels + training_in_words(plan.settings)
    if stopped := run.metrics.get("stopped"):
        yield "Ended", str(stopped)
    if seconds := run.metrics.get("seconds"):
        yield "Time", f"{seconds:.1f} s for {run.metrics.get('epochs', len(run.history()))} epochs"
    if plan is not None:
        device, threads = run.config.get("device", plan.device), run.config.get("threads", plan.threads)
        yield "Machine", f"{plan.dtype} on {device}, {threads} threads, engine {plan.engine}, seed {plan.seed}"
    versions = run.config.get("versions")
    if isinstance(versions, dict):
        yield "Versions", ", ".join(f"{name} {value}" for name, value in versions.items())


def _use(run: Run) -> str:
    file = "model.safetensors" if run.path is None else str(run.path / "model.safetensors")
    answers = "answers = network.predict(raw)  # raw: one row for each sample"
    return f"import liouville as lv\nnetwork = lv.load({file!r})\n{answers}"


def _input(facts: Facts) -> str:
    return "IMAGES.gz" if len(facts.shape) == 3 else "POINTS.csv" if facts.preprocessing is None else "ROWS.csv"
