r"""`fit`: minimise the learning problem by stochastic gradients, choose by validation, read the test part once."""

from __future__ import annotations

__all__ = ["fit"]

import copy
import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from liouville.backprop.late import later
from liouville.data import Split
from liouville.flow import flows_of
from liouville.processes.sharing import Processes
from liouville.randomness import seeded
from liouville.sequences import Inputs
from liouville.task import Task
from liouville.train.alternate import train_head
from liouville.train.augment import augmented
from liouville.train.average import mover
from liouville.train.callback import Callback, require_callbacks
from liouville.train.capture import CapturedStep, require_capturable
from liouville.train.checkpoints import Checkpoint, Keeper, State, belongings, optimizer_state, restore_optimizer
from liouville.train.clock import Clock
from liouville.train.diagnosis import DivergenceError, diagnose
from liouville.train.evaluation import evaluate, evaluate_loaded
from liouville.train.history import Epoch, History
from liouville.train.losses import Loss
from liouville.train.optimizers import optimizer_of
from liouville.train.parts import Parts, lengths, parts_of, require_possible
from liouville.train.progress import Progress, silent
from liouville.train.rates import rate_of
from liouville.train.readings import Readings
from liouville.train.schedules import scheduler_of
from liouville.train.settings import Settings
from liouville.train.source import Batch, Loaded, Samples, Source, source_of
from liouville.train.step import Step
from liouville.train.trainable import require_labels, require_trainable

_EXPLODED = 1e3  # a loss this many times the first one (plus 1) has diverged, though it is still a number


def fit(
    network: nn.Module,
    data: Split | Dataset | Iterable[Any] | tuple[Tensor, ...],
    settings: Settings | None = None,
    *,
    validation: Split | Dataset | Iterable[Any] | tuple[Tensor, ...] | None = None,
    loss: Loss | None = None,
    progress: Progress = silent,
    on_epoch: Callable[[History], None] | None = None,
    callbacks: Sequence[Callback] = (),
    optimizer: torch.optim.Optimizer | None = None,
    test: bool = True,
    processes: Processes = Processes(),
    checkpoint: Checkpoint | Keeper | None = None,
) -> History:
    """Train ``network`` in place and return what happened; it carries the weights of the best validation loss.

    Args:
        network: any module with scores as output; a `Network` for penalties on its flows and for alternation.
        data: a `Split`, whose test part is read once at the end; tensors (X, y) or (X, y, weights), or a
            ``TensorDataset``: of all of these ``settings.validation`` is held out; a ``DataLoader``, whose workers,
            order and augmentation stay its own, or another iterable of batches (inputs, targets) or (inputs, targets,
            weights); a ``Dataset``, for which a loader is made. Inputs that are sequences of unequal lengths are
            `liouville.data.Sequences`, (x, lengths) or a ``PackedSequence``. A weight multiplies the loss of its
            sample; those of tensors are relative. Whole numbers are classes, or (samples, K) labels; floating-point
            targets are real.
        validation: what to choose the best epoch by, in any of these forms. Nothing is held out then, nor of a loader
            or ``Dataset``: without this the last weights stay, and ``train_`` metrics are those of the last epoch.
        loss: in place of the task's own: `Huber`, `Quantile`, a module of torch's, or any function (outputs, targets)
            -> losses, one for each sample, or their mean where no weights are given.
        settings: everything that can be chosen; ``Settings()`` if None.
        progress: where to show it; ``liouville.train.progress.Terminal()`` draws a bar.
        on_epoch: called with the history after every epoch, and with that of a checkpoint at the start.
        callbacks: told of the start, of every step and epoch, and of the end; `GradientMonitor` is one.
        optimizer: one that an earlier run left, of these weights: its state is carried on, and the weights that
            the run begins with may be returned; ``optimizer_of(network, settings)`` if None.
        test: False leaves the test part unread.
        processes: those that share every batch; each calls ``fit`` with equal arguments (but for ``progress``,
            ``on_epoch`` and ``callbacks``), and each ends with the same weights and history.
        checkpoint: where to keep the state of the training, and to go on from; see `Checkpoint`. (A `Keeper` is what
            `multilevel` hands to its levels.)

    Returns:
        The `History`. Two runs with the same arguments agree bitwise on one machine with one number of threads.

    Raises:
        ValueError: if network and data do not fit each other, every weight is frozen, or the checkpoint is of
            another training.
        DivergenceError: if the loss is not finite or explodes; the network then carries the best weights so far.

    Examples:
        >>> import liouville as lv
        >>> network = lv.classifier("h2", inputs=2, classes=2, features=4, layers=4, T=1.0)
        >>> history = fit(network, lv.data.load("double-moons", points=200), Settings(epochs=2))
        >>> len(history.epochs)
        2
    """
    settings = Settings() if settings is None else settings
    if not isinstance(settings, Settings):
        raise ValueError(f"fit takes Settings, got {type(settings).__name__}; GaussNewton is for train.gauss_newton.")
    require_trainable(network)
    require_callbacks(callbacks)
    device = next(network.parameters()).device
    if isinstance(checkpoint, Keeper):
        keeper = checkpoint
    else:
        belongs = _belongings(network, data, validation, loss, settings, processes) if checkpoint else None
        keeper = Keeper(checkpoint, belongs, processes, device, progress.note)
    with seeded(processes.seed(settings.seed), device):
        generator = torch.Generator().manual_seed(settings.seed)
        parts = parts_of(network, data, validation, loss, settings, generator, progress.note)
        run = _Run(
            network, parts, settings, generator, progress, on_epoch, callbacks, optimizer, test, processes, keeper
        )
        return run.train()


def _belongings(
    network: nn.Module, data: Any, validation: Any, loss: Loss | None, settings: Settings, processes: Processes
) -> dict[str, str]:
    """What the state of this training depends on, where it has one."""
    if isinstance(data, Split) and validation is None and loss is None:
        return belongings("fit", network, data, settings, processes)
    like = next(network.parameters())
    sources = [source_of(part, like, settings.batch_size) for part in (data, validation) if part is not None]
    if any(isinstance(source, Loaded) for source in sources):
        raise ValueError(
            "a checkpoint goes on to the same bits, and where a loader of your own was is not known; give tensors, a "
            "TensorDataset or a Split, or leave checkpoint= out (Lightning goes on from the end of an epoch)."
        )
    described = ", validated on ".join(source.described() for source in sources if isinstance(source, Samples))
    own = {} if loss is None else {"the loss": repr(loss)}
    return belongings("fit", network, described, settings, processes) | own


class _Run:
    """One training run: the pieces that a step needs, made once."""

    def __init__(
        self,
        network: nn.Module,
        parts: Parts,
        settings: Settings,
        generator: torch.Generator,
        progress: Progress,
        on_epoch: Callable[[History], None] | None,
        callbacks: Sequence[Callback],
        optimizer: torch.optim.Optimizer | None,
        test: bool,
        processes: Processes,
        keeper: Keeper,
    ) -> None:
        self.callbacks, self.processes, self.keeper = callbacks, processes, keeper
        self.network, self.settings, self.progress, self.on_epoch = network, settings, progress, on_epoch
        self.parts, self.generator = parts, generator
        self.task, self.data, self.validation = parts.goal, parts.train, parts.validation
        require_possible(parts, settings, processes, next(network.parameters()).dtype)
        self.steps, self.total = lengths(self.data, settings)  # of an epoch, of all
        self.epochs = math.ceil(self.total / self.steps)
        self.optimizer = optimizer or optimizer_of(network, settings, self._measured())
        self.carried, self.test = optimizer is not None, test
        self.layers = sum(flow.layers for flow in flows_of(network))
        self.scheduler = scheduler_of(self.optimizer, settings, self.steps, self.total)
        self.average = copy.deepcopy(network) if settings.ema_decay else None
        self.move_average = mover(self.average, network) if self.average else None
        self.history = History(self.task.score_name)
        self.step = Step(network, self.optimizer, self.task, settings, processes)
        self.captured: CapturedStep | None = None
        if settings.capture:
            require_capturable(network, self.optimizer, settings, processes, len(self._samples()))
            self.captured = CapturedStep(self.step)
        # where a device computes, the host runs ahead of it
        on_device = next(network.parameters()).device.type != "cpu"
        self.readings = Readings(self._judge) if on_device else None
        self.first_loss, self.loss, self.seen = math.nan, math.nan, 0
        self.at = "the start"
        self.epoch, self.taken, self.lr = 1, 0, settings.lr  # the epoch under way, its steps done, its first rate
        self.order = self.generator.get_state()  # of the stream, before that epoch drew the order of its samples
        self.sums = [0.0] * 6  # over its samples: loss, penalty, score, gradient norm, 1; 1 of those with a score
        self.clock = Clock()
        self.best_loss, self.best = math.inf, copy.deepcopy(network.state_dict())

    def train(self) -> History:
        try:
            return self._train()
        except DivergenceError:
            raise
        except ArithmeticError as error:  # an implicit layer without a solution
            raise DivergenceError(f"training diverged at {self.at}: {error}") from error
        finally:
            self.network.eval()
            for callback in self.callbacks:
                callback.on_train_end()

    def state(self) -> State:
        """All that the steps to come depend on; the generators of torch itself are the keeper's."""
        self._read()
        return {
            "network": self.network.state_dict(),
            "best": self.best,
            "best_loss": self.best_loss,
            "average": self.average.state_dict() if self.average else None,
            "optimizer": optimizer_state(self.optimizer),
            "schedule": {k: v for k, v in self.scheduler.state_dict().items() if k != "lr_lambdas"},
            "epoch": self.epoch,
            "taken": self.taken,
            "lr": self.lr,
            "order": self.order,
            "stream": self.generator.get_state(),
            "sums": torch.tensor(self.sums, dtype=torch.float64),
            "first_loss": self.first_loss,
            "history": dataclasses.asdict(self.history),
            "seconds": (self.clock.run(), self.clock.epoch()),
        }

    def restore(self, state: State) -> None:
        """Take back what `state` gave."""
        self.network.load_state_dict(state["network"])
        self.best, self.best_loss = state["best"], state["best_loss"]
        if self.average:
            self.average.load_state_dict(state["average"])
        restore_optimizer(self.optimizer, state["optimizer"])
        self.scheduler.__dict__.update(state["schedule"])
        self.epoch, self.taken, self.lr, self.order = (state[name] for name in ("epoch", "taken", "lr", "order"))
        self.generator.set_state(state["stream"])
        self.sums, self.first_loss = state["sums"].tolist(), state["first_loss"]
        self.history = History(**state["history"] | {"epochs": [Epoch(**e) for e in state["history"]["epochs"]]})
        self.clock = Clock(*state["seconds"])

    def _train(self) -> History:
        if not self.keeper.begin(self):
            self._start()
        elif self.on_epoch:
            self.on_epoch(self.history)
        self.network.train()
        for callback in self.callbacks:
            callback.on_train_start(self.network)
        with self.keeper, self.progress.run(self.epochs, self.steps, self.task.score_name) as bar:
            try:
                self._epochs(bar)
                self.keeper.end(self)
            finally:
                self.network.load_state_dict(self.best)
        return self._finish()

    def _epochs(self, bar: Progress.Bar) -> None:
        while self.epoch <= self.epochs and not self.history.stopped:
            record = self._epoch(bar)
            self._keep_best(record)
            self.history.epochs.append(record)
            bar.epoch(record)
            if self.on_epoch:
                self.on_epoch(self.history)
            for callback in self.callbacks:
                callback.on_train_epoch_end(self.history)
            self._note_stop(record)
            self._next_epoch()
            self.keeper.step(self)
        self.history.stopped = self.history.stopped or "all epochs done"

    def _next_epoch(self) -> None:
        self.epoch, self.taken = self.epoch + 1, 0
        self.order, self.sums = self.generator.get_state(), [0.0] * 6
        self.clock.next_epoch()

    def _finish(self) -> History:
        self.network.eval()
        if self.settings.alternate:
            x, y, _ = self._samples().rows(slice(None))
            assert isinstance(x, Tensor)
            train_head(self.network, x, y, self._known_task(), self.settings, self.generator)
        if isinstance(self.data, Samples):
            metrics = self._evaluate(self.network, self.data, "train_")
            self._require_sound(metrics["train_loss"], self.data.x[: self.settings.batch_size], self.at)
        else:  # another pass may be long, or never end
            last = self.history.epochs[-1]
            metrics = {"train_loss": last.loss, f"train_{self.task.score_name}": last.score}
        if self.validation:
            metrics |= self._evaluate(self.network, self.validation, "validation_")
        metrics |= {"seconds": self.clock.run(), "work": self.history.work}
        if self.test and self.parts.test:
            metrics |= self._evaluate(self.network, self.parts.test, "test_")
        self.history.metrics = metrics
        return self.history

    def _start(self) -> None:
        """What the validation part says of the initial weights, where the run may end with them."""
        if not self.validation or not (self.carried or self.settings.target_score is not None):
            return
        self.history.start = self._evaluate(self.network, self.validation, "validation_")
        self.history.work += self.layers * self.seen
        if self.carried:
            self.best_loss = self.history.start["validation_loss"]
        if self._reached(self.history.start[f"validation_{self.task.score_name}"]):
            self.history.stopped = f"the target {self.settings.target_score:g} was reached before the first epoch"

    def _epoch(self, bar: Progress.Bar) -> Epoch:
        epoch = self.epoch
        self.lr = self.lr if self.taken else rate_of(self.optimizer)
        batch = self.parts.sample
        for batch in self._batches():
            self.at = f"step {self.taken + 1} of epoch {epoch}"
            loss = self._step(batch)
            self.taken += 1
            if self.move_average:
                taken = self.taken + (epoch - 1) * self.steps
                self.move_average(min(self.settings.ema_decay, (1 + taken) / (10 + taken)))
            bar.step(loss)
            for callback in self.callbacks:
                callback.on_train_batch_end(loss)
            if self.taken < self._due():  # the last one's batch is read once more below
                self.keeper.step(self)
        self._read()
        samples = int(self.sums[4])
        if not samples:
            raise ValueError(f"{self.data.name} gives no batch in epoch {epoch}; it must give them anew each time.")
        loss, penalty, _, norm = (total / samples for total in self.sums[:4])
        score = self.sums[2] / self.sums[5] if self.sums[5] else math.nan
        held: dict[str, float] = {}
        # without a validation part, the last batch stands guard, whatever its samples weigh
        guard = batch if batch.weight is None or batch.weight.any() else batch._replace(weight=None)
        after = self._evaluate(self.average or self.network, self.validation or Samples(*guard))
        self._require_sound(after["loss"], batch.x, self.at)
        work = 2 * self.layers * samples
        if self.validation:
            held, work = after, work + self.layers * self.seen
        self.history.work += work
        return Epoch(
            epoch=epoch,
            loss=loss,
            penalty=penalty,
            score=score,
            gradient_norm=norm,
            lr=self.lr,
            validation_loss=held.get("loss"),
            validation_score=held.get(self.task.score_name),
            layers=self.layers,
            work=work,
            seconds=self.clock.epoch(),
        )

    def _due(self) -> int:
        """The steps of the epoch under way."""
        return min(self.steps, self.total - (self.epoch - 1) * self.steps)

    def _batches(self) -> Iterator[Batch]:
        """The batches of the epoch that are still to come."""
        found = self._drawn(self.data) if isinstance(self.data, Samples) else self._loaded(self.data)
        for batch in found:
            x = batch.x
            if isinstance(x, Tensor):
                x = augmented(x, self.settings.shift, self.settings.warp, self.generator)
            yield batch._replace(x=x)

    def _drawn(self, data: Samples) -> Iterator[Batch]:
        stream = self.generator
        if self.taken:  # gone on with inside of an epoch, whose order was drawn before
            stream = torch.Generator()
            stream.set_state(self.order)
        order = torch.randperm(len(data), generator=stream).to(data.x.device)
        for rows in order.split(self.settings.batch_size)[self.taken : self._due()]:
            yield data.rows(rows)

    def _loaded(self, data: Loaded) -> Iterator[Batch]:
        """One pass, or of a stream without a length as many batches as an epoch has."""
        due, task = self._due(), self.parts.plain
        found = data.some(due) if data.batches() is None else itertools.islice(data, due)
        for batch in found:
            if isinstance(task, Task):
                require_labels(batch.y, task, data.name)
            yield batch

    def _step(self, batch: Batch) -> float:
        """One step; the last loss that is known is returned."""
        if self.readings:
            self._step_unread(batch, self.readings)
        else:
            numbers = self._step_read(batch)
            self.scheduler.step()
            self._note(numbers, len(batch.x), self.at)
        return self.loss

    def _step_read(self, batch: Batch) -> tuple[float, float, float, float]:
        """A step whose loss is judged before it goes back, and its gradient before it moves a weight."""
        self.step.clear()
        outcome = self.step.forward(*batch)
        loss, penalty = float(outcome.loss.detach()), float(outcome.penalty.detach())
        self._require_sound(loss, batch.x, self.at)
        norm = float(self.step.backward(outcome))
        self._require_finite(penalty, norm, batch.x, self.at)
        self.optimizer.step()
        return loss, penalty, self.task.score(outcome.scores.detach(), batch.y, batch.weight), norm

    def _step_unread(self, batch: Batch, readings: Readings) -> None:
        """A step on a device that the host runs ahead of; what it says is read, and judged, many steps at once."""
        with later(readings.checks):
            if self.captured:
                assert isinstance(batch.x, Tensor)
                row = self.captured(batch.x, batch.y)
            else:
                row = self.step.whole(*batch)
        self.scheduler.step()
        readings.add(row, len(batch.x), self.at)
        if self.callbacks or readings.due():
            self._read()

    def _read(self) -> None:
        if self.readings:
            self.readings.read(*([self.captured.checks] if self.captured else []))

    def _judge(self, numbers: Sequence[float], samples: int, step: str) -> None:
        loss, penalty, _, norm = numbers
        at = step if step == self.at else f"{step} (noticed at {self.at})"
        x = self.parts.sample.x[: self.settings.batch_size]
        self._require_sound(loss, x, at)
        self._require_finite(penalty, norm, x, at)
        self._note(numbers, samples, step)

    def _note(self, numbers: Sequence[float], samples: int, step: str) -> None:
        loss, penalty, score, norm = numbers
        scored = math.isfinite(score)  # a batch of equal targets has no r2, and one of no weight no accuracy
        parts = (loss, penalty, score if scored else 0.0, norm, 1.0, float(scored))
        self.sums = [total + part * samples for total, part in zip(self.sums, parts, strict=True)]
        self.loss = loss

    def _evaluate(self, network: nn.Module, source: Source, prefix: str = "") -> dict[str, float]:
        """Figures of a whole part, without label smoothing; ``seen`` says of how many samples."""
        if isinstance(source, Samples):
            self.seen = len(source)
            more = () if source.weight is None else (source.weight,)
            return evaluate(network, source.x, source.y, self.parts.plain, prefix, self.processes, *more)
        found, self.seen = evaluate_loaded(network, source, self.parts.plain, prefix)
        return found

    def _measured(self) -> tuple[Inputs, Tensor, Task] | None:
        """What a share of the rate is measured on."""
        if not isinstance(self.task, Task):
            return None
        x, y, _ = self.data.rows(slice(None)) if isinstance(self.data, Samples) else self.parts.sample
        return x, y, self.task

    def _samples(self) -> Samples:
        assert isinstance(self.data, Samples)
        return self.data

    def _known_task(self) -> Task:
        assert isinstance(self.task, Task)
        return self.task

    def _require_sound(self, loss: float, x: Inputs, at: str) -> None:
        if math.isnan(self.first_loss):
            self.first_loss = loss
        if not math.isfinite(loss) or loss > _EXPLODED * (1 + self.first_loss):
            raise diagnose(self.network, x, "loss", loss, at)

    def _require_finite(self, penalty: float, norm: float, x: Inputs, at: str) -> None:
        for what, number in (("penalty", penalty), ("gradient norm", norm)):
            if not math.isfinite(number):
                raise diagnose(self.network, x, what, number, at)

    def _keep_best(self, record: Epoch) -> None:
        loss = -record.epoch if record.validation_loss is None else record.validation_loss
        if loss < self.best_loss or self._reached(record.validation_score):
            self.best_loss = loss
            self.best = copy.deepcopy((self.average or self.network).state_dict())
            self.history.best_epoch = record.epoch

    def _reached(self, score: float | None) -> bool:
        target = self.settings.target_score
        return target is not None and score is not None and score >= target

    def _note_stop(self, record: Epoch) -> None:
        patience = self.settings.patience
        if self._reached(record.validation_score):
            self.history.stopped = f"the target {self.settings.target_score:g} was reached"
        elif patience is not None and record.epoch - self.history.best_epoch >= patience:
            self.history.stopped = f"no better validation loss in {patience} epochs"
