r"""Doubling a network while it is trained: its weights, and what the optimiser has learned of them.

With every weight twice, theta(t) stays the same function of time and dL/dtheta_j halves, since each of two layers has
half the step. So Adam's first moment is halved and its second quartered (and its epsilon halved), and SGD's momentum is
halved and its rate doubled: the next step then moves theta(t) as the coarse network's would have.
"""

from __future__ import annotations

__all__ = ["refine"]

import torch
from torch import Tensor, nn

from liouville.fields.base import VectorField
from liouville.fields.prolongation import prolongation
from liouville.flow import flows_of

_POWERS = {"momentum_buffer": 1, "exp_avg": 1, "exp_avg_sq": 2, "max_exp_avg_sq": 2}  # of the gradient
_CARRIED = (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW)


def refine(network: nn.Module, optimizer: torch.optim.Optimizer | None = None, how: str = "constant") -> None:
    """Double the layers of every flow in ``network``, in place, and carry the optimiser's state across.

    Args:
        network: any module with flows in it; an average of the weights that is kept beside it, such as
            ``torch.optim.swa_utils.AveragedModel``, is doubled by a second call, without the optimiser.
        optimizer: SGD, Adam or AdamW over weights of the network, or None. Weights with a layer axis get moments
            interpolated like the weights, those of lift, head and layers that share one weight keep theirs. A group
            that holds both kinds is split in two: the doubled weights stay, the others move into a new group.
        how: as for `liouville.Flow.refined`.

    Raises:
        ValueError: if the network has no flow, ``how`` is unknown, or the optimiser is of another kind.

    Examples:
        >>> import liouville as lv
        >>> network = lv.classifier("h2", inputs=2, classes=2, features=4, layers=8, T=1.0)
        >>> refine(network)
        >>> network.body.layers
        16
    """
    flows = flows_of(network)
    if not flows:
        raise ValueError("the network has no flow to refine.")
    if optimizer is not None and not isinstance(optimizer, _CARRIED):
        raise ValueError(
            f"the state of {type(optimizer).__name__} cannot be carried to twice the layers; use SGD, Adam or AdamW, "
            "or refine without it and make a new optimiser."
        )
    fields: dict[VectorField, VectorField] = {}
    for flow in flows:
        if flow.field not in fields:
            fields[flow.field] = flow.field.refined(how)
    renewed: dict[nn.Parameter, nn.Parameter] = {}
    for coarse, fine in fields.items():
        renewed |= zip(coarse.parameters(), fine.parameters(), strict=True)
    for flow in flows:
        flow.field = fields[flow.field]
    if optimizer is not None:
        _carry(optimizer, renewed, how)


def _carry(optimizer: torch.optim.Optimizer, renewed: dict[nn.Parameter, nn.Parameter], how: str) -> None:
    doubled = {fine for coarse, fine in renewed.items() if coarse.shape != fine.shape}
    for coarse, fine in renewed.items():
        state = optimizer.state.pop(coarse, None)
        if state is not None:
            optimizer.state[fine] = {k: _moment(k, v, coarse, fine, how) for k, v in state.items()}
    for group in list(optimizer.param_groups):
        weights = [renewed.get(w, w) for w in group["params"]]
        layered, others = [w for w in weights if w in doubled], [w for w in weights if w not in doubled]
        group["params"] = layered or others
        if layered and others:
            optimizer.add_param_group({**group, "params": others})
        if layered:
            _rescale(optimizer, group)


def _moment(name: str, value: Tensor | None, coarse: Tensor, fine: Tensor, how: str) -> Tensor | None:
    if value is None or name not in _POWERS or coarse.shape == fine.shape:
        return value  # the count of steps, and what did not change
    return prolongation(how)(value).mul_(0.5 ** _POWERS[name])


def _rescale(optimizer: torch.optim.Optimizer, group: dict) -> None:
    """What makes the step of halved gradients the same step: everything that is added to them is halved, too."""
    if isinstance(optimizer, torch.optim.SGD):
        for rate in ("lr", "initial_lr", "swa_lr"):
            if rate in group:
                group[rate] *= 2
    else:
        group["eps"] /= 2
    if not any(kind.__name__ == "AdamW" for kind in type(optimizer).__mro__):  # whose decay is no part of the gradient
        group["weight_decay"] /= 2
