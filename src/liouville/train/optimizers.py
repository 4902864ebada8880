r"""torch's fused Adam without what surrounds it: on a small network that takes longer than the step itself.

Every bit is that of ``torch.optim.Adam(fused=True)`` and ``AdamW(fused=True)``; the state is laid out alike, and
schedulers accept it. Left out are closures, profiler marks, and the import of torch's compiler, which ``torch.optim``
makes when a first optimiser is built: a second of every short run.
"""

from __future__ import annotations

__all__ = ["Adam", "AdamW", "optimizer_of"]

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from liouville.sequences import Inputs
from liouville.task import Task
from liouville.train.rates import groups_of, measured
from liouville.train.settings import Settings


class Adam(torch.optim.Adam):
    """Adam (Kingma & Ba, 1412.6980) in one kernel over all weights of a group; weights without a gradient stay.

    Args:
        groups: parameter groups as torch's, each of one dtype on one device.
        betas: decay of the two running means.
        weight_decay: added to the gradient; in `AdamW`, decoupled.

    Examples:
        >>> w = torch.nn.Parameter(torch.ones(2))
        >>> optimizer = Adam([{"params": [w], "lr": 0.5}])
        >>> w.sum().backward()
        >>> optimizer.step()
        >>> [round(x, 4) for x in w.tolist()]
        [0.5, 0.5]
    """

    _kernel = staticmethod(torch._fused_adam_)

    def __init__(
        self, groups: list[dict[str, Any]], betas: tuple[float, float] = (0.9, 0.999), weight_decay: float = 0.0
    ) -> None:
        super().__init__(groups, betas=betas, weight_decay=weight_decay, fused=True)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        inherited: Any = torch.optim.Optimizer.add_param_group
        getattr(inherited, "__wrapped__", inherited)(self, param_group)  # where torch's compiler has its mark

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step, from the gradients that there are."""
        with torch.no_grad():
            for group in self.param_groups:
                pairs = [(p, p.grad) for p in group["params"] if p.grad is not None]
                if pairs:
                    self._move(group, *map(list, zip(*pairs, strict=True)))

    step.hooked = True  # type: ignore[attr-defined]  # keeps torch from wrapping it into profiler marks

    def _move(self, group: dict[str, Any], weights: list[Tensor], gradients: list[Tensor]) -> None:
        states = [self.state[p] or self._begin(p) for p in weights]
        steps = [state["step"] for state in states]
        torch._foreach_add_(steps, 1)
        self._kernel(
            weights,
            gradients,
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            steps,
            lr=group["lr"],
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            amsgrad=False,
            maximize=False,
        )

    def _begin(self, p: Tensor) -> dict[str, Tensor]:
        state = self.state[p]
        state["step"] = torch.zeros((), device=p.device)
        state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(p), torch.zeros_like(p)
        return state


class AdamW(Adam):
    """Adam with the decoupled weight decay of Loshchilov & Hutter, 1711.05101."""

    _kernel = staticmethod(torch._fused_adamw_)


def optimizer_of(
    network: nn.Module, settings: Settings, data: tuple[Inputs, Tensor, Task] | None = None
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
