"""`check_field`: measures the contract of a vector field."""

from __future__ import annotations

__all__ = ["check_field"]

import copy
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from liouville.backprop import slices
from liouville.backprop.gate import unchanged
from liouville.fields import PartitionedField, StochasticField, VectorField
from liouville.fields.base import Theta, is_closed
from liouville.fields.bound import original
from liouville.fields.given import Given, bind, like
from liouville.fields.hooks import hook_of
from liouville.schemes import State
from liouville.testing.bounds import check_rate_and_lipschitz
from liouville.testing.measure import (
    CANCELLATION,
    EPS,
    fail,
    jacobian,
    near,
    rounding,
    same,
    start,
    velocity,
)


def check_field(
    field: VectorField, y: Tensor | None = None, *, seed: int = 0, arguments: Mapping[str, Any] | None = None
) -> None:
    """Check that ``field`` keeps the contract of `VectorField`, and has the energy, structure and rate that it states.

    ``theta()`` is a NamedTuple of tensors with axis 0 of N or 1, and parameters reach a layer only through it.
    ``forward`` is deterministic, has no side effects, treats samples independently and has the right gradient, and
    ``jacobian``, where given, is its derivative. A partitioned field is (p_dot(q), q_dot(p)). With an ``energy`` H,
    <grad H, f> = 0, and f = J grad H where the field states its ``structure`` J, which is skew and follows theta.
    ``rate``, where stated, bounds the spectral radius of the Jacobian, and ``lipschitz`` the norms of its blocks and
    its symmetric part, at random states and at 0.

    Args:
        field: the field; a copy is examined.
        y: an input for the check; by default three random vectors, or two random images or sequences of width 4.
        seed: seed of the random states.
        arguments: arguments of a run by name, in float64, for a field that takes some; its velocities must then be
            functions of these too, with right gradients.

    Raises:
        AssertionError: with the law that fails, the measured number and a hint.

    Examples:
        >>> from liouville.fields import SeparableHamiltonianField
        >>> check_field(SeparableHamiltonianField(4, layers=3))
    """
    _check_hooks(field)
    generator = torch.Generator().manual_seed(seed)
    field = copy.deepcopy(field).to("cpu", torch.float64).train()
    if y is None:
        sample = field.sample_shape(4)
        y = torch.randn(3 if len(sample) == 1 else 2, *sample, generator=generator, dtype=torch.float64)
    y = y.detach().to("cpu", torch.float64)
    _check_attributes(field)
    _check_sample(field, y)
    theta = _check_theta(field, generator)
    field.check_arguments((), arguments or {})
    if arguments:
        run, theta = bind(field, theta, (), arguments, field.layers)
        field = cast(VectorField, run)
    layers = list(slices(theta, field.layers))
    p_q = start(field, y, layers[0], 0.1)
    state = tuple(torch.randn(s.shape, generator=generator, dtype=s.dtype) for s in p_q)
    own = original(field)
    if isinstance(own, StochasticField):
        _check_draws(field, state, layers[0])
        field.eval()
    _check_values(field, state, layers[0])
    _check_independence(field, state, layers[0])
    _check_side_doors(field, y, state, layers[-1], generator)
    _check_gradient(field, state, layers[-1])
    _check_jacobian(field, state, layers[-1])
    if isinstance(own, PartitionedField):
        _check_partition(field, state, layers[-1])
    for theta_j in layers:
        _check_energy(field, state, theta_j)
    _check_structure(field, theta, layers)
    check_rate_and_lipschitz(field, state, theta, layers)


def _check_hooks(field: VectorField) -> None:
    for name, module in field.named_modules():
        hook = hook_of(module)
        if hook is not None:
            fail(
                "a field has no hooks",
                f"{name or type(field).__name__} has the {hook}",
                "no engine runs it; use torch.nn.utils.parametrizations, or put it on the flow",
            )


def _check_attributes(field: VectorField) -> None:
    for name, module in field.named_modules():
        for key, value in vars(module).items():
            if isinstance(value, Tensor):
                fail(
                    "constants are buffers",
                    f"the tensor {f'{name}.{key}'.lstrip('.')} is a plain attribute",
                    "use register_buffer; a plain attribute does not follow .to(device)",
                )


def _check_theta(field: VectorField, generator: torch.Generator) -> Theta:
    """The weights, detached from the parameters, after checks of their form and that every parameter reaches them."""
    theta = field.theta()
    if not (isinstance(theta, tuple) and hasattr(theta, "_fields")):
        fail("theta() is a NamedTuple", f"it is a {type(theta).__name__}", "declare class Theta(NamedTuple)")
    for name, w in zip(theta._fields, theta, strict=True):
        if not isinstance(w, Tensor) or w.dim() == 0 or len(w) not in (1, field.layers):
            shape = tuple(w.shape) if isinstance(w, Tensor) else type(w).__name__
            fail(f"axis 0 of theta().{name} is N = {field.layers} or 1", f"got {shape}", "stack over layers")
    if any(not torch.equal(a, b) for a, b in zip(theta, field.theta(), strict=True)):
        fail("theta() is deterministic", "two calls differ", "draw random numbers only at construction")
    named = [(name, p) for name, p in field.named_parameters() if p.requires_grad]
    weighed = [(w * torch.randn(w.shape, generator=generator, dtype=w.dtype)).sum() for w in theta if w.requires_grad]
    grads: Sequence[Tensor | None] = [None] * len(named)
    if weighed and named:
        grads = torch.autograd.grad(sum(weighed), [p for _, p in named], allow_unused=True)
    for (name, _), grad in zip(named, grads, strict=True):
        if grad is None or not grad.any():
            fail(
                f"every parameter reaches theta(), {name!r} too",
                "d theta / d parameter is 0",
                "return it from theta(): weights may reach a layer only through it",
            )
    return type(theta)(*(w.detach().clone() for w in theta))


def _check_values(field: VectorField, state: State, theta_j: Theta) -> None:
    before = [t.clone() for t in (*state, *theta_j, *field.state_dict().values())]
    stream = torch.get_rng_state()
    v = velocity(field, state, theta_j)
    for part, s in zip(v, state, strict=True):
        if part.shape != s.shape or part.dtype != s.dtype:
            fail(
                "the velocity is shaped like the state",
                f"{tuple(part.shape)} of {part.dtype} for a state {tuple(s.shape)} of {s.dtype}",
                "check the axes, and that no constant has another dtype",
            )
    if not same(v, velocity(field, state, theta_j)):
        fail("forward is deterministic", "two calls differ", "a field that draws noise is a StochasticField")
    if not torch.equal(stream, torch.get_rng_state()):
        fail("forward draws nothing", "the global generator moved", "draw from the generator it is handed")
    if not same(before, [*state, *theta_j, *field.state_dict().values()]):
        fail("forward changes nothing", "y, theta or a buffer changed", "avoid in-place work and statistics")
    kept = field.plain_state()
    velocity(field, tuple(s.clone() for s in state), theta_j)
    for name, value in field.plain_state().items():
        if name not in kept or not unchanged(kept[name], value):
            fail("forward keeps nothing", f"it changed {name}", "return what you need, or compute it again")


def _check_sample(field: VectorField, y: Tensor) -> None:
    """Check that a sample has the axes that the field states; where it states none, one leading axis is the batch."""
    own = field.sample_ndim
    if own is not None and own < -field.feature_axis:
        fail("sample_ndim includes the feature axis", f"{own} for axis {field.feature_axis}", "1 for vectors")
    try:
        field.batch_shape(y)
    except ValueError as error:
        fail("a field states the axes of one sample", str(error), "give sample_ndim, an attribute of the class")


def _check_independence(field: VectorField, state: State, theta_j: Theta) -> None:
    """Check that no sample changes another, before or after it; for vectors all other leading axes are batch axes."""
    if not field.batch_shape(state[0]):
        state = tuple(s[None] for s in state)
    if len(state[0]) == 1:
        state = tuple(torch.cat((s, -2.0 * s, 0.5 - s)) for s in state)
    v, B = velocity(field, state, theta_j), len(state[0])
    for name, moved in (("0", [0]), (f"{B - 1}", [B - 1]), ("0, 2, ...", list(range(0, B, 2)))):
        others = [k for k in range(B) if k not in moved]
        other = tuple(s.clone() for s in state)
        for s in other:
            s[moved] = 3.0 * s[moved] + 1.0
        changed = velocity(field, other, theta_j)
        if not same([part[others] for part in v], [part[others] for part in changed]):
            fail(
                "samples are independent",
                f"sample {name} changes the others",
                "norms must not cross the batch; where more axes belong to one sample, state sample_ndim",
            )
    if field.feature_axis == -1 and field.sample_ndim in (None, 1) and not isinstance(field, Given):
        stacked = velocity(field, tuple(torch.stack((s, s)) for s in state), theta_j)
        for part, one in zip(stacked, v, strict=True):
            law = "every leading axis is a batch axis"
            hint = "features are the last axis; where more axes belong to one sample, state sample_ndim"
            if part.shape != (2, *one.shape):
                fail(law, f"got {tuple(part.shape)}", hint)
            near(law, part - one, rounding(one), hint)


def _check_draws(field: VectorField, state: State, theta_0: Theta) -> None:
    stream = torch.get_rng_state()
    draws = [velocity(like(original(field), field, 7).at_layer(0), state, theta_0) for _ in range(2)]
    if not same(draws[0], draws[1]):
        fail("one layer of one run has one draw", "two evaluations differ", "draw only from `generator`")
    if not torch.equal(stream, torch.get_rng_state()):
        fail("noise comes from the generator", "the global stream moved", "hand `generator` to every random call")


def _check_side_doors(field: VectorField, y: Tensor, state: State, theta_j: Theta, generator: torch.Generator) -> None:
    def outputs() -> list[Tensor]:
        return [*velocity(field, state, theta_j), *start(field, y, theta_j, 0.1)]

    hint = "return it from theta() and read it from theta_j; an engine would lose its gradient otherwise"
    values = outputs()
    if any(v.requires_grad for v in values):
        fail("weights reach a layer only through theta()", "the layer depends on another tensor", hint)
    for name, parameter in field.named_parameters():
        kept = parameter.detach().clone()
        with torch.no_grad():
            parameter.add_(torch.randn(kept.shape, generator=generator, dtype=kept.dtype))
            moved = outputs()
            parameter.copy_(kept)
        if not same(values, moved):
            fail(f"weights reach a layer only through theta(), {name!r} too", "it changes f at fixed theta", hint)


def _check_gradient(field: VectorField, state: State, theta_j: Theta) -> None:
    inputs = [t.detach().clone().requires_grad_(t.is_floating_point()) for t in (*state, *theta_j)]

    def f(*tensors: Tensor) -> State:
        return velocity(field, tensors[: len(state)], type(theta_j)(*tensors[len(state) :]))

    try:
        torch.autograd.gradcheck(f, inputs, fast_mode=True)
    except RuntimeError as error:
        raise AssertionError(
            f"the gradient of forward equals its finite differences: {error} Look for detach(), .data or a custom "
            "backward."
        ) from error


def _check_jacobian(field: VectorField, state: State, theta_j: Theta) -> None:
    f: Any = field
    maps = {"jacobian": (f, state[0])}
    if isinstance(original(field), PartitionedField):
        maps = {"p_jacobian": (f.p_dot, state[1]), "q_jacobian": (f.q_dot, state[0])}
    closed_form = field.feature_axis == -1 and field.sample_ndim in (None, 1)
    for name, (velocity_of, x) in maps.items():
        closed = getattr(f, name)(x, theta_j) if closed_form and is_closed(original(field), name) else None
        for A, one in zip(closed if closed is not None else (), x, strict=False):
            expected = jacobian(lambda s, v=velocity_of: (v(s, theta_j),), (one,))
            allowed = CANCELLATION * field.features * EPS * max(1.0, float(expected.abs().max()))
            near(f"{name} is the derivative", A - expected, allowed, "or return None: forward is then differentiated")


def _check_partition(field: Any, state: State, theta_j: Theta) -> None:
    p, q = state
    try:
        again = field.split(field.join(p, q))
    except ValueError:
        return  # the output does not determine the state: there is no split, and no forward
    if not same(again, state):
        fail("split undoes join", "split(join(p, q)) differs from (p, q)", "p comes first, p_features wide")
    y = field.join(p, q)
    f, g = field(y, theta_j), field.join(*velocity(field, state, theta_j))
    hint = "p' may depend only on q, and q' only on p"
    near("forward is (p_dot(q), q_dot(p))", f - g, rounding(g), hint)


def _check_energy(field: VectorField, state: State, theta_j: Theta) -> None:
    state = tuple(s.detach().clone().requires_grad_() for s in state)
    try:
        H = field.energy(state if len(state) > 1 else state[0], theta_j)
    except NotImplementedError:
        return
    if H.shape != state[0].shape[:1]:
        fail("energy is one number per sample", f"got {tuple(H.shape)}", "sum over features and positions")
    axis = field.feature_axis
    gradient = torch.cat(torch.autograd.grad(H.sum(), state), axis).movedim(axis, -1)
    f = torch.cat(velocity(field, state, theta_j), axis).detach().movedim(axis, -1)
    over = tuple(range(1, f.dim()))
    terms = CANCELLATION * f[0].numel() * EPS
    near(
        "the energy of a frozen layer is constant, <grad H, f> = 0",
        (gradient * f).sum(over),
        terms * float((gradient.abs() * f.abs()).sum(over).amax().clamp(min=1.0)),
        "J must be skew, and H the primitive of what forward computes",
    )
    J = field.structure(theta_j)
    if J is not None:
        near("J is skew", J + J.mT, EPS * float(J.abs().max()), _SKEW)
        scale = max(1.0, float((gradient.abs() @ J.abs().mT).max()), float(f.abs().max()))
        near("f = J grad H", f - gradient @ J.mT, terms * scale, "compare forward with autograd on energy")


_SKEW = "build it as B - B^T"


def _check_structure(field: VectorField, theta: Theta, layers: Sequence[Theta]) -> None:
    """Check that J is skew and consistent over the layers: one matrix, or a stack that follows theta."""
    whole = field.structure(theta)
    for j, theta_j in enumerate(layers):
        J = field.structure(theta_j)
        if J is None or whole is None:
            if J is not whole:
                fail("structure(theta) is None for all layers or none", f"not so for layer {j}", "state it by class")
            return
        near("J is skew", J + J.mT, EPS * float(J.abs().max()), _SKEW)
        own = whole if whole.dim() == 2 else whole[min(j, len(whole) - 1)]
        if J.shape != own.shape or not torch.equal(J, own):
            fail("structure(theta) is (n, n), or one for each layer", f"layer {j} has another J", "read it from theta")
