r"""`gauss_newton`: minimise the learning problem by Gauss-Newton steps, the second-order counterpart of `fit`."""

from __future__ import annotations

__all__ = ["Iteration", "gauss_newton"]

import copy
import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from liouville.data import Split
from liouville.flow import flows_of
from liouville.precision import require_digits
from liouville.processes.sharing import Processes
from liouville.train.blockcoordinate import BlockCoordinate
from liouville.train.checkpoints import Checkpoint, Keeper, State, belongings
from liouville.train.clock import Clock
from liouville.train.descent import LineSearch, Step, TrustRegion
from liouville.train.diagnosis import DivergenceError, diagnose
from liouville.train.evaluation import evaluate
from liouville.train.history import Epoch, History
from liouville.train.objective import Expansion, FullObjective, Objective
from liouville.train.precondition import DepthPreconditioner, stacks
from liouville.train.progress import Progress, silent
from liouville.train.settings import GaussNewton
from liouville.train.trainable import require_split, require_trainable, task_of
from liouville.train.varpro import ReducedObjective


@dataclass(frozen=True)
class Iteration(Epoch):
    """One outer iteration, as an `Epoch` with more to say.

    ``loss``, ``penalty`` and ``score`` are those after the step, over the samples of its objective;
    ``gradient_norm`` is that in front of it; ``lr`` is the step's length, 0 where none was found. ``products`` is how
    many Gauss-Newton products the direction took, and ``tries`` how many lengths or radii were tried. ``work`` counts
    the layer evaluations of the iteration, samples x layers: one for every sweep through the layers, forwards,
    backwards or in forward mode, for the losses of this record, too.
    """

    products: int = 0
    tries: int = 0


def gauss_newton(
    network: nn.Module,
    split: Split,
    settings: GaussNewton | None = None,
    *,
    validation: tuple[Tensor, Tensor] | None = None,
    progress: Progress = silent,
    on_epoch: Callable[[History], None] | None = None,
    test: bool = True,
    checkpoint: Checkpoint | Keeper | None = None,
) -> History:
    """Train ``network`` in place and return what happened; it carries the weights of the best validation score.

    The network is in evaluation mode throughout: noise such as dropout is off, since a line search compares values of
    one function. float64 is recommended; in float32 the search ends where a decrease drowns in rounding.

    Args:
        network: for any ``head`` but ``"joint"`` a `Network` with a linear head.
        split: training data, of which ``settings.validation`` is held out, and test data, read once at the end.
        settings: everything that can be chosen; ``GaussNewton()`` if None.
        validation: samples to choose by, instead of a held-out share.
        progress: where to show it.
        on_epoch: called with the history after every outer iteration, and with that of a checkpoint at the start.
        test: False leaves the test part unread.
        checkpoint: as for `fit`; a step is an iteration here.

    Returns:
        The `History`, its epochs being `Iteration`; among equal validation scores the lower loss is the better one, and
        the initial weights (best_epoch 0) take part.

    Raises:
        ValueError: if network and data do not fit each other, or the head is not linear.
        DivergenceError: if objective or gradient are not finite; the network then carries the best weights so far.

    Examples:
        >>> import liouville as lv
        >>> network = lv.classifier("verlet", inputs=2, classes=2, features=4, layers=8, T=4.0).double()
        >>> history = gauss_newton(network, lv.data.load("ellipses", train=100), GaussNewton(iterations=3))
        >>> len(history.epochs)
        3
    """
    settings = GaussNewton() if settings is None else settings
    if not isinstance(settings, GaussNewton):
        raise ValueError(f"gauss_newton takes GaussNewton, got {type(settings).__name__}; Settings is for train.fit.")
    require_split(split, "gauss_newton")
    require_trainable(network)
    if isinstance(checkpoint, Keeper):
        keeper = checkpoint
    else:
        belongs = belongings("gauss_newton", network, split, settings, Processes()) if checkpoint else None
        keeper = Keeper(checkpoint, belongs, device=next(network.parameters()).device, note=progress.note)
    return _Run(network, split, settings, validation, progress, on_epoch, test, keeper).train()


class _Taken(NamedTuple):
    """What an iteration did: the objective, its expansion in front of the step, the step, and the work so far."""

    objective: Objective
    at: Expansion
    step: Step
    work: int


class _Run:
    """One run: the pieces that an iteration needs, made once."""

    def __init__(
        self,
        network: nn.Module,
        split: Split,
        settings: GaussNewton,
        validation: tuple[Tensor, Tensor] | None,
        progress: Progress,
        on_epoch: Callable[[History], None] | None,
        test: bool,
        keeper: Keeper,
    ) -> None:
        like = next(network.parameters())
        require_digits(like.dtype, "Gauss-Newton")
        self.network, self.settings, self.progress, self.on_epoch = network, settings, progress, on_epoch
        self.task, self.test, self.keeper = task_of(network, split), test, keeper
        self.generator = torch.Generator().manual_seed(settings.seed)
        self.split = split.to(device=like.device, dtype=like.dtype)
        self.x, self.y = self.split.x_train, self.split.y_train
        self.validation = None if validation is None else (validation[0].to(like), validation[1].to(self.split.y_train))
        if settings.validation and validation is None:
            held = self.split.holdout(settings.validation, self.generator)
            self.x, self.y = held.x_train, held.y_train
            self.validation = held.x_validation, held.y_validation
        self.history = History(self.task.score_name)
        self.at = "the start"
        self.layers = sum(flow.layers for flow in flows_of(network))
        self.worked = 0
        self.first_norm: float | None = None
        self.clock = Clock()
        self.best_key, self.best = (math.inf, math.inf), copy.deepcopy(network.state_dict())
        self.safe = _safeguard(settings)
        self.method: _Method = self._blocks() if settings.head == "alternating" else self._whole()

    def train(self) -> History:
        try:
            return self._train()
        except DivergenceError:
            raise
        except ArithmeticError as error:  # an implicit layer without a solution
            raise DivergenceError(f"training diverged at {self.at}: {error}") from error

    def state(self) -> State:
        """All that the iterations to come depend on."""
        return {
            "network": self.network.state_dict(),
            "best": self.best,
            "best_key": self.best_key,
            "stream": self.generator.get_state(),
            "worked": self.worked,
            "first_norm": self.first_norm,
            "method": self.method.state(),
            "safeguard": self.safe.state(),
            "history": dataclasses.asdict(self.history),
            "seconds": (self.clock.run(), self.clock.epoch()),
        }

    def restore(self, state: State) -> None:
        """Take back what `state` gave."""
        self.network.load_state_dict(state["network"])
        self.best, self.best_key, self.worked = state["best"], state["best_key"], state["worked"]
        self.first_norm = state["first_norm"]
        self.generator.set_state(state["stream"])
        self.method.restore(state["method"])
        self.safe.restore(state["safeguard"])
        self.history = History(**state["history"] | {"epochs": [Iteration(**e) for e in state["history"]["epochs"]]})
        self.clock = Clock(*state["seconds"])

    def _train(self) -> History:
        self.network.eval()
        if not self.keeper.begin(self):
            self._start()
        elif self.on_epoch:
            self.on_epoch(self.history)
        with self.keeper, self.progress.run(self.settings.iterations, 1, self.task.score_name) as bar:
            try:
                self._iterations(bar)
                self.keeper.end(self)
            finally:
                self.network.load_state_dict(self.best)
        return self._finish()

    def _iterations(self, bar: Progress.Bar) -> None:
        while len(self.history.epochs) < self.settings.iterations and not self.history.stopped:
            record, stop = self._iteration(len(self.history.epochs) + 1)
            self._keep_best(record)
            self.history.epochs.append(record)
            bar.step(record.loss)
            bar.epoch(record)
            if self.on_epoch:
                self.on_epoch(self.history)
            self.history.stopped = stop or self._reached(record)
            self.clock.next_epoch()
            self.keeper.step(self)
        self.history.stopped = self.history.stopped or "all iterations done"

    def _start(self) -> None:
        """What the validation part says of the initial weights, which may be the best."""
        if not self.validation:
            return
        self.history.start = evaluate(self.network, *self.validation, self.task, "validation_")
        self.history.work += self.layers * len(self.validation[0])
        loss, score = self.history.start["validation_loss"], self.history.start[f"validation_{self.task.score_name}"]
        self.best_key = -score, loss
        if self.settings.target_score is not None and score >= self.settings.target_score:
            self.history.stopped = f"the target {self.settings.target_score:g} was reached before the first iteration"

    def _iteration(self, k: int) -> tuple[Iteration, str]:
        """The record of one iteration, and why it is the last, if it is."""
        self.at = f"iteration {k}"
        objective, at, step, total = self.method.advance()
        norm = float(at.gradient.norm())
        self._require_finite(objective, at, norm)
        held = evaluate(self.network, *self.validation, self.task) if self.validation else {}
        behind = evaluate(self.network, objective.x, objective.y, self.task)
        samples = len(objective.x) + (len(self.validation[0]) if self.validation else 0)
        work, self.worked = total - self.worked + self.layers * samples, total
        self.history.work += work
        record = Iteration(
            epoch=k,
            loss=behind["loss"],
            penalty=step.value - behind["loss"],
            score=behind[self.task.score_name],
            gradient_norm=norm,
            lr=step.length,
            validation_loss=held.get("loss"),
            validation_score=held.get(self.task.score_name),
            seconds=self.clock.epoch(),
            layers=self.layers,
            work=work,
            products=step.products,
            tries=step.tries,
        )
        return record, self._ended(norm, step)

    def _ended(self, norm: float, step: Step) -> str:
        if self.settings.head == "alternating":
            return ""
        self.first_norm = norm if self.first_norm is None else self.first_norm
        if norm <= self.settings.atol + self.settings.rtol * self.first_norm:
            return f"the gradient norm fell from {self.first_norm:.2g} to {norm:.2g}"
        return "" if step.length else "no step was found that lowers the objective"

    def _reached(self, record: Iteration) -> str:
        target, patience = self.settings.target_score, self.settings.patience
        if target is not None and record.validation_score is not None and record.validation_score >= target:
            return f"the target {target:g} was reached"
        if patience is not None and record.epoch - self.history.best_epoch >= patience:
            return f"no better validation in {patience} iterations"
        return ""

    def _require_finite(self, objective: Objective, at: Expansion, norm: float) -> None:
        for what, number in (("objective", at.value), ("gradient norm", norm)):
            if not math.isfinite(number):
                raise diagnose(self.network, objective.x, what, number, self.at)

    def _keep_best(self, record: Iteration) -> None:
        if record.validation_score is None or record.validation_loss is None:
            key = (-float(record.epoch), 0.0)
        else:
            key = (-record.validation_score, record.validation_loss)
        if key < self.best_key:
            self.best_key, self.best = key, copy.deepcopy(self.network.state_dict())
            self.history.best_epoch = record.epoch

    def _finish(self) -> History:
        metrics = evaluate(self.network, self.x, self.y, self.task, "train_")
        if self.validation:
            metrics |= evaluate(self.network, *self.validation, self.task, "validation_")
        metrics |= {"seconds": self.clock.run(), "work": self.history.work}
        if self.test:
            metrics |= evaluate(self.network, self.split.x_test, self.split.y_test, self.task, "test_")
        self.history.metrics = metrics
        return self.history

    def _whole(self) -> _Whole:
        """Iterations on the whole training part."""
        s = self.settings
        if s.head == "joint":
            objective: Objective = FullObjective(self.network, self.x, self.y, self.task, s.penalty)
        else:
            full = s.head == "eliminated"
            objective = ReducedObjective(self.network, self.x, self.y, self.task, s.penalty, full=full)
        layout = stacks(self.network, objective.weights, s.penalty, s.ridge)
        return _Whole(objective, self.safe, DepthPreconditioner(objective.weights, layout, s.ridge))

    def _blocks(self) -> _Blocks:
        """Iterations of the block coordinate descent."""
        s = self.settings
        return _Blocks(
            BlockCoordinate(
                self.network,
                self.x,
                self.y,
                self.task,
                s.penalty,
                self.safe,
                batch=s.batch_size or len(self.x),
                curvature=s.curvature,
                head_steps=s.head_steps,
                ridge=s.ridge,
                generator=self.generator,
            )
        )


class _Whole:
    """Steps of one objective."""

    def __init__(self, objective: Objective, safe: LineSearch | TrustRegion, precondition: DepthPreconditioner) -> None:
        self.objective, self.safe, self.precondition = objective, safe, precondition

    def advance(self) -> _Taken:
        objective = self.objective
        w = objective.vector()
        at = objective.expand(w)
        step = self.safe.step(objective, w, at, self.precondition)
        objective.assign(step.w)
        return _Taken(objective, at, step, objective.work)

    def state(self) -> State:
        return {"work": self.objective.work, "head": getattr(self.objective, "W", None)}

    def restore(self, state: State) -> None:
        self.objective.work = state["work"]
        if isinstance(self.objective, ReducedObjective):
            self.objective.W = state["head"].to(self.objective.W)


class _Blocks:
    """Steps of block coordinate descent, each of which draws its own batch."""

    def __init__(self, blocks: BlockCoordinate) -> None:
        self.blocks = blocks

    def advance(self) -> _Taken:
        return _Taken(*self.blocks.step(), self.blocks.work)

    def state(self) -> State:
        return {"work": self.blocks.work}

    def restore(self, state: State) -> None:
        self.blocks.work = state["work"]


_Method = _Whole | _Blocks


def _safeguard(s: GaussNewton) -> LineSearch | TrustRegion:
    if s.safeguard == "armijo":
        return LineSearch(s.products, s.tolerance, s.decrease, s.tries, s.max_step)
    return TrustRegion(s.products, s.tolerance, s.decrease, s.tries)
