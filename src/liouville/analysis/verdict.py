r"""A diagnosis of a network in one sentence: do its gradients vanish, explode or lose directions with depth?"""

from __future__ import annotations

__all__ = ["gradient_verdict"]

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from liouville.analysis.precise import precisely
from liouville.analysis.spectra import singular_spectra


@precisely
@torch.no_grad()
def gradient_verdict(sensitivities: Tensor | Sequence[Tensor], *, threshold: float = 1e-3) -> str:
    """A sentence about the matrices of `backward_sensitivity`: measured sizes, and their rate of change with depth.

    The gradient vanishes where a sample's ||dState_N/dState_j||_2 falls below ``threshold``, explodes where one rises
    above its inverse, and loses directions where neither happens but the smallest singular value is below it. This
    is not a guarantee, not even for other samples.

    Args:
        sensitivities: (N + 1, *batch, n, n) for a flow, or the list for a chain.
        threshold: in (0, 1).

    Examples:
        >>> shrinking = torch.stack([0.1 ** (4 - j) * torch.eye(2)[None] for j in range(5)])
        >>> gradient_verdict(shrinking)[:41]
        'the gradient vanishes: ||dy_4/dy_j||_2 is'
    """
    if isinstance(sensitivities, nn.Module):
        raise TypeError(f"expected the matrices that backward_sensitivity gives, got {type(sensitivities).__name__}.")
    spectra = [singular_spectra(M).flatten(0, -2) for M in sensitivities]
    norms = torch.stack([s[:, 0] for s in spectra])
    N = len(norms) - 1
    measured = (
        f"||dy_{N}/dy_j||_2 is {float(norms.min()):.2g} to {float(norms.max()):.2g} over all j and samples, "
        f"{float(norms[0].median()):.2g} in the median at j = 0 (a factor {_rate(norms):.3g} per layer)"
    )
    low = min(float(s[:, -1].min()) for s in spectra)
    if not norms.isfinite().all():
        layer = max(j for j in range(N + 1) if not norms[j].isfinite().all())
        return f"the sensitivity is not finite from y_{layer} on: some layer after it overflows."
    if norms.min() < threshold:
        share = 100 * float((norms.amin(0) < threshold).double().mean())
        return f"the gradient vanishes: {measured}, in {share:.0f} % of the samples below {threshold:g}."
    if norms.max() > 1 / threshold:
        share = 100 * float((norms.amax(0) > 1 / threshold).double().mean())
        return f"the gradient explodes: {measured}, in {share:.0f} % of the samples above {1 / threshold:g}."
    if low < threshold:
        return (
            f"the gradient keeps its size but loses directions: {measured}, the smallest singular value is {low:.2g}."
        )
    return f"the gradient survives these samples: {measured}, no singular value below {low:.2g}."


def _rate(norms: Tensor) -> float:
    """The N-th root of the median norm at j = 0 over that at N, which is 1."""
    return float((norms[0].median() / norms[-1].median()) ** (1 / max(1, len(norms) - 1)))
