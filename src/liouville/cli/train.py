"""``liouville train``: a data set, a network, a run folder."""

from __future__ import annotations

__all__ = ["train"]

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from liouville.cli import completion, parallel
from liouville.cli.completion import names_of
from liouville.cli.config import written
from liouville.cli.declared import Declared, declared, options
from liouville.cli.exits import BadInput
from liouville.cli.help import Command, section
from liouville.cli.options import INTEGERS
from liouville.cli.output import say
from liouville.cli.own import Words, of_a_table, one_target
from liouville.cli.planning import numbers, of_one_network, plan_of
from liouville.cli.training import Asked, Watch, trained
from liouville.environment import is_first, require_environment, several

if TYPE_CHECKING:
    from liouville.runs import Plan

_data, _network, _training, _machine, _output = (
    section(name) for name in ("Data", "Network", "Training", "Machine", "Output")
)


def _former(field: Declared) -> str | None:
    """The option's name in an earlier version; that of --target-score is the column of a table to predict."""
    return None if field.name == "target_score" else field.former


_learned = options(
    _training,
    [
        *(
            field._replace(former=_former(field))
            for field in declared("train/settings.py", "Settings")
            if field.name != "seed"
        ),
        *(field for field in declared("train/settings.py", "GaussNewton") if field.words),
    ],
    help={"epochs": "Make this many passes over the training part, or iterations of gauss-newton."},
    more={"optimizer": ("gauss-newton",)},
)
_penalised = options(  # the former name of --head-decay is what Gauss-Newton's treatment of the head is called
    _training, [field._replace(former=None) for field in declared("train/regularisers/penalty.py", "Penalty")]
)


_EXAMPLES = (
    ("liouville train", "the Swiss roll, by a 64-layer Hamiltonian network"),
    ("liouville train --data my.csv --target y", "a table of your own, numbers and categories"),
    ("liouville train --data mnist --epochs 3 --out runs/mnist", "images, a few epochs, into a folder of this name"),
    ("liouville train --resume runs/mnist", "go on with a training that was interrupted"),
    ("liouville train --print-config > my.yaml", "every setting in a file, for --config my.yaml"),
)
_COMMON = (
    *("data", "targets", "config", "resume", "model", "layers", "features", "T"),
    *("epochs", "lr", "batch_size", "engine", "device", "seed", "out", "quiet"),
)


@click.command(
    cls=Command,
    short_help="Train a network, evaluate it, write a run folder.",
    examples=_EXAMPLES,
    common=_COMMON,
    failure="the training diverged, or lost a process",
)
@_data(
    "--data",
    metavar="NAME|FILE",
    help="Train on this data set, see `liouville list data`, or on a table of your own: CSV or Parquet.  [default: "
    "swiss-roll]",
    **names_of(completion.data, files=True),
)
@_data(
    "--target",
    "targets",
    multiple=True,
    metavar="COLUMN",
    help="Predict this column of your table: numbers, or text, which stands for classes.",
)
@of_a_table(_data)
@_data(
    "--preset",
    metavar="NAME",
    help="Start from this recipe, see `liouville list presets`.  [default: default]",
    **names_of(completion.presets),
)
@_data("--like", metavar="RUN", type=click.Path(), help="Start from the plan of an earlier run.")
@_data(
    "--config",
    metavar="FILE",
    type=click.Path(),
    help="Start from the settings in a YAML file, or a run's config.json; options given here replace them.",
)
@_data(
    "--resume", metavar="RUN", type=click.Path(), help="Continue an interrupted run, to the bits of an unbroken one."
)
@_network(
    "--model", metavar="NAME", help="Take this network, see `liouville list models`.", **names_of(completion.models)
)
@_network(
    "--scheme",
    metavar="NAME",
    help="Replace the model's scheme, see `liouville list schemes`.",
    **names_of(completion.schemes),
)
@_network("--features", type=INTEGERS, help="Set the width of the state; for images several give several flows.")
@_network("--layers", type=INTEGERS, help="Set the number of layers; one number, or one for each flow.")
@_network("--T", "T", type=float, help="Set the final time of each flow; the step is T / layers.")
@_network("--J", "J", metavar="canonical|full", help="Choose the structure matrix of h1.")
@_network("--gamma", type=float, help="Damp the antisymmetric networks by this.")
@_network(
    "--activation",
    metavar="NAME",
    help="Take this activation, see `liouville list activations`.",
    **names_of(completion.activations),
)
@_network("--lift", metavar="front|ends|p|q|linear", help="Put the data there in the state; vectors only.")
@_network("--init", metavar="smooth|normal", help="Begin with weights that are smooth in depth, or i.i.d. N(0, 1).")
@_network("--shared/--no-shared", default=None, help="Use one weight for all layers.")
@_network("--budget", type=float, help="Rescale K so that no sensitivity dy_N/dy_j has a norm above this.")
@_network("--dropout", type=float, help="Drop this share of every layer's velocity, in [0, 1).")
@_network("--input-dropout", type=float, help="Drop this share of the inputs, in [0, 1).")
@_learned
@_training("--stratified/--no-stratified", default=None, help="Hold out the same share of every class.")
@_training(
    "-g",
    "--solver-option",
    "solver",
    multiple=True,
    metavar="NAME=VALUE",
    help="Set a number of the Gauss-Newton solver.",
)
@_penalised
@_training("--levels", type=int, help="Train so many depths, each twice the last, up to --layers; 1 is off.")
@_machine(
    "--engine",
    metavar="auto|fused|batch-last|stored|checkpointed|reversible",
    help="Choose what the backward pass stores or recomputes.  [default: auto]",
)
@_machine(
    "--dtype",
    metavar="float32|float64|bfloat16",
    help="Compute with these numbers; bfloat16 is autocast.  [default: float32]",
)
@_machine(
    "--device",
    metavar="auto|cpu|cuda|cuda:1",
    help="Train there; auto takes CUDA, if there, where a layer's work is worth it.  [default: auto]",
)
@_machine("--capture", is_flag=True, default=None, help="Record a training step as a CUDA graph, and repeat it.")
@_machine("--threads", type=int, help="Use so many torch threads.  [default: the recipe's, else torch's]")
@_machine("--seed", type=int, help="Seed weights and training; the data have -d seed=N.  [default: 0]")
@_machine(
    "--nproc", type=click.IntRange(1), help="Share every batch among so many processes.  [default: 1, or torchrun's]"
)
@_output("--out", metavar="RUN", help="Write the run into this folder.  [default: runs/DATA-MODEL-K, the next free K]")
@_output(
    "--checkpoint-every",
    type=float,
    default=300.0,
    metavar="SECONDS",
    help="Keep the state of the training so often, and after each level.",
    show_default=True,
)
@_output("--force", is_flag=True, help="Replace the run in --out; start more processes than there are cores.")
@_output("--quiet", is_flag=True, help="Print the run folder and nothing else.")
@_output(
    "--log",
    multiple=True,
    metavar="csv|tensorboard",
    help="Also write every epoch to history.csv, or for TensorBoard, in the run folder.",
)
@_output("--no-figures", is_flag=True, help="Draw no figures.")
@_output("--svg", is_flag=True, help="Draw every figure as SVG, too.")
@_output("--print-config", is_flag=True, help="Print every setting as YAML, for --config, and train nothing.")
@_output("--no-report", is_flag=True, help="Write no report.html.")
@_output("--open", "show", is_flag=True, help="Show the report in a browser at the end.")
def train(
    data: str | None,
    targets: tuple[str, ...],
    ids: tuple[str, ...],
    categories: tuple[str, ...],
    header: str | None,
    data_options: tuple[str, ...],
    preset: str | None,
    like: str | None,
    config: str | None,
    resume: str | None,
    nproc: int | None,
    out: str | None,
    checkpoint_every: float,
    force: bool,
    quiet: bool,
    log: tuple[str, ...],
    no_figures: bool,
    svg: bool,
    print_config: bool,
    no_report: bool,
    show: bool,
    solver: tuple[str, ...],
    **changes: Any,
) -> int:
    """Train a network, evaluate it on held-out data, and write a run folder.

    Without options it trains a 64-layer Hamiltonian network on the Swiss roll. With --data my.csv --target y it trains
    a network for your table; columns of numbers and categories are prepared here, and again by `liouville predict`.

    Other settings come from the data set's recipe (or the preset, or the run named by --like); config.json in the run
    folder records all of them. --config FILE takes settings from a file, each under the name of its option;
    --print-config writes one. Options of the command line come before the file, and the file before the recipe.

    Ctrl-C, SIGTERM and SIGHUP end a training after its step and save its state; --resume RUN continues it.
    """
    require_environment()
    parallel.require_cores(nproc, force)
    parallel.require_gpus(nproc, changes["device"])
    if nproc and nproc > 1 and not several() and not print_config:
        from liouville.processes import launch

        return launch(sys.argv[1:], nproc)
    if show and no_report:
        raise BadInput("--open shows the report that --no-report leaves out; give one of them.")
    watch = Watch()
    import torch  # noqa: F401 (by itself, to know how long it takes)

    from liouville.runs import Run
    from liouville.runs.execute import settled
    from liouville.runs.folder import require_free, tidy
    from liouville.runs.resuming import require_same_plan

    watch.lap("import")
    if resume is not None and (out is not None or {like, preset, config} != {None}):
        raise BadInput("--resume goes on with a run in its own folder; leave --out, --like, --preset and --config out.")
    if like is not None and config is not None:
        raise BadInput("--like and --config both say where to start from; give one of them.")
    before = None if resume is None else of_one_network(Run.open(resume))
    folder = Path(out) if out is not None else None if before is None else before.path
    if folder is not None and before is None and is_first() and not print_config:
        require_free(folder, force)
    words, given = Words(data, one_target(targets), ids, categories, header, data_options), changes | numbers(solver)
    plan = plan_of(words, preset, like if resume is None else resume, config, given)
    if print_config:
        say(written(plan))
        return 0
    _require_one_process(plan)
    if before is not None and before.finished:
        require_same_plan(before, plan)
        if is_first():
            tidy(before.path)
            say(f"{folder} is finished: {before.metrics['stopped']}; nothing is left to train")
        return 0
    with settled(plan) as plan:
        asked = Asked(folder, before, checkpoint_every, force, quiet, log, not no_figures, svg, not no_report, show)
        return trained(plan, asked, watch)


def _require_one_process(plan: Plan) -> None:
    """Refuse before the processes wait for each other."""
    from liouville.train import GaussNewton

    if isinstance(plan.settings, GaussNewton) and several():
        raise BadInput(
            "gauss-newton trains in one process; leave out --nproc and torchrun, or take --optimizer adam, adamw "
            "or sgd."
        )
