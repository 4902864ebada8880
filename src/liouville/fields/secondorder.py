r"""Second-order networks y'' = f(y; theta): a first-order field used as a force."""

from __future__ import annotations

__all__ = ["SecondOrderField"]

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from liouville.fields.base import Degrees, Lipschitz, Spectrum, Theta, VectorField, degrees_of, is_closed, spectrum_of
from liouville.fields.partitioned import PartitionedField
from liouville.fields.residual import SemidefiniteField, SymmetricField
from liouville.fields.skew import canonical

_REAL = (SymmetricField, SemidefiniteField)  # whose eigenvalues are real


class SecondOrderField(PartitionedField):
    r"""q'' = f(q; theta), written as p' = f(q), q' = p with p the velocity; the input and the output are q.

    Properties: every splitting scheme on it has determinant 1 in (p, q); with f = -grad V (`SymmetricField`) it is
    symplectic with the canonical J. Symplectic Euler on it is exactly the leapfrog recursion
    q_{j+1} = 2 q_j - q_{j-1} + h^2 f(q_j).

    Reference: Haber & Ruthotto 2017 (1705.03341), sec. 4.2 and 4.3; Chang et al. 2018 (1709.03698).

    Args:
        force: the field f; the papers use `SymmetricField` and `SemidefiniteField`.
        start: the initial velocity. ``"rest"``: p_0 = 0, right for `Verlet`, and the authors' code for leapfrog
            (order 1 there). ``"half"``: p_0 = -h f(q_0)/2, the velocity half a step before the start, which makes
            symplectic Euler of order 2 in q; for no other scheme.

    Raises:
        ValueError: if ``start`` is neither; from a `Flow`, if the scheme does not carry (p, q) or fit the start.

    Examples:
        >>> from liouville.fields import SymmetricField
        >>> SecondOrderField(SymmetricField(3, layers=8)).features
        3
    """

    def __init__(self, force: VectorField, *, start: Literal["rest", "half"] = "rest") -> None:
        if start not in ("rest", "half"):
            raise ValueError(f'start must be "rest" (p_0 = 0) or "half" (p_0 = -h f(q_0)/2), got {start!r}.')
        VectorField.__init__(self, force.features, force.layers)
        self.p_features = force.features
        self.force = force
        self.start = start

    @property
    def feature_axis(self) -> int:  # type: ignore[override]
        return self.force.feature_axis

    @property
    def spectrum(self) -> Spectrum:
        """The square roots of the force's eigenvalues, which are real and not positive in both forces of the papers."""
        return "imaginary" if isinstance(self.force, _REAL) and spectrum_of(self.force) == "damped" else "any"

    @property
    def degrees(self) -> Degrees | None:  # type: ignore[override]
        """The force's, but half its rate's: a frequency is the square root of a rate."""
        own = degrees_of(self.force)
        return None if own is None or own.rate % 2 else own._replace(rate=own.rate // 2)

    @property
    def biases(self) -> tuple[tuple[str, ...], ...]:  # type: ignore[override]
        """The force's."""
        return (*self.force.biases, ())

    @property
    def weight_unit(self) -> float:  # type: ignore[override]
        """The force's own."""
        return self.force.weight_unit

    def matrices(self) -> list[Tensor]:
        """The force's."""
        return self.force.matrices() if self.degrees else []

    @property
    def sample_ndim(self) -> int | None:  # type: ignore[override]
        """The bound of the force."""
        return self.force.sample_ndim

    def theta(self) -> Theta:
        """The force's weights."""
        return self.force.theta()

    def check_arguments(self, args: Sequence[Any], context: Mapping[str, Any]) -> None:
        self.force.check_arguments(args, context)

    def p_dot(self, q: Tensor, theta_j: Theta, *args: Any, **context: Any) -> Tensor:
        """p' = f(q)."""
        return self.force(q, theta_j, *args, **context)

    def q_dot(self, p: Tensor, theta_j: Theta, *args: Any, **context: Any) -> Tensor:
        """q' = p."""
        return p

    def p_jacobian(self, q: Tensor, theta: Theta) -> Tensor | None:
        """The force's."""
        return self.force.jacobian(q, theta) if is_closed(self.force, "jacobian") else None

    def q_jacobian(self, p: Tensor, theta: Theta) -> Tensor | None:
        """I."""
        return torch.eye(p.shape[-1]).to(p).expand(*p.shape, -1) if self.feature_axis == -1 else None

    def check_scheme(self, scheme: Any) -> None:
        """The scheme must carry p and q; the start "half" needs symplectic Euler."""
        stages = getattr(scheme, "stages", None)
        if stages is None:
            raise ValueError(
                "a second-order field needs a splitting scheme, which carries (p, q), since its output is only q; "
                f"got {type(scheme).__name__}. Use SymplecticEuler, Verlet or Yoshida4."
            )
        if self.start == "half" and stages != (("p", 1.0), ("q", 1.0)):
            raise ValueError(
                'start="half" gives the velocity half a step before the start, which only SymplecticEuler expects; '
                f'got {type(scheme).__name__}. Use start="rest" with it.'
            )

    def enter(self, y: Tensor, p_dot: Callable[[Tensor], Tensor], h: float) -> tuple[Tensor, Tensor]:
        """q_0 = y, and p_0 = 0 or -h f(q_0)/2."""
        if self.start == "rest":
            return torch.zeros_like(y), y
        return -0.5 * h * p_dot(y), y

    def entry(self, lipschitz: Lipschitz, h: float) -> Tensor:
        """(1 + (h L/2)^2)^(1/2) for the start "half", (-h f(y)/2, y)."""
        if self.start == "rest":
            return super().entry(lipschitz, h)
        return (1 + (0.5 * h * lipschitz.parts[0]).square()).sqrt()

    def leave(self, p: Tensor, q: Tensor) -> Tensor:
        """The network reads q."""
        return q

    def split(self, y: Tensor) -> tuple[Tensor, Tensor]:
        raise ValueError(
            "the output of a second-order network is only q, which does not determine the velocity p; "
            "use flow.final_state and flow.inverse_state, which carry (p, q)."
        )

    def structure(self, theta: Theta) -> Tensor | None:
        """The canonical J of (p, q), (2n, 2n), where the force has a potential."""
        return canonical(2 * self.features).to(theta[0]) if hasattr(self.force, "potential") else None

    def energy(self, state: Tensor | tuple[Tensor, ...], theta_j: Theta) -> Tensor:
        """H = |p|^2/2 + V(q) of (p, q), one number per sample; needs a force with a potential (`SymmetricField`)."""
        if not hasattr(self.force, "potential"):
            raise NotImplementedError(f"no energy: {type(self.force).__name__} has no potential; use SymmetricField.")
        p, q = self.halves(state)
        axes = self.sample_ndim or -self.feature_axis
        kinetic = 0.5 * p.square().sum(tuple(range(-axes, 0)))
        force: Any = self.force
        return kinetic + force.potential(q, theta_j)

    def rate(self, theta: Theta) -> Tensor:
        """omega = (rate of the force)^(1/2): the fastest frozen frequency."""
        return self.force.rate(theta).sqrt()

    def lipschitz(self, theta: Theta) -> Lipschitz:
        """The force's L, and 1; (f' + I)/2 off the diagonal is at most (1 + L)/2."""
        (L,) = self.force.lipschitz(theta).parts
        return Lipschitz((L, torch.ones_like(L)), 0.5 * (1 + L))

    def extra_repr(self) -> str:
        return f"start={self.start!r}"
