r"""The fused engine: the whole depth in one native call, forwards and backwards."""

from __future__ import annotations

__all__ = ["Fused"]

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling

from liouville.backprop.base import Backprop, Stored, require_depth
from liouville.backprop.contract import (
    STORED,
    is_autocast,
    is_plain_autograd,
    require_plain_autograd,
)
from liouville.backprop.drift import warn_once
from liouville.backprop.range import Range, Reach, reach
from liouville.backprop.twice import are_differentiated, by_the_plain_loop
from liouville.compilers import is_watched
from liouville.fields.base import Theta, VectorField
from liouville.fields.stochastic import original
from liouville.kernels import euler, ops, shears
from liouville.kernels.library import library
from liouville.kernels.sequence import SequencePlan, over_time, planned
from liouville.kernels.table import EulerPlan, ShearPlan
from liouville.schemes.base import Scheme, State

Plan = ShearPlan | EulerPlan | SequencePlan
_PLAIN = (Tensor, torch.nn.Parameter)


@dataclass(frozen=True, repr=False)
class Fused(Backprop):
    r"""Run a native CPU kernel: a block of samples passes through all layers, and back, without leaving the cache.

    Equal to `Stored` in value and gradient, to rounding. For splitting schemes it keeps only the last state, like
    `Reversible`, and rebuilds the others by inverting the shears, so its memory does not grow with N beyond the
    weights' gradients; the error of the rebuilt first state is measured in every backward pass. For forward Euler,
    which has no inverse, it keeps every 16th state and recomputes the states between. Threads follow
    `torch.get_num_threads()`, and the bits are the same for a fixed number of them. float32 and float64 only. Gradients
    that are to be differentiated again (``create_graph=True``) are the plain loop's, with its memory.

    Args:
        exact: keep the state on the fixed-point grid of ``Reversible(exact=True)``: inversion then restores every bit
            at any depth, which every backward pass verifies. Only for splitting schemes.

    Raises:
        NoKernelError: (a `ValueError`) from a `Flow`, if there is no kernel for its scheme and field; it lists the
            available pairs.
        RuntimeError: if the package was installed without its native library.
        ValueError: for another dtype or device, under autocast, and under torch.func transforms; from a `Flow` for
            ``exact=True`` with forward Euler.
        ArithmeticError: in exact mode, if the state leaves the range of the coarsest grid, as for `Reversible`.

    Examples:
        >>> import liouville as lv
        >>> lv.Flow(lv.SeparableHamiltonianField(4, layers=8), lv.SymplecticEuler(), T=1.0, backprop=Fused()).backprop
        Fused()
    """

    exact: bool = False

    def check(self, scheme: Scheme, field: VectorField) -> None:
        self._plan(scheme, field.in_run(0), None)

    def _plan(self, scheme: Scheme, field: VectorField, device: str | None) -> Plan:
        plan = planned(scheme, field, device)
        if self.exact and (isinstance(plan, EulerPlan) or (isinstance(plan, SequencePlan) and not plan.inverts)):
            raise ValueError(
                f"Fused(exact=True) inverts every step in the backward pass, but {type(scheme).__name__} has no "
                "inverse; use Fused(), which recomputes its states from some that it keeps, Stored() or Checkpointed()."
            )
        return plan

    def recorded(self) -> Backprop:
        """An operator, where the format can hold one: torch.export and make_fx can, TorchScript and ONNX cannot."""
        portable = torch.onnx.is_in_onnx_export() or (not is_dynamo_compiling() and torch._C._is_tracing())
        return super().recorded() if self.exact or portable else self

    def run(self, scheme: Scheme, field: VectorField, state: State, theta: Theta, h: float) -> State:
        return self.run_plan(self._plan(scheme, field, state[0].device.type), scheme, field, state, theta, h)

    def trajectory(
        self, scheme: Scheme, field: VectorField, state: State, theta: Theta, h: float
    ) -> tuple[State, Tensor]:
        plan = self._plan(scheme, field, state[0].device.type)
        if not isinstance(plan, SequencePlan):
            return super().trajectory(scheme, field, state, theta, h)
        final, trajectory = self._over_time(plan, scheme, field, state, theta, h, traces=True)
        return final, cast(Tensor, trajectory)

    def _over_time(
        self,
        plan: SequencePlan,
        scheme: Scheme,
        field: VectorField,
        state: State,
        theta: Theta,
        h: float,
        traces: bool,
    ) -> tuple[State, Tensor | None]:
        require_depth(theta, field.layers)
        _require_supported(state, theta)

        def warn(drift: float, dtype: torch.dtype) -> None:
            if drift > torch.finfo(dtype).eps ** 0.5:
                _warn(original(field), drift, dtype)

        def run() -> tuple[State, Tensor | None]:
            return over_time(plan, scheme, field, state, theta, h, traces=traces, exact=self.exact, warn=warn)

        broken = self.exact and not traces and torch.compiler.is_compiling()  # as in `run_plan`
        return torch.compiler.disable(run)() if broken else run()

    def run_plan(self, plan: Plan, scheme: Scheme, field: VectorField, state: State, theta: Theta, h: float) -> State:
        """The same, with a given plan of the pair."""
        if isinstance(plan, SequencePlan):
            return self._over_time(plan, scheme, field, state, theta, h, traces=False)[0]
        require_depth(theta, field.layers)
        _require_supported(state, theta)
        axis = field.feature_axis
        batch = state[0].shape[:axis]
        parts = state if len(batch) == 1 else tuple(x.reshape(-1, *x.shape[axis:]) for x in state)
        if isinstance(plan, EulerPlan):
            final: Sequence[Tensor] = (_euler(plan, scheme, field, h, parts[0], theta),)
        elif self.exact:
            if not torch.compiler.is_compiling() and _needs_dispatcher((*parts, *theta)):  # it is not an operator
                return Stored().run(scheme, field, state, theta, h)
            # a declared graph break under a compiler: the tensors kept between the passes are not an operator's output
            exactly = torch.compiler.disable(_exactly) if torch.compiler.is_compiling() else _exactly
            final = exactly(plan, scheme, field, h, parts, theta)
        else:
            final = _shears(plan, scheme, field, h, parts, theta)
        return tuple(final) if len(batch) == 1 else tuple(x.reshape(*batch, *x.shape[1:]) for x in final)


class Exactly(NamedTuple):
    """The grid of an exact run, and the function that gives the range of the run."""

    range: Range
    found: Callable[[], Reach]


class _Run(NamedTuple):
    """A run without its tensors."""

    plan: Any
    scheme: Scheme
    field: VectorField
    h: float
    kind: Callable[..., Theta]
    exact: Exactly | None = None

    @property
    def layers(self) -> int:
        return self.field.layers

    def again(
        self, state: State, theta: Sequence[Tensor], costate: Sequence[Tensor], needed: Sequence[bool]
    ) -> list[Tensor | None]:
        """The gradients, by the plain loop."""
        return by_the_plain_loop(self.scheme, self.field, self.h, state, self.kind(*theta), costate, needed)


def _shears(
    plan: ShearPlan, scheme: Scheme, field: VectorField, h: float, parts: State, theta: Theta
) -> Sequence[Tensor]:
    """The run through torch's dispatcher, only through autograd, or through neither."""
    if _needs_dispatcher(tensors := (*parts, *theta)):
        return ops.shear_flow(plan, h, field.layers, parts, theta)
    if _needs_gradient(tensors):
        return _Direct.apply(_Run(plan, scheme, field, h, type(theta)), *tensors)
    return shears.forward(plan, h, field.layers, parts, theta)[0]


def _euler(plan: EulerPlan, scheme: Scheme, field: VectorField, h: float, y: Tensor, theta: Theta) -> Tensor:
    """The same for forward Euler."""
    weights = plan.weights(theta)
    if _needs_dispatcher(tensors := (y, *weights)):
        return ops.euler_flow(plan.activation, h, field.layers, y, weights)
    if _needs_gradient(tensors):
        return _DirectEuler.apply(_Run(plan, scheme, field, h, type(theta)), y, len(weights), *weights, *theta)
    return euler.forward(plan.activation, h, field.layers, y, weights, False)[0]


def _needs_dispatcher(tensors: Sequence[Tensor]) -> bool:
    return is_watched() or any(type(t) not in _PLAIN for t in tensors)


def _needs_gradient(tensors: Sequence[Tensor]) -> bool:
    return torch.is_grad_enabled() and any(t.requires_grad for t in tensors)


def _exactly(plan: ShearPlan, scheme: Any, field: VectorField, h: float, state: State, theta: Theta) -> State:
    """The run on the grid that the input determines."""
    exact = Exactly(Range(state, state[0].dtype), lambda: reach(scheme, field, state, theta, h))
    exact.range.settle(exact.found)
    return _Direct.apply(_Run(plan, scheme, field, h, type(theta), exact), *state, *theta)


def _known() -> Reach:
    """Stands for the range function once the run is known to stay within its grid."""
    return Reach(0.0, 0.0)


class _Direct(torch.autograd.Function):
    """The operator of `liouville.kernels.ops` without torch's dispatcher, which would take longer than a short run."""

    @staticmethod
    def forward(ctx: Any, run: _Run, p: Tensor, q: Tensor, *theta: Tensor) -> Any:
        plan, h, layers, exact = run.plan, run.h, run.layers, run.exact
        grid = exact.range if exact else None
        final, ctx.checksum, left = shears.forward(plan, h, layers, (p, q), theta, grid)
        while exact is not None and left:
            exact.range.widen(exact.found)
            final, ctx.checksum, left = shears.forward(plan, h, layers, (p, q), theta, grid)
        ctx.save_for_backward(p, q, *final, *theta)
        ctx.run = run._replace(exact=exact._replace(found=_known)) if exact else run
        ctx.parts = len(final)  # the state, and in exact mode its whole numbers
        return tuple(final[:2])

    @staticmethod
    def backward(ctx: Any, *costate: Tensor) -> tuple[Tensor | None, ...]:
        require_plain_autograd(costate)
        saved, run, needed = ctx.saved_tensors, ctx.run, ctx.needs_input_grad[1:]
        start, final, theta = saved[:2], saved[2 : 2 + ctx.parts], saved[2 + ctx.parts :]
        if are_differentiated():
            return None, *run.again(start, theta, costate, needed)
        exact = run.exact
        kept = {"exact": exact.range, "integers": final[2:]} if exact else {"start": start}
        gradients, drift, checksum = shears.backward(
            run.plan, run.h, run.layers, final[:2], costate, theta, needed, **kept
        )
        if exact and checksum != ctx.checksum:
            raise RuntimeError("the exact inversion did not restore every bit; please report it, and use Reversible().")
        if not exact and drift > torch.finfo(start[0].dtype).eps ** 0.5:
            _warn(original(run.field), drift, start[0].dtype)
        return None, *gradients


class _DirectEuler(torch.autograd.Function):
    """The same for forward Euler; ``weights`` are made of ``theta``, from which only the plain loop starts."""

    @staticmethod
    def forward(ctx: Any, run: _Run, y: Tensor, number: int, *tensors: Tensor) -> Tensor:
        weights = tensors[:number]
        out, kept = euler.forward(run.plan.activation, run.h, run.layers, y, weights, True)
        ctx.save_for_backward(y, kept, *tensors)
        ctx.run, ctx.number = run, number
        return out

    @staticmethod
    def backward(ctx: Any, costate: Tensor) -> tuple[Tensor | None, ...]:
        require_plain_autograd((costate,))
        y, kept, *tensors = ctx.saved_tensors
        run, weights, theta = ctx.run, tensors[: ctx.number], tensors[ctx.number :]
        of_y, _, *others = ctx.needs_input_grad[1:]
        if are_differentiated():
            g, *found = run.again((y,), theta, (costate,), [of_y, *others[ctx.number :]])
            return None, g, None, *(None,) * ctx.number, *found
        needed = [of_y, *others[: ctx.number]]
        g, *found = euler.backward(run.plan.activation, run.h, run.layers, y, kept, costate, weights, needed)
        return None, g, None, *found, *(None,) * len(theta)


def _warn(field: VectorField, drift: float, dtype: torch.dtype) -> None:
    warn_once(
        field,
        f"the states that Fused rebuilt have lost half of the digits of {str(dtype).removeprefix('torch.')} by the "
        f"first layer (off by {drift:.1g} of their size there), and the gradients with them. Use Fused(exact=True), "
        "Checkpointed(), or smaller steps.",
    )


def _require_supported(state: State, theta: Theta) -> None:
    """Raise a `ValueError` that names `Stored` where the kernel would compute something else or cannot run."""
    tensors = (*state, *theta)
    dtype = state[0].dtype
    if is_autocast(state[0].device.type):
        raise ValueError(f"the fused kernel computes in float32 or float64 and not under autocast; {STORED}.")
    if dtype not in shears.TYPES or any(t.dtype is not dtype for t in tensors):
        found = ", ".join(sorted({str(t.dtype).removeprefix("torch.") for t in tensors}))
        raise ValueError(f"the fused kernel takes float32 or float64, one of them throughout, got {found}; {STORED}.")
    if not all(t.is_cpu for t in tensors):
        found = ", ".join(sorted({t.device.type for t in tensors}))
        raise ValueError(f"the fused kernel runs on the CPU, got tensors on {found}; {STORED}.")
    if torch.compiler.is_compiling():  # the operator looks for its library when it runs
        return
    library()
    if not is_plain_autograd(tensors):
        raise ValueError(f"the fused kernel gives only reverse-mode gradients, not torch.func transforms; {STORED}.")
