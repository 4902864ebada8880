r"""`GradientMonitor`: does the gradient reach the first layers? Its norm by depth, while the network trains.

Backward through the layers the loss gradient is multiplied by one Jacobian after another; where the product decays or
grows exponentially, the first layers get no gradient, or nothing but noise. Modules are watched by hooks. A `Flow` may
run on an engine that hides its layers, so its costates dL/dState_j are recomputed by the plain loop for a few samples
of the batch, from the gradient that arrives at its output. Each measurement is timed, and the next one waits until all
of them together are a small part of the time that training took.
"""

from __future__ import annotations

__all__ = ["GradientMonitor", "GradientRecord", "GradientWarning"]

import functools
import math
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.autograd.graph import register_multi_grad_hook
from torch.utils.hooks import RemovableHandle

from liouville.analysis import gradient_norms
from liouville.analysis.overtime import gradient_norms_over_time
from liouville.analysis.sensitivity import costates, lengths
from liouville.analysis.states import has_samples
from liouville.flow import Flow
from liouville.recurrent import Cell
from liouville.train.callback import Callback


class GradientWarning(UserWarning):
    """The gradient vanishes or explodes with depth."""


@dataclass(frozen=True)
class GradientRecord:
    """One measurement: ``norms`` of dL/dy_j, the first layer's first; ``step`` counts from 1."""

    step: int
    norms: tuple[float, ...]

    @property
    def ratio(self) -> float:
        """First norm over last: how much of the gradient arrives; NaN where there is none at the end."""
        return self.norms[0] / self.norms[-1] if self.norms[-1] else math.nan


class GradientMonitor(Callback):
    r"""Watches ||dL/dy_j|| by depth and says in one sentence when the gradient vanishes or explodes.

    Use it as a callback of `fit`, or as a context around a loop of your own: ``with GradientMonitor(network) as
    monitor:``. A step is one forward pass with gradients.

    Args:
        network: what to watch; not needed for `fit`, which hands it over.
        layers: the modules to watch in the order of depth; by default the network's flows, with all their layers, and
            cells, over time, or the parts of an ``nn.Sequential``. Watched of a module is the gradient at its output.
        threshold: a ratio of first to last norm below it is called vanishing, above its inverse exploding.
        samples: how many samples of a batch are followed through a flow, of those whose gradient is not zero.
        cost: the largest share of the time since the start to spend; the first measurement is made regardless.

    ``records`` has every `GradientRecord`; ``flags`` the sentences, each also given as a `GradientWarning` when it
    first applies.

    Raises:
        ValueError: if there are no flows and no ``layers``.

    Examples:
        >>> import liouville as lv
        >>> network = lv.classifier("h2", inputs=2, classes=2, features=4, layers=64, T=6.4)
        >>> with GradientMonitor(network) as monitor:
        ...     network(torch.randn(10, 2)).square().mean().backward()
        >>> len(monitor.records[0].norms), monitor.flags
        (65, [])
    """

    def __init__(
        self,
        network: nn.Module | None = None,
        *,
        layers: Sequence[nn.Module] | None = None,
        threshold: float = 1e-6,
        samples: int = 16,
        cost: float = 0.03,
    ) -> None:
        if not 0 < threshold < 1:
            raise ValueError(f"threshold must lie in (0, 1), got {threshold}.")
        self.network, self.layers = network, layers
        self.threshold, self.samples, self.cost = threshold, samples, cost
        self.records: list[GradientRecord] = []
        self.flags: list[str] = []
        self.seconds = 0.0
        self.step = 0
        self._known: set[str] = set()
        self._modules: list[nn.Module] = []
        self._handles: list[RemovableHandle | _Watch] = []  # the first is there for every step
        self._seen: dict[int, Tensor] = {}
        self._separate: dict[int, bool] = {}  # by flow: whether its samples can be followed one by one
        self._spent = self._price = 0.0  # seconds: in this measurement, and what one takes

    def on_train_start(self, network: nn.Module) -> None:
        self.network = network
        self.__enter__()

    def on_train_end(self) -> None:
        self.__exit__()

    def __enter__(self) -> Self:
        self._modules = _layers_of(self.network, self.layers)
        self._start = time.perf_counter()
        first = self._modules[0]
        if isinstance(first, Cell):
            self._handles = [_Watch(first, self._begin_over_time)]
        else:
            self._handles = [first.register_forward_pre_hook(self._begin)]
        return self

    def __exit__(self, *_: Any) -> None:
        self._finish()
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _begin(self, *_: Any) -> None:
        """A new step: what the last one showed is written down, and whether to look at this one decided."""
        if not torch.is_grad_enabled():
            return
        self._finish()
        self.step += 1
        begin = time.perf_counter()
        if self.step > 1 and self.seconds + self._price > self.cost * (begin - self._start):
            return
        for i, module in enumerate(self._modules):  # for this step alone: a module with a hook is slower
            if isinstance(module, Cell):
                self._handles.append(_Watch(module, functools.partial(self._over_time, i)))
            else:
                self._handles.append(module.register_forward_hook(functools.partial(self._forward, i)))
        self._spent = time.perf_counter() - begin

    def _forward(self, i: int, module: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> None:
        if not isinstance(output, Tensor) or not output.requires_grad:
            return
        begin = time.perf_counter()
        flow = (module, inputs[0].detach()) if isinstance(module, Flow) else None
        output.register_hook(functools.partial(self._backward, i, flow))
        self._spent += time.perf_counter() - begin

    def _begin_over_time(self, *run: Any) -> None:
        """The same for a cell, after its run."""
        self._begin()
        if len(self._handles) > 1:
            self._over_time(0, *run)

    def _over_time(self, i: int, cell: Cell, u: Tensor, state: Tensor, tau: Any, end: Tensor, along: Any) -> None:
        """After a run of a cell: look when the gradients of its last state and of its outputs are known."""
        found = [x for x in (end, along) if x is not None and x.requires_grad]
        if not found:
            return
        run = cell, u.detach(), state.detach(), tau

        def back(gradients: Sequence[Tensor | None]) -> None:
            begin = time.perf_counter()
            given = iter(gradients)
            at = [next(given) if x is not None and x.requires_grad else None for x in (end, along)]
            self._seen[i] = self._by_step(*run, *at)
            self._spent += time.perf_counter() - begin

        register_multi_grad_hook(found, back)

    def _by_step(
        self, cell: Cell, u: Tensor, state: Tensor, tau: Tensor | None, end: Tensor | None, along: Tensor | None
    ) -> Tensor:
        """||dL/dState_t|| over the batch, from a few sequences."""
        B = state.shape[0]
        some = torch.linspace(0, B - 1, min(self.samples, B)).round().long().to(u.device)
        gradients = [None if g is None else g.detach()[..., some, :] for g in (end, along)]
        tau = tau if tau is None or tau.shape[1] == 1 else tau[:, some]
        norms = gradient_norms_over_time(cell, u[:, some], state[some], tau, *gradients)
        return norms.norm(dim=1) * math.sqrt(B / len(some))

    def _backward(self, i: int, flow: tuple[Flow, Tensor] | None, gradient: Tensor) -> None:
        begin = time.perf_counter()
        gradient = gradient.detach()
        self._seen[i] = gradient.norm()[None] if flow is None else self._by_layer(*flow, gradient)
        self._spent += time.perf_counter() - begin

    def _by_layer(self, flow: Flow, y: Tensor, gradient: Tensor) -> Tensor:
        """||dL/dState_j|| over the batch, from a few samples that the loss reads; all where none can be told."""
        if id(flow) not in self._separate:
            self._separate[id(flow)] = has_samples(flow, y)
        if not self._separate[id(flow)]:
            with torch.random.fork_rng(devices=[]):
                return lengths(costates(flow, y, gradient), y.dim())
        read = (gradient != 0).flatten(1).any(1).nonzero().flatten()  # NaN is not 0
        if not len(read):
            return gradient.new_zeros(flow.layers + 1)
        some = read[torch.linspace(0, len(read) - 1, min(self.samples, len(read))).round().long().to(read.device)]
        weight = next(flow.parameters(), y)
        with torch.random.fork_rng(devices=[]):  # a field that draws noise must not move the run's stream
            norms = gradient_norms(flow, y[some].to(weight.dtype), gradient[some].to(weight.dtype))
        return norms.flatten(1).norm(dim=1) * math.sqrt(len(read) / len(some))

    def _finish(self) -> None:
        begin = time.perf_counter()
        for handle in self._handles[1:]:
            handle.remove()
        del self._handles[1:]
        if not self._seen:
            return
        norms = torch.cat([self._seen[i].double().cpu() for i in sorted(self._seen)])
        self._seen = {}
        self.records.append(GradientRecord(self.step, tuple(norms.tolist())))
        self._judge(self.records[-1])
        self._price = self._spent + time.perf_counter() - begin
        self.seconds += self._price

    def _judge(self, record: GradientRecord) -> None:
        first, last = record.norms[0], record.norms[-1]
        if not all(math.isfinite(x) for x in record.norms):
            what, how = "is not finite", "somewhere on its way back"
        elif not last:
            what, how = "is zero", "at the last layer already: the loss reads nothing of this network"
        elif record.ratio < self.threshold:
            what, how = "vanishes", f"from {last:.2g} after the last layer to {first:.2g} at the first"
        elif record.ratio > 1 / self.threshold:
            what, how = "explodes", f"from {last:.2g} after the last layer to {first:.2g} at the first"
        else:
            return
        sentence = f"step {record.step}: the gradient {what}, {how} ({len(record.norms)} states seen)."
        self.flags.append(sentence)
        if what not in self._known:
            self._known.add(what)
            warnings.warn(sentence, GradientWarning, stacklevel=2)


def _layers_of(network: nn.Module | None, layers: Sequence[nn.Module] | None) -> list[nn.Module]:
    if layers is not None:
        found = list(layers)
    elif network is None:
        raise ValueError("nothing to watch: give the network, or hand the monitor to fit(..., callbacks=[monitor]).")
    else:
        found = [part for part in network.modules() if isinstance(part, Flow | Cell)]
        found = found or (list(network) if isinstance(network, nn.Sequential) else [])
    if not found:
        raise ValueError(
            f"{type(network).__name__} has no flows and is no nn.Sequential; give layers=[...], the modules in the "
            "order of depth."
        )
    return found


class _Watch:
    """Tell ``watcher`` of every run of a cell, until removed."""

    def __init__(self, cell: Cell, watcher: Callable[..., None]) -> None:
        self.cell, self.watcher = cell, watcher
        cell.watchers = (*cell.watchers, watcher)

    def remove(self) -> None:
        self.cell.watchers = tuple(w for w in self.cell.watchers if w is not self.watcher)
