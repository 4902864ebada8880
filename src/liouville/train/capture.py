r"""A training step that is recorded once, as a CUDA graph, and repeated: the host launches one graph a step.

On a GPU a step through N thin layers takes as long as its thousands of launches. A graph launches all of them at once,
on the same memory each time. So a batch is copied into one place, the rates of the optimiser are numbers on the device,
gradients stay where they are, and what a step says is read where it stands. The first steps of a training run as they
are; the last of them proves that the host waits for nothing. A batch of another size runs as it is, too.
"""

from __future__ import annotations

__all__ = ["CapturedStep", "record", "require_capturable"]

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from liouville.backprop import late
from liouville.fields.stochastic import StochasticField
from liouville.processes.sharing import Processes
from liouville.train.optimizers import Adam
from liouville.train.settings import Settings
from liouville.train.step import Step

_WARM = 3  # steps as they are: trials of the engines, libraries' workspaces, the optimiser's state
Recorder = Callable[[Callable[[], None]], Callable[[], None]]


def record(step: Callable[[], None]) -> Callable[[], None]:
    """What repeats ``step``, recorded as a CUDA graph; recording does not run it."""
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def require_capturable(
    network: nn.Module, optimizer: torch.optim.Optimizer, settings: Settings, processes: Processes, samples: int
) -> None:
    """Raise a `ValueError` that says why where no step of this training can be recorded."""
    device, why = next(network.parameters()).device, ""
    noisy = [type(m).__name__ for m in network.modules() if isinstance(m, StochasticField)]
    if device.type != "cuda":
        why = f"the network is on the device {device}, and graphs are CUDA's"
    elif noisy:
        why = f"{noisy[0]} draws its noise on the host, so that every step would repeat that of the first"
    elif settings.alternate:
        why = "an alternation makes a fresh head with an optimiser of its own in every step"
    elif processes.size > 1:
        why = f"{processes.size} processes share every batch, and their messages are not recorded"
    elif not isinstance(optimizer, Adam):
        why = "its rate must be a number on the device, which adam and adamw take and others do not"
    elif samples < settings.batch_size:
        why = f"the {samples} samples are no whole batch of {settings.batch_size}, and a graph has one size"
    if why:
        raise ValueError(f"Settings(capture=True) records a step as a CUDA graph and repeats it, but {why}.")


class CapturedStep:
    """`Step.whole`, recorded once it has run a few times.

    Args:
        step: what is run.
        recorder: makes of a function without arguments one that repeats it.

    Raises:
        ValueError: by the call, if the step waits for the device, which a graph cannot record.
    """

    def __init__(self, step: Step, recorder: Recorder | None = None) -> None:
        self.step, self.recorder = step, recorder or record
        self.checks = late.Checks(repeated=True)
        self.taken = 0
        self._repeat: Callable[[], None] | None = None
        self._x: Tensor | None = None
        self._y: Tensor | None = None
        self._row: Tensor | None = None
        self._rates: list[Tensor] = []

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """The step on this batch: its numbers, (4,), to be read whenever."""
        self._set_rates()
        if len(x) != self.step.settings.batch_size:
            return self._run(x, y)
        self.taken += 1
        if self.taken <= _WARM:
            return self._warm(x, y)
        if self._repeat is None:
            self._x, self._y = x.clone(), y.clone()
            self._row = torch.zeros(4, dtype=torch.float64, device=x.device)
            self._repeat = self.recorder(self._recorded)
        assert self._x is not None and self._y is not None and self._row is not None
        self._x.copy_(x)
        self._y.copy_(y)
        self._repeat()
        return self._row.clone()

    def _set_rates(self) -> None:
        """On the device, and for steps that are not recorded as well: a training that goes on has the same bits."""
        groups = self.step.optimizer.param_groups
        if not self._rates:
            device = self.step.weights[0].device
            self._rates = [torch.zeros((), dtype=torch.float32, device=device) for _ in groups]
        for rate, group in zip(self._rates, groups, strict=True):
            rate.fill_(group["lr"])

    def _run(self, x: Tensor, y: Tensor) -> Tensor:
        with _rates_on_device(self.step.optimizer, self._rates):
            return self.step.whole(x, y, keep=True)

    def _checked(self, x: Tensor, y: Tensor) -> Tensor:
        with late.later(self.checks.again()):
            return self._run(x, y)

    def _warm(self, x: Tensor, y: Tensor) -> Tensor:
        """A step on another stream than the usual one, as recording asks for; the last one fails where it waits."""
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side), _refusing_waits() if self.taken == _WARM else contextlib.nullcontext():
            row = self._checked(x, y)
        torch.cuda.current_stream().wait_stream(side)
        return row

    def _recorded(self) -> None:
        """What is recorded: everything that it reads or writes stands where it stood."""
        assert self._x is not None and self._y is not None and self._row is not None
        self._row.copy_(self._checked(self._x, self._y))


@contextlib.contextmanager
def _rates_on_device(optimizer: torch.optim.Optimizer, rates: list[Tensor]) -> Iterator[None]:
    groups: list[dict[str, Any]] = optimizer.param_groups
    numbers = [group["lr"] for group in groups]
    for group, rate in zip(groups, rates, strict=True):
        group["lr"] = rate
    try:
        yield
    finally:
        for group, number in zip(groups, numbers, strict=True):
            group["lr"] = number


@contextlib.contextmanager
def _refusing_waits() -> Iterator[None]:
    """Raise where the host waits for the device."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    except RuntimeError as error:
        if "synchroniz" not in str(error):
            raise
        raise ValueError(
            "Settings(capture=True) records a step as a CUDA graph and repeats it, but this step waits for the "
            "device, as budgets, exact inversion and implicit schemes do; leave capture out, or use Stored()."
        ) from error
    finally:
        torch.cuda.set_sync_debug_mode("default")
