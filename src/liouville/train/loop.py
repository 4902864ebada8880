r"""`fit`: minimise the learning problem by stochastic gradients, choose by validation, read the test part once."""

from __future__ import annotations

__all__ = ["evaluate", "fit", "optimizer_of"]

import copy
import math
import time
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from liouville.data import Split
from liouville.fields.once import one_step
from liouville.flow import flows_of
from liouville.network import evaluation_mode
from liouville.processes.sharing import Processes
from liouville.randomness import seeded
from liouville.train.alternate import Features, fresh_head, require_network, train_head
from liouville.train.augment import augmented
from liouville.train.callback import Callback
from liouville.train.diagnosis import DivergenceError, diagnose
from liouville.train.history import Epoch, History
from liouville.train.optimizers import Adam, AdamW
from liouville.train.progress import Progress, silent
from liouville.train.rates import groups_of, measured, norm_in_units, rate_of
from liouville.train.settings import Settings
from liouville.train.trainable import Task, require_trainable, task_of

_EVALUATION_BATCH = 1000
_EXPLODED = 1e3  # a loss this many times the first one (plus 1) has diverged, though it is still a number


def fit(
    network: nn.Module,
    split: Split,
    settings: Settings | None = None,
    *,
    progress: Progress = silent,
    on_epoch: Callable[[History], None] | None = None,
    callbacks: Sequence[Callback] = (),
    optimizer: torch.optim.Optimizer | None = None,
    test: bool = True,
    processes: Processes = Processes(),
) -> History:
    """Train ``network`` in place and return what happened; it carries the weights of the best validation loss.

    Args:
        network: any module with scores as output; a `Network` for penalties on its flows and for alternation.
        split: training data, of which ``settings.validation`` is held out, and test data, read once at the end.
        settings: everything that can be chosen; ``Settings()`` if None.
        progress: where to show it; ``liouville.train.progress.Terminal()`` draws a bar.
        on_epoch: called with the history after every epoch.
        callbacks: told of the start, of every step and epoch, and of the end; `GradientMonitor` is one.
        optimizer: one that an earlier run left, of these weights: its state is carried on, and the weights that
            the run begins with may be returned; ``optimizer_of(network, settings)`` if None.
        test: False leaves the test part unread.
        processes: those that share every batch; each calls ``fit`` with equal arguments (but for ``progress``,
            ``on_epoch`` and ``callbacks``), and each ends with the same weights and history.

    Returns:
        The `History`. Two runs with the same arguments agree bitwise on one machine with one number of threads.

    Raises:
        ValueError: if network and data do not fit each other, or every weight is frozen.
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
    with seeded(processes.seed(settings.seed), next(network.parameters()).device):
        return _Run(network, split, settings, progress, on_epoch, callbacks, optimizer, test, processes).train()


@torch.no_grad()
def evaluate(
    network: nn.Module, x: Tensor, y: Tensor, task: Task, prefix: str = "", processes: Processes = Processes()
) -> dict[str, float]:
    """Loss and score over a whole set, in evaluation mode: ``{prefix}loss`` and ``{prefix}accuracy`` or ``r2``."""
    with evaluation_mode(network):
        scores = torch.cat([processes.map(network, part) for part in x.split(_EVALUATION_BATCH)])
    return {f"{prefix}loss": float(task.loss(scores, y)), f"{prefix}{task.score_name}": task.score(scores, y)}


class _Run:
    """One training run: the pieces that a step needs, made once."""

    def __init__(
        self,
        network: nn.Module,
        split: Split,
        settings: Settings,
        progress: Progress,
        on_epoch: Callable[[History], None] | None,
        callbacks: Sequence[Callback],
        optimizer: torch.optim.Optimizer | None,
        test: bool,
        processes: Processes,
    ) -> None:
        like = next(network.parameters())
        self.callbacks, self.processes = callbacks, processes
        self.network, self.settings, self.progress, self.on_epoch = network, settings, progress, on_epoch
        if settings.bfloat16 and like.dtype is torch.float16:
            raise ValueError(
                "Settings(bfloat16=True) runs float32 weights in bfloat16, got float16; use network.float()."
            )
        self.task = task_of(network, split)
        if (settings.shift or settings.warp) and split.x_train.ndim != 4:
            raise ValueError(
                f"shift and warp move images (samples, channels, height, width); the inputs of {split.name} have the "
                f"shape {tuple(split.x_train.shape)}. Leave both at 0."
            )
        self.generator = torch.Generator().manual_seed(settings.seed)
        self.split = split.to(device=like.device, dtype=like.dtype)
        self.validation: tuple[Tensor, Tensor] | None = None
        self.x, self.y = self.split.x_train, self.split.y_train
        if settings.validation:
            held = self.split.holdout(settings.validation, self.generator)
            self.x, self.y = held.x_train, held.y_train
            self.validation = held.x_validation, held.y_validation
        self.penalty = settings.penalty.in_units(settings.rates != "plain")
        self.steps = math.ceil(len(self.x) / settings.batch_size)
        self.optimizer = optimizer or optimizer_of(network, settings, (self.x, self.y, self.task))
        self.carried, self.test = optimizer is not None, test
        self.layers = sum(flow.layers for flow in flows_of(network))
        self.scheduler = _scheduler(self.optimizer, settings, self.steps)
        self.average = copy.deepcopy(network) if settings.ema_decay else None
        self.history = History(self.task.score_name)
        self.shared = processes.wrapped(Features(require_network(network)) if settings.alternate else network)
        self.first_loss = math.nan
        self.at = "the start"
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

    def _train(self) -> History:
        start = time.perf_counter()
        self._start()
        self.network.train()
        for callback in self.callbacks:
            callback.on_train_start(self.network)
        with self.progress.run(self.settings.epochs, self.steps, self.task.score_name) as bar:
            try:
                self._epochs(bar)
            finally:
                self.network.load_state_dict(self.best)
        return self._finish(start)

    def _epochs(self, bar: Progress.Bar) -> None:
        for epoch in range(1, self.settings.epochs + 1):
            if self.history.stopped:
                return
            record = self._epoch(epoch, bar)
            self._keep_best(record)
            self.history.epochs.append(record)
            bar.epoch(record)
            if self.on_epoch:
                self.on_epoch(self.history)
            for callback in self.callbacks:
                callback.on_train_epoch_end(self.history)
            self._note_stop(record)
        self.history.stopped = self.history.stopped or "all epochs done"

    def _finish(self, start: float) -> History:
        self.network.eval()
        if self.settings.alternate:
            train_head(self.network, self.x, self.y, self.task, self.settings, self.generator)
        metrics = self._evaluate(self.network, self.x, self.y, "train_")
        self._require_sound(metrics["train_loss"], self.x[: self.settings.batch_size])
        if self.validation:
            metrics |= self._evaluate(self.network, *self.validation, "validation_")
        metrics |= {"seconds": time.perf_counter() - start, "work": self.history.work}
        if self.test:
            metrics |= self._evaluate(self.network, self.split.x_test, self.split.y_test, "test_")
        self.history.metrics = metrics
        return self.history

    def _start(self) -> None:
        """What the validation part says of the initial weights, where the run may end with them."""
        if not self.validation or not (self.carried or self.settings.target is not None):
            return
        self.history.start = self._evaluate(self.network, *self.validation, "validation_")
        self.history.work += self.layers * len(self.validation[0])
        if self.carried:
            self.best_loss = self.history.start["validation_loss"]
        if self._reached(self.history.start[f"validation_{self.task.score_name}"]):
            self.history.stopped = f"the target {self.settings.target:g} was reached before the first epoch"

    def _epoch(self, epoch: int, bar: Progress.Bar) -> Epoch:
        start, lr = time.perf_counter(), rate_of(self.optimizer)
        sums = torch.zeros(4, dtype=torch.float64)
        for step, (x, y) in enumerate(self._batches(), 1):
            self.at = f"step {step} of epoch {epoch}"
            loss, penalty, score, norm = self._step(x, y)
            if self.average:
                taken = step + (epoch - 1) * self.steps
                _move_average(self.average, self.network, min(self.settings.ema_decay, (1 + taken) / (10 + taken)))
            sums += torch.tensor([loss, penalty, score, norm], dtype=torch.float64) * len(x)
            bar.step(loss)
            for callback in self.callbacks:
                callback.on_train_batch_end(loss)
        loss, penalty, score, norm = (sums / len(self.x)).tolist()
        held: dict[str, float] = {}
        x, y = self.validation or (x, y)  # without a validation part, the last batch stands guard
        after = self._evaluate(self.average or self.network, x, y)
        self._require_sound(after["loss"], x)
        work = 2 * self.layers * len(self.x)
        if self.validation:
            held, work = after, work + self.layers * len(x)
        self.history.work += work
        return Epoch(
            epoch=epoch,
            loss=loss,
            penalty=penalty,
            score=score,
            gradient_norm=norm,
            lr=lr,
            validation_loss=held.get("loss"),
            validation_score=held.get(self.task.score_name),
            layers=self.layers,
            work=work,
            seconds=time.perf_counter() - start,
        )

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.randperm(len(self.x), generator=self.generator).to(self.x.device)
        for rows in order.split(self.settings.batch_size):
            yield augmented(self.x[rows], self.settings.shift, self.settings.warp, self.generator), self.y[rows]

    def _step(self, x: Tensor, y: Tensor) -> tuple[float, float, float, float]:
        weights = [p for group in self.optimizer.param_groups for p in group["params"]]
        for p in weights:
            p.grad = None
        with one_step():
            scores = self._scores(x, y)
            penalty = self.penalty(self.network)
        loss = self.task.loss(scores, y)
        value, weight = float(loss.detach()), float(penalty.detach())
        self._require_sound(value, x)
        self.processes.backward(loss, penalty)
        norm = self._clipped()
        for what, number in (("penalty", weight), ("gradient norm", norm)):
            if not math.isfinite(number):
                raise diagnose(self.network, x, what, number, self.at)
        self.optimizer.step()
        self.scheduler.step()
        return value, weight, self.task.score(scores.detach(), y), norm

    def _clipped(self) -> float:
        """The norm of the whole gradient, which is then shortened to the largest one allowed."""
        groups = self.optimizer.param_groups
        norm = norm_in_units(groups)
        if self.settings.max_grad_norm:
            gradients = [p.grad for group in groups for p in group["params"] if p.grad is not None]
            torch._foreach_mul_(gradients, (self.settings.max_grad_norm / (norm + 1e-6)).clamp(max=1.0))
        return float(norm)

    def _scores(self, x: Tensor, y: Tensor) -> Tensor:
        """The network's scores; with alternation, those of a head made afresh for this batch's features."""
        autocast = torch.autocast(x.device.type, torch.bfloat16, enabled=self.settings.bfloat16)
        if not self.settings.alternate:
            with autocast:
                return self.processes.map(self.shared, x).to(x.dtype)
        with autocast:
            features = self.processes.map(self.shared, x)
        network = require_network(self.network)
        fresh_head(network, features.detach().to(x.dtype), y, self.task, self.settings)
        with autocast:
            return network.head(features).to(x.dtype)

    def _evaluate(self, network: nn.Module, x: Tensor, y: Tensor, prefix: str = "") -> dict[str, float]:
        return evaluate(network, x, y, self.task, prefix, self.processes)

    def _require_sound(self, loss: float, x: Tensor) -> None:
        if math.isnan(self.first_loss):
            self.first_loss = loss
        if not math.isfinite(loss) or loss > _EXPLODED * (1 + self.first_loss):
            raise diagnose(self.network, x, "loss", loss, self.at)

    def _keep_best(self, record: Epoch) -> None:
        loss = -record.epoch if record.validation_loss is None else record.validation_loss
        if loss < self.best_loss or self._reached(record.validation_score):
            self.best_loss = loss
            self.best = copy.deepcopy((self.average or self.network).state_dict())
            self.history.best_epoch = record.epoch

    def _reached(self, score: float | None) -> bool:
        target = self.settings.target
        return target is not None and score is not None and score >= target

    def _note_stop(self, record: Epoch) -> None:
        patience = self.settings.patience
        if self._reached(record.validation_score):
            self.history.stopped = f"the target {self.settings.target:g} was reached"
        elif patience is not None and record.epoch - self.history.best_epoch >= patience:
            self.history.stopped = f"no better validation loss in {patience} epochs"


def optimizer_of(
    network: nn.Module, settings: Settings, data: tuple[Tensor, Tensor, Task] | None = None
) -> torch.optim.Optimizer:
    """The optimiser that the settings name, for the weights of a network; the head has groups of its own, and so have
    weights of different units (`liouville.train.rates`).

    Args:
        network, settings: as for `fit`.
        data: inputs, targets and task, which ``rates="share"`` measures its rate on.

    Raises:
        ValueError: a share is asked for without data.
    """
    lr = settings.lr
    if settings.rates == "share":
        if data is None:
            raise ValueError('rates="share" measures its rate on data; give optimizer_of data=(x, y, task).')
        lr = measured(network, *data, settings)
    last = getattr(network, "head", None)
    head = {id(p) for p in last.parameters()} if isinstance(last, nn.Module) else set()
    weights = [p for p in network.parameters() if p.requires_grad]
    groups = groups_of(network, [p for p in weights if id(p) not in head], lr, settings)
    if not settings.alternate:
        groups += groups_of(network, [p for p in weights if id(p) in head], settings.head_lr or lr, settings)
    if settings.optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=0.9)
    betas = (0.9, settings.beta2)
    if settings.optimizer == "adamw":
        return AdamW(groups, betas, settings.weight_decay)
    return Adam(groups, betas)


def _scheduler(
    optimizer: torch.optim.Optimizer, settings: Settings, steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    total = settings.epochs * steps
    if settings.schedule == "one-cycle":
        return torch.optim.lr_scheduler.LambdaLR(optimizer, one_cycle(total, settings.warmup))
    if settings.schedule == "epoch-count":
        return torch.optim.lr_scheduler.LambdaLR(optimizer, epoch_count(steps, (0.9, settings.beta2)))
    if settings.schedule == "cosine":
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total)
    if settings.schedule == "step":
        return torch.optim.lr_scheduler.StepLR(optimizer, steps, gamma=0.8)
    return torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0, total_iters=0)


def one_cycle(total: int, warmup: float) -> Callable[[int], float]:
    """Step -> factor of the rate: a cosine from 1/25 up to 1 in the first ``warmup`` of the steps, then one to 0."""
    up = warmup * total

    def factor(step: int) -> float:
        if step < up:
            return 1 - (1 - 1 / 25) * (1 + math.cos(math.pi * step / up)) / 2
        return (1 + math.cos(math.pi * min(1.0, (step - up) / max(1.0, total - up)))) / 2

    return factor


def epoch_count(steps: int, betas: tuple[float, float]) -> Callable[[int], float]:
    r"""Step -> factor of the rate that makes Adam's bias corrections count epochs instead of steps.

    Adam divides by 1 - beta_1^k and sqrt(1 - beta_2^k) in its k-th step; with the factor, by the same of e, the number
    of the epoch from 1. With ``steps`` = 32 a steady gradient is followed at 1.7 times the rate at the end of the first
    epoch, at 0.25 times in the fiftieth.
    """

    def factor(step: int) -> float:
        k, e = step + 1, step // steps + 1
        first, second = ((1 - beta**k) / (1 - beta**e) for beta in betas)
        return first / math.sqrt(second)

    return factor


@torch.no_grad()
def _move_average(average: nn.Module, network: nn.Module, factor: float) -> None:
    for slow, fast in zip(average.parameters(), network.parameters(), strict=True):
        slow.lerp_(fast, 1 - factor)
    for held, now in zip(average.buffers(), network.buffers(), strict=True):
        held.copy_(now)
