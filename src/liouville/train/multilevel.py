r"""`multilevel`: train a shallow network, double its layers, carry on; what costs most is done where it is cheapest.

N and 2N layers with every weight twice discretise the same ordinary differential equation, so a trained coarse network
is an initial guess for the fine one that is wrong by O(h^order) only. Haber & Ruthotto (1705.03341) call it multilevel
learning; here a level ends when it has nothing more to give, and the optimiser carries on where it was.
"""

from __future__ import annotations

__all__ = ["Level", "MultilevelHistory", "multilevel"]

import functools
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace

import torch
from torch import Tensor, nn

from liouville.analysis import margin
from liouville.data import Split
from liouville.flow import flows_of
from liouville.processes.sharing import Processes
from liouville.train.checkpoints import Checkpoint, Keeper, State, belongings
from liouville.train.gaussnewton import Iteration, gauss_newton
from liouville.train.history import Epoch, History
from liouville.train.loop import fit
from liouville.train.optimizers import optimizer_of
from liouville.train.progress import Progress, silent
from liouville.train.refine import refine
from liouville.train.settings import GaussNewton, Settings
from liouville.train.trainable import Task, require_split, task_of

_PATIENCE = 10  # epochs that a level other than the last waits for a better validation loss, unless settings say so
_NO_LIMIT = 2.0  # the margin up to which a scheme is trained that states no limit, or 0 as forward Euler: a choice


@dataclass(frozen=True)
class Level:
    """One depth: validation figures right after the doubling that led to it, and right before the next one.

    Args:
        layers: of each flow.
        start: ``loss`` and score (``accuracy`` or ``r2``) of the weights it began with.
        end: of the weights that it hands on.
        epochs, work, seconds: what it took; ``work`` in layer evaluations, as for `Epoch`.
        stopped: why it ended.
    """

    layers: tuple[int, ...]
    start: dict[str, float]
    end: dict[str, float]
    epochs: int
    work: int
    seconds: float
    stopped: str


@dataclass
class MultilevelHistory(History):
    """The epochs of all levels, counted through; ``levels`` tells them apart, and so does every epoch's ``layers``.

    Args:
        levels: those that were finished, the coarsest first.
        skipped: depths that were too coarse to begin with, each with its margin.
    """

    levels: list[Level] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


def multilevel(
    network: nn.Module,
    split: Split,
    settings: Settings | GaussNewton | None = None,
    *,
    levels: int = 3,
    how: str = "constant",
    validation: tuple[Tensor, Tensor] | None = None,
    progress: Progress = silent,
    on_epoch: Callable[[History], None] | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    processes: Processes = Processes(),
    checkpoint: Checkpoint | None = None,
) -> MultilevelHistory:
    """Train ``network`` at its depth N, double, carry on, up to 2^(levels - 1) N layers; in place.

    A level ends where the validation score reaches ``settings.target_score``, or the validation loss has not improved
    for ``settings.patience`` epochs (10 if None, but the last level then runs all its epochs); ``settings.epochs`` is
    the most that one level may take. Levels before the last run at the highest rate, the last one on
    ``settings.schedule``. Where a layer's margin h x rate exceeds the ``stability_limit`` of its scheme, the network is
    doubled before it is trained. Forward Euler has no stable step on the imaginary axis, and other schemes may state no
    limit: there h x rate may be up to 2, which is a choice.

    With `GaussNewton` settings every level is a run of `gauss_newton`, which waits ``patience`` iterations for a better
    validation score, or a lower loss at an equal one; it carries nothing but the weights.

    Args:
        network: the coarsest one; it has more layers afterwards, and the weights of the best validation loss.
        split, settings, progress, on_epoch: as for `fit` or `gauss_newton`; what is held out is the same on all levels.
        levels: how many, the network's own depth among them.
        how: as for `liouville.Flow.refined`.
        validation: samples to choose by, instead of a held-out share; with `GaussNewton` settings only.
        optimizer: one that an earlier run of this network left; ``optimizer_of(network, settings)`` if None. With
            `Settings` only.
        processes: as for `fit`; with `Settings` only.
        checkpoint: as for `fit`; a state is also kept at the end of each level.

    Raises:
        ValueError: if nothing is held out for validation, the network has no flow, an argument belongs to the other
            kind of settings, or as `fit` and `gauss_newton`.
        DivergenceError: as `fit`; the network then has the depth of the level that diverged.

    Examples:
        >>> import liouville as lv
        >>> network = lv.classifier("h2", inputs=2, classes=2, features=4, layers=8, T=1.0)
        >>> data = lv.data.load("double-moons", points=200)
        >>> history = multilevel(network, data, Settings(epochs=2, target_score=0.99), levels=2)
        >>> [level.layers for level in history.levels]
        [(8,), (16,)]
    """
    settings = Settings() if settings is None else settings
    require_split(split, "multilevel")
    if levels < 1:
        raise ValueError(f"levels must be at least 1, got {levels}.")
    if not settings.validation and validation is None:
        raise ValueError("a level ends by its validation loss; give validation a share above 0.")
    if isinstance(settings, GaussNewton):
        if optimizer is not None:
            raise ValueError("optimizer= belongs to Settings; GaussNewton carries only the weights. Omit it.")
        if processes.size > 1:
            raise ValueError(f"GaussNewton trains in one process, got {processes.size}; take Settings, or one process.")
        train: Callable[..., History] = functools.partial(gauss_newton, validation=validation)
    elif validation is not None:
        raise ValueError("validation= belongs to GaussNewton; Settings(validation=...) holds out a share. Omit it.")
    else:
        optimizer = optimizer or optimizer_of(network, settings, _on_device(network, split))
        train = functools.partial(fit, optimizer=optimizer, processes=processes)
    kind = f"multilevel, {levels} levels, {how}"
    belongs = belongings(kind, network, split, settings, processes) if checkpoint else None
    keeper = Keeper(checkpoint, belongs, processes, next(network.parameters()).device, progress.note)
    with keeper:
        return _Levels(network, split, settings, levels, how, progress, on_epoch, optimizer, keeper).run(train)


class _Levels:
    """The levels, one after the other; which of them is under way, and what those before it left."""

    def __init__(
        self,
        network: nn.Module,
        split: Split,
        settings: Settings | GaussNewton,
        levels: int,
        how: str,
        progress: Progress,
        on_epoch: Callable[[History], None] | None,
        optimizer: torch.optim.Optimizer | None,
        keeper: Keeper,
    ) -> None:
        self.network, self.split, self.settings, self.levels, self.how = network, split, settings, levels, how
        self.progress, self.on_epoch, self.optimizer = progress, on_epoch, optimizer
        self.total = MultilevelHistory("accuracy" if split.classes else "r2")
        self.level, found = 1, keeper.found
        if found is not None:
            self.total = _history(found["total"])
            while self.level < found["level"]:
                self._double()
        self.keeper = keeper.within(self._around, None if found is None else found["run"])

    def run(self, train: Callable[..., History]) -> MultilevelHistory:
        """Go through the levels that are left; ``train`` trains one of them."""
        while True:
            last = self.level == self.levels
            too_long = None if last or self.total.levels else _too_long(self.network)
            if too_long and self.keeper.found is None:
                self.total.skipped.append(f"{_depth(self.network)} layers: {too_long}")
                self._note(f" left out, {self.total.skipped[-1]}")
                self._double()
                continue
            self._note(f": {_depth(self.network)} layers")
            history = train(
                self.network,
                self.split,
                self.settings if last else _of_a_level(self.settings),
                progress=self.progress,
                on_epoch=_through(self.total, self.on_epoch),
                test=last,
                checkpoint=self.keeper,
            )
            _append(self.total, history, self.network)
            self._note(": " + _sentence(self.total.levels[-1], self.total.score_name))
            if last:
                return self.total
            self._double()

    def _double(self) -> None:
        refine(self.network, self.optimizer, self.how)
        self.level += 1

    def _note(self, text: str) -> None:
        self.progress.note(f"level {self.level} of {self.levels}{text}")

    def _around(self, run: State) -> State:
        return {"level": self.level, "total": asdict(self.total), "run": run}


def _history(state: State) -> MultilevelHistory:
    """What ``asdict`` made of it, as it was."""
    epochs = [(Iteration if "tries" in epoch else Epoch)(**epoch) for epoch in state["epochs"]]
    return MultilevelHistory(**state | {"epochs": epochs, "levels": [Level(**level) for level in state["levels"]]})


def _on_device(network: nn.Module, split: Split) -> tuple[Tensor, Tensor, Task]:
    """The training part as the network takes it, which ``rates="share"`` measures its rate on."""
    like = next(network.parameters())
    moved = split.to(device=like.device, dtype=like.dtype)
    return moved.x_train, moved.y_train, task_of(network, split)


def _of_a_level(settings: Settings | GaussNewton) -> Settings | GaussNewton:
    patient = replace(settings, patience=settings.patience or _PATIENCE)
    return replace(patient, schedule="constant") if isinstance(patient, Settings) else patient


def _too_long(network: nn.Module) -> str | None:
    """Which margin is furthest above its scheme's limit; None where none is. A field without a rate has no say."""
    worst, sentence = 1.0, None
    for flow in flows_of(network):
        limit = flow.scheme.stability_limit
        if not limit > 0:
            limit = _NO_LIMIT
        try:
            largest = float(margin(flow).max())
        except NotImplementedError:
            continue
        if largest / limit > worst:
            worst, sentence = largest / limit, f"margin h x rate {largest:.3g}, above {limit:.4g}"
    return sentence


def _depth(network: nn.Module) -> str:
    return " + ".join(str(flow.layers) for flow in flows_of(network))


def _through(total: MultilevelHistory, on_epoch: Callable[[History], None] | None) -> Callable[[History], None] | None:
    """Call ``on_epoch`` with the epochs of all levels so far."""
    return on_epoch and (lambda history: on_epoch(_joined(total, history)))


def _joined(total: MultilevelHistory, history: History) -> MultilevelHistory:
    before = len(total.epochs)
    epochs = [replace(epoch, epoch=before + epoch.epoch) for epoch in history.epochs]
    best = before + history.best_epoch if history.best_epoch else total.best_epoch
    return replace(total, epochs=total.epochs + epochs, best_epoch=best)


def _append(total: MultilevelHistory, history: History, network: nn.Module) -> None:
    joined = _joined(total, history)
    total.epochs, total.best_epoch = joined.epochs, joined.best_epoch
    seconds = history.metrics["seconds"]
    total.levels.append(
        Level(
            tuple(flow.layers for flow in flows_of(network)),
            _validation(history.start),
            _validation(history.metrics),
            len(history.epochs),
            history.work,
            seconds,
            history.stopped,
        )
    )
    total.start = total.start or history.start
    total.work += history.work
    total.stopped = history.stopped
    spent = sum(level.seconds for level in total.levels)
    total.metrics = {**history.metrics, "seconds": spent, "work": total.work}


def _validation(metrics: dict[str, float]) -> dict[str, float]:
    return {k.removeprefix("validation_"): v for k, v in metrics.items() if k.startswith("validation_")}


def _sentence(level: Level, score: str) -> str:
    return (
        f"validation {score} {level.start[score]:.4f} -> {level.end[score]:.4f}, loss {level.start['loss']:.4g} -> "
        f"{level.end['loss']:.4g} in {level.epochs} epochs, {level.work:.2e} layer evaluations; {level.stopped}"
    )
