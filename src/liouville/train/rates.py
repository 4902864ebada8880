r"""Learning rates: the parameter groups of an optimiser, in the units of the network or as the weights are.

With ``rates="scaled"`` a rate is that of w / u, u the unit of the weight w (`liouville.units.units_of`), and so are
weight decay, Adam's epsilon and the norm of the gradient: training is the same for every final time. Adam's steps do
not depend on the size of the gradient, so the rate of w is u times that of w / u; that of SGD is u^2 times.
"""

from __future__ import annotations

__all__ = ["MOST", "Gradients", "group_of", "groups_of", "measured", "rate_of"]

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from liouville.answering import evaluation_mode
from liouville.network import Network
from liouville.precision import in_working_precision
from liouville.sequences import Inputs
from liouville.task import Task
from liouville.train.settings import Settings
from liouville.units import units_of

MOST = 0.1
"""The highest rate, in units, that a share may ask for: where the first gradient is weak, it asks for too much."""
_WIDE = (torch.float32, torch.float64)
_PROBE = 1e-3  # the rate at which a share is measured
_SAMPLES = 500  # it is measured on
_EPS = 1e-8  # Adam's


def groups_of(
    network: nn.Module, weights: Iterable[nn.Parameter], lr: float, settings: Settings
) -> list[dict[str, Any]]:
    """A group for the weights of each unit, the one with the most weights first."""
    units = {} if settings.rates == "plain" else units_of(network)
    found: dict[float, list[nn.Parameter]] = {}
    for p in weights:
        found.setdefault(units.get(p, 1.0), []).append(p)
    return [group_of(found[u], u, lr, settings) for u in sorted(found, key=lambda u: -sum(map(torch.numel, found[u])))]


def group_of(weights: Sequence[Tensor], unit: float, lr: float, settings: Settings) -> dict[str, Any]:
    """What an optimiser is given for weights of one unit."""
    group: dict[str, Any] = {"params": list(weights), "lr": lr * unit, "unit": unit}
    if settings.optimizer == "sgd":
        return group | {"lr": lr * unit**2}
    group["eps"] = _EPS / unit
    return group | ({"weight_decay": settings.weight_decay / unit} if settings.optimizer == "adamw" else {})


class Gradients:
    """The gradients of the weights of an optimiser, which are looked up once for all steps."""

    def __init__(self, groups: Sequence[Mapping[str, Any]]) -> None:
        self.groups = [(list(group["params"]), float(group.get("unit", 1.0))) for group in groups]
        self.weights: list[nn.Parameter] = [p for weights, _ in self.groups for p in weights]
        kinds = {(type(p), p.device, p.dtype) for p in self.weights}
        self._alike = all(type_ is nn.Parameter and dtype in _WIDE for type_, _, dtype in kinds) and len(kinds) == 1

    def now(self) -> list[Tensor]:
        """Those that there are."""
        return [p.grad for p in self.weights if p.grad is not None]

    def norm(self) -> Tensor:
        """The norm of the whole gradient by w / u."""
        found: list[Tensor] = []
        for weights, unit in self.groups:
            own = [p.grad for p in weights if p.grad is not None]
            if not self._alike:
                own = [in_working_precision(gradient) for gradient in own]
            found += own if unit == 1.0 or not own else torch._foreach_mul(own, unit)
        if self._alike and found:  # what torch's function does for them, without its search for kinds
            return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(found)))
        return nn.utils.get_total_norm(found)


def rate_of(optimizer: torch.optim.Optimizer) -> float:
    """The rate of its first group, in units."""
    group = optimizer.param_groups[0]
    power = 2 if isinstance(optimizer, torch.optim.SGD) else 1
    return group["lr"] / group.get("unit", 1.0) ** power


def measured(network: nn.Module, x: Inputs, y: Tensor, task: Task, settings: Settings) -> float:
    """The rate at which Adam's first step moves y_N by ``settings.lr`` times its size; `MOST` at most.

    One forward and one backward pass on some samples, and two more forwards: the first step moves every weight of the
    flows, and of lift and connectors, by its rate, in the direction of the gradient's sign.

    Raises:
        ValueError: for a network that is no `Network`, whose features are not known.
    """
    if not isinstance(network, Network):
        raise ValueError(
            f'rates="share" asks how far y_N moves, which is known of a liouville Network; got '
            f'{type(network).__name__}. Use rates="scaled".'
        )
    trial = copy.deepcopy(network)
    x, y = x[:_SAMPLES], y[:_SAMPLES]
    with evaluation_mode(trial):
        loss = task.loss(trial(x), y)
        weights = [p for part in (trial.lift, trial.body) for p in part.parameters() if p.requires_grad]
        gradients = torch.autograd.grad(loss, weights, allow_unused=True)
        units = units_of(trial)
        with torch.no_grad():
            before = trial.features(x)
            for p, gradient in zip(weights, gradients, strict=True):
                if gradient is not None:
                    p.sub_(_PROBE * units.get(p, 1.0) * gradient.sign())
            moved = float(in_working_precision(trial.features(x) - before).norm())
            size = float(in_working_precision(before).norm())
    if not moved > 0 or not size > 0:
        return MOST
    return min(MOST, settings.lr * _PROBE * size / moved)
