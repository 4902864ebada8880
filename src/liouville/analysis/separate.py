r"""Whether the samples of a batch are independent, so that each sample has its own Jacobian.

The samples are evaluated again in reverse order, each between two other samples, x'_0, x_{B-1}, x'_1, ..., x_0, x'_B,
with one more at the end, so that reversing the batch does not map one sample to another either. A function of one
sample gives every x_k the same value there, and no gradient passes between the x_k and the x'_k, in either direction.
So the test detects a sum over the samples before (or after), a mean over all, and a dependence on a sample's position
or on their number; a batch of one is tested together with others too.
"""

from __future__ import annotations

__all__ = ["is_own", "require_separate", "require_separate_layers"]

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from liouville.backprop import slices
from liouville.fields.base import Theta, VectorField
from liouville.flow import Flow
from liouville.schemes import State

_LEAK = 30.0  # roundings of a gradient, as left by a maximum over the batch that is subtracted and added again
_NO_JACOBIAN = "so that no sample has its own Jacobian"


def require_separate_layers(flow: Flow, theta: Theta, parts: Sequence[Tensor], shape: torch.Size) -> None:
    """Raise unless the layers treat the samples of ``parts``, (N + 1, B, ...), independently; ``shape``: of the input.

    A field of this library is one formula for all layers, so only the first layer is tested; in modules of a user the
    weights of any layer may couple samples.
    """
    looked_at = 1 if is_own(flow.field) else flow.layers
    axes = parts[0].dim() - 2
    for j, theta_j in zip(range(looked_at), slices(theta, flow.layers), strict=False):
        before, after = (tuple(part[k] for part in parts) for k in (j, j + 1))
        require_separate(
            f"layer {j} of {type(flow.field).__name__}",
            lambda *s, t=theta_j, j=j: flow.scheme.step(flow.field.at_layer(j), s, t, flow.h),
            before,
            after,
            f"of the axes {tuple(shape)} of the input {axes} {'is' if axes == 1 else 'are'} taken to be one sample; "
            f"where more belong to one, state sample_ndim={axes + 1}, as in ShearField(..., sample_ndim={axes + 1})",
        )


def require_separate(what: str, function: Callable[..., Any], parts: State, values: State, cure: str) -> None:
    """Raise unless ``function`` gives each sample of ``parts``, (B, ...) each, its ``values`` independently of others.

    Raises:
        ValueError: if a sample's value depends on the others or on its position, or another batch size fails.
    """
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        leaves = [x.requires_grad_() for x in _among_strangers(parts)]
        try:
            out = _tuple(function(*leaves))
        except ArithmeticError:
            return  # an implicit layer without a solution there, which proves nothing
        except Exception as error:
            raise ValueError(
                f"{what} cannot be evaluated on {len(leaves[0])} samples of shape {tuple(parts[0].shape[1:])} at once, "
                f"which a result per sample needs ({type(error).__name__}: {_first_line(error)}); {cure}."
            ) from error
        moved = any(_differs(o[1:-1:2].flip(0), v) for o, v in zip(out, values, strict=True))
        if moved or _leaks(out, leaves):
            raise ValueError(
                f"{what} couples the samples of a batch, {_NO_JACOBIAN} (next to other samples one "
                f"has another value, or a gradient passes between them); {cure}."
            )


@torch.no_grad()
def _among_strangers(parts: State) -> list[Tensor]:
    """(2 B + 2, ...): x'_0, x_{B-1}, x'_1, ..., x_0, x'_B, x'_{B+1}; x' has the size and mostly the signs of x."""
    generator, B = torch.Generator().manual_seed(0), len(parts[0])
    finite = torch.cat([x[x.isfinite()].flatten() for x in parts])
    size = float(finite.double().square().mean().sqrt()) if len(finite) else 0.0
    mixed = []
    for x in parts:
        scale, shift = (torch.rand(B + 2, *x.shape[1:], generator=generator).to(x) for _ in range(2))
        strangers = torch.cat((x, x[:1], x[-1:])).roll(1, 0) * (0.5 + scale) + 0.2 * (size or 1.0) * (shift - 0.5)
        both = torch.stack((strangers[:B], x.flip(0)), 1).flatten(0, 1)
        mixed.append(torch.cat((both, strangers[B:])).detach())
    return mixed


@torch.no_grad()
def _differs(found: Tensor, value: Tensor) -> bool:
    """Whether a finite number has changed by more than rounding."""
    if found.shape != value.shape:
        return True
    finite = value.isfinite()
    eps = torch.finfo(value.dtype).eps
    # an implicit layer is solved to 10 eps of numbers below 1, so that at rest nothing but that residual remains
    tolerance = eps**0.5 * float(torch.where(finite, value, 0.0).abs().amax()) + 100 * eps
    return bool((finite & ~((found - value).abs() <= tolerance)).any())


def _leaks(out: Sequence[Tensor], leaves: Sequence[Tensor]) -> bool:
    """Whether a gradient passes from some samples to the samples between them."""
    generator = torch.Generator().manual_seed(1)
    reached = [o for o in out if o.requires_grad]
    for start in (0, 1) if reached else ():
        cotangents = []
        for o in reached:
            # one sign per number in all samples, so that a mean over the batch does not cancel
            g = torch.randn(o.shape[1:], generator=generator).sign() * (0.5 + torch.rand(o.shape, generator=generator))
            g[1 - start :: 2] = 0.0
            cotangents.append(g.to(o))
        gradients = torch.autograd.grad(reached, leaves, cotangents, retain_graph=start == 0, materialize_grads=True)
        size = max(float(torch.where(g.isfinite(), g, 0.0).abs().amax()) for g in gradients)
        limit = _LEAK * torch.finfo(gradients[0].dtype).eps * size
        if any(bool((g[1 - start :: 2].isfinite() & (g[1 - start :: 2].abs() > limit)).any()) for g in gradients):
            return True
    return False


def is_own(field: VectorField) -> bool:
    """Whether the velocities are formulas of this library, which are the same in all layers."""
    inner: Any = field
    while isinstance(inner, VectorField):
        makers = [c for c in type(inner).__mro__ if vars(c).keys() & {"forward", "p_dot", "q_dot", "gradient"}]
        if not all(c.__module__.startswith(("liouville.", "torch.")) for c in makers) or hasattr(inner, "skeletons"):
            return False
        inner = getattr(inner, "field", None) or getattr(inner, "force", None)
    return True


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no message"])[0]


def _tuple(out: Any) -> tuple[Tensor, ...]:
    return out if isinstance(out, tuple) else (out,)
