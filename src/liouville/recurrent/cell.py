r"""A cell: one step of a scheme through a field that an input drives, with one weight for all of time.

    State_t = Phi_h(State_{t-1}; theta with b + W u_t in place of every bias b)

A run over the inputs u_1 ... u_T is a run of an engine whose layers are the steps, so the engines' one meaning (the
same map, the same gradients) and their memory hold over time.
"""

from __future__ import annotations

__all__ = ["Cell"]

import functools
import math
from collections.abc import Callable
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn

from liouville.backprop import Backprop, Stored
from liouville.backprop.contract import is_autocast
from liouville.backprop.gate import admit
from liouville.compilers import is_hollow, is_recorded
from liouville.fields import DrivenField, PerLayer, VectorField, driven
from liouville.fields.given import bind
from liouville.fields.once import theta_of
from liouville.flow import require_tensor
from liouville.precision import FLOATS, require_autocast
from liouville.schemes import Scheme, State


class Cell(nn.Module):
    r"""One step in time: (input, state) -> state, called like `torch.nn.GRUCell`.

    The state is one tensor, the parts of the scheme's state side by side: y = (p, q) for a splitting scheme, the pair
    (y_{t-1}, y_t) for a two-step scheme. ``hidden_size`` is its width.

    Args:
        input_size: the width of u.
        field: a field of one layer that states its biases: Hamiltonian, pair, antisymmetric, second-order, residual.
        scheme: the discretisation.
        h: the step, > 0.
        input_scale: how far an input of variance 1 moves each bias at the start, W u: `liouville.fields.driven`.
        generator: random generator of W; torch's default stream if None.

    Shapes: input (B, input_size) or (input_size,), state (B, hidden_size) or (hidden_size,), zero by default; the
    result is shaped like the state.

    Raises:
        ValueError: if an input cannot drive the field, the scheme does not fit it, or h is not positive.

    Examples:
        >>> import liouville as lv
        >>> cell = Cell(3, lv.PairField(8, layers=1), lv.SymplecticEuler(), h=0.1)
        >>> cell(torch.randn(5, 3)).shape
        torch.Size([5, 8])
    """

    def __init__(
        self,
        input_size: int,
        field: VectorField,
        scheme: Scheme,
        h: float,
        *,
        input_scale: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        _require_step(h)
        self.driven: DrivenField = driven(field, input_size, scale=input_scale, generator=generator)
        scheme.check(self.driven)
        self.scheme: Scheme = scheme
        self.h = float(h)
        self.sizes = self._sizes()
        self.watchers: tuple[Callable[..., None], ...] = ()  # told (cell, u, state, tau, end, states) after every run

    @property
    def field(self) -> VectorField:
        """The field that the input drives."""
        return self.driven.field

    @property
    def input_size(self) -> int:
        """The width of u."""
        return self.driven.inputs

    @property
    def hidden_size(self) -> int:
        """The width of the state, all parts together."""
        return sum(self.sizes)

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        """One step: the state after it."""
        require_tensor(input)
        if input.dim() not in (1, 2):
            raise ValueError(
                f"a cell takes one step, (B, {self.input_size}) or ({self.input_size},), got an input of shape "
                f"{tuple(input.shape)}; a recurrent layer takes whole sequences."
            )
        u = input if input.dim() == 2 else input[None]
        self.require_fits(u)
        state = self.state(hx if hx is None or input.dim() == 2 else hx[None], u)
        end = self.run(u[None], state, None, Stored(), traces=False)[0]
        return end if input.dim() == 2 else end[0]

    def state(self, hx: Tensor | None, u: Tensor) -> Tensor:
        """``hx``, (B, hidden_size), or zeros, after a check that it fits u, (..., B, inputs)."""
        shape = (u.shape[-2], self.hidden_size)
        if hx is None:
            return u.new_zeros(shape, dtype=self._dtype)
        if not isinstance(hx, Tensor) or hx.shape != shape:
            got = tuple(hx.shape) if isinstance(hx, Tensor) else type(hx).__name__
            raise ValueError(f"the state must be one tensor of shape {shape} here, got {got}.")
        if hx.dtype != self._dtype and not is_autocast(u.device.type):
            raise ValueError(f"the weights are {self._dtype} and the state is {hx.dtype}; convert it with .to(dtype).")
        return hx

    def run(
        self, u: Tensor, state: Tensor, tau: Tensor | None, engine: Backprop, *, traces: bool
    ) -> tuple[Tensor, Tensor | None]:
        """The state after the steps, (B, hidden_size), and, if wanted, the states after each, (T, B, hidden_size).

        Args:
            u: (T, B, input_size).
            state: the state before the first step.
            tau: lengths of the steps in units of h, (T, 1 or B, 1); all are 1 if None.
            engine: runs the steps and differentiates them.
            traces: whether the states after each step are wanted.
        """
        given = (PerLayer(u),) if tau is None else (PerLayer(u), PerLayer(tau.to(u.dtype)))
        run: Any
        run, theta = bind(self.driven.in_run(), theta_of(self.driven), given, {}, len(u))
        parts = tuple(state.split(self.sizes, -1))
        admit(run, self.scheme.final(run, parts), type(theta)(*(w[0] for w in theta)))
        if is_recorded():
            engine = engine.recorded()
        elif is_hollow(u):
            engine = Stored()
        states = None
        if traces:
            parts, states = engine.trajectory(self.scheme, run, parts, theta, self.h)
        else:
            parts = engine.run(self.scheme, run, parts, theta, self.h)
        end = torch.cat(parts, -1)
        for watch in self.watchers:
            watch(self, u, state, tau, end, states)
        return end, states

    def require_fits(self, u: Tensor) -> None:
        """Raise a `ValueError` unless the last axis and the dtype of u fit the weights."""
        if u.shape[-1] != self.input_size:
            raise ValueError(
                f"expected {self.input_size} inputs on the last axis, got an input of shape {tuple(u.shape)}."
            )
        if u.dtype not in FLOATS:
            raise ValueError(f"expected a floating-point input of 16, 32 or 64 bits, got {u.dtype}; use .float().")
        if is_autocast(u.device.type):
            require_autocast((u.dtype, self._dtype), u.device.type)
        elif u.dtype != self._dtype:
            raise ValueError(f"the weights are {self._dtype} and the input is {u.dtype}; convert one with .to(dtype).")

    @property
    def _dtype(self) -> torch.dtype:
        return next(self.driven.parameters()).dtype

    def margin(self) -> float:
        """h times a bound of the fastest rate of the present weights; compare ``scheme.stability_limit``.

        Raises:
            NotImplementedError: if the field states no rate.
        """
        with torch.no_grad():
            return self.h * float(self.driven.rate(self.driven.theta()).max())

    @functools.cached_property
    def holds(self) -> bool:
        """Whether a step of length 0 changes nothing, so that steps may be left out: after every one-step scheme."""
        with torch.no_grad():
            like = self.driven.theta()[0]
            u, tau = like.new_zeros(1, 1, self.input_size), like.new_zeros(1, 1, 1)
            state = torch.linspace(-1, 1, self.hidden_size).to(like)[None]
            return bool((self.run(u, state, tau, Stored(), traces=False)[0] - state).abs().max() < 1e-3)

    @torch.no_grad()
    def _sizes(self) -> list[int]:
        field: Any = self.field
        theta = field.theta()
        zeros = theta[0].new_zeros(1, field.features)
        parts: State = self.scheme.init(field, zeros, type(theta)(*(w[0] for w in theta)), self.h)
        return [part.shape[-1] for part in parts]

    def extra_repr(self) -> str:
        return f"scheme={self.scheme}, h={self.h:.4g}"


def _require_step(h: Any) -> None:
    if isinstance(h, bool) or not isinstance(h, Real) or not 0 < h < math.inf:  # type: ignore[operator]
        raise ValueError(f"h must be a positive, finite step, got {h!r}.")
