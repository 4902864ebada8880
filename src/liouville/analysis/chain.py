r"""Any chain of modules, seen as a network whose layers are the modules: x_{j+1} = module_j(x_j), axis 0 the batch."""

from __future__ import annotations

__all__ = ["Chain", "chain_jacobians", "chain_sensitivity", "chain_states", "floating", "modules_of"]

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from liouville.analysis.rows import copies, pull_back, repeat, require_memory, rows
from liouville.analysis.separate import require_separate
from liouville.flow import require_tensor

_CURE = "call .eval(), leave it out, or put the batch on axis 0"

Chain = nn.Sequential | nn.ModuleList | Sequence[nn.Module]


def modules_of(chain: Chain) -> list[nn.Module]:
    """The modules of an ``nn.Sequential``, an ``nn.ModuleList`` or a sequence, after checks that each can be analysed.

    Raises:
        ValueError: if it is not a chain, or a module of it is random or couples the samples of a batch.
    """
    if isinstance(chain, nn.Module) and not isinstance(chain, nn.Sequential | nn.ModuleList):
        raise ValueError(
            f"expected a Flow, an nn.Sequential or a sequence of modules, got {type(chain).__name__}; give its layers "
            "in order, for example [network.lift, network.body, network.head]."
        )
    modules = list(chain)
    if not modules or not all(isinstance(m, nn.Module) for m in modules):
        raise ValueError(f"expected one nn.Module or more, got {[type(m).__name__ for m in modules]}.")
    for j, module in enumerate(modules):
        for part in module.modules():
            _require_deterministic(j, part)
    return modules


def chain_states(modules: Sequence[nn.Module], x: Tensor) -> list[Tensor]:
    """x_0 ... x_N, detached.

    Raises:
        ValueError: if a module does not return a floating-point tensor, cannot be differentiated, or returns another
            output for a sample when the rest of the batch changes.
    """
    states = [x.detach()]
    for j, module in enumerate(modules):
        name = f"module {j} ({type(module).__name__})"
        with torch.enable_grad():
            y = module(_own(states[-1].requires_grad_()))
            _require_tensor(name, y, len(x))
            if not y.requires_grad or torch.autograd.grad(y.sum(), states[-1], allow_unused=True)[0] is None:
                raise ValueError(
                    f"the output of {name} has no derivative by its input; leave it out, or start after it (after an "
                    "embedding, for example)."
                )
        states[-1].requires_grad_(False)
        states.append(y.detach())
        require_separate(name, lambda s, m=module: m(_own(s)), (states[-2],), (states[-1],), _CURE)
    return states


def chain_sensitivity(chain: Chain, x: Tensor, memory: int) -> list[Tensor]:
    """dx_N/dx_j of every sample, [(B, n_N, n_j)]: all j by one backward pass over a repeated batch."""
    modules = modules_of(chain)
    states = chain_states(modules, floating(x))
    B, widths = len(x), [s[0].numel() for s in states]
    m = widths[-1]
    require_memory(B * m * sum(widths) * x.element_size(), memory, f"the {len(states)} matrices of {B} samples")
    matrices = [x.new_empty(B, m, n) for n in widths]
    for some in torch.arange(m).split(copies(m, B * sum(widths))):
        inputs = [repeat(states[0], len(some)).requires_grad_()]
        with torch.enable_grad():
            for module in modules:
                inputs.append(module(_own(inputs[-1])))
            last = inputs[-1].flatten(1)
        blocks = pull_back(last, inputs, some, B).split(widths, -1)
        for matrix, block in zip(matrices, blocks, strict=True):
            matrix[:, some] = block
    return matrices


def chain_jacobians(chain: Chain, x: Tensor, memory: int) -> list[Tensor]:
    """dx_{j+1}/dx_j of every sample, [(B, n_{j+1}, n_j)]."""
    modules = modules_of(chain)
    states = chain_states(modules, floating(x))
    widths = [s[0].numel() for s in states]
    size = sum(a * b for a, b in zip(widths[1:], widths, strict=False)) * len(x) * x.element_size()
    require_memory(size, memory, f"the {len(modules)} matrices of {len(x)} samples")
    return [rows(lambda s, m=m: m(_own(s)), s) for m, s in zip(modules, states, strict=False)]


def _own(x: Tensor) -> Tensor:
    """A copy, for a module that works in place (``ReLU(inplace=True)``)."""
    return x.clone()


def floating(x: Tensor) -> Tensor:
    """x, after a check that it holds floating-point samples."""
    require_tensor(x)
    if not len(x.shape) or not x.numel():
        raise ValueError(f"expected at least one sample, got an input of shape {tuple(x.shape)}.")
    if not x.is_floating_point() or x.dim() < 2:
        raise ValueError(
            f"expected floating-point inputs with the batch on axis 0, got {x.dtype} of shape {tuple(x.shape)}; "
            "start after an embedding."
        )
    return x


def _require_deterministic(j: int, part: nn.Module) -> None:
    name = f"module {j} has {type(part).__name__}"
    if isinstance(part, _BatchNorm) and part.running_mean is None:
        raise ValueError(f"{name} without running statistics, which couples the samples of a batch.")
    if isinstance(part, _BatchNorm) and part.training:
        raise ValueError(f"{name} in training mode, which couples the samples of a batch; call .eval() first.")
    drops = part.p if isinstance(part, _DropoutNd) else getattr(part, "dropout", 0.0)
    if part.training and isinstance(drops, float) and drops > 0:
        raise ValueError(f"{name} in training mode, which drops entries at random; call .eval() first.")


def _require_tensor(name: str, y: Any, samples: int) -> None:
    if not isinstance(y, Tensor) or y.dim() == 0 or len(y) != samples:
        what = f"the shape {tuple(y.shape)}" if isinstance(y, Tensor) else type(y).__name__
        raise ValueError(
            f"{name} must give one tensor with a row for each of {samples} samples, got {what}; wrap it in a module "
            "that does."
        )
