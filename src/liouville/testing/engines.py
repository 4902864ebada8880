"""`check_engine`: measures that an engine computes the map and the gradient of `Stored`."""

from __future__ import annotations

__all__ = ["check_engine"]

import copy
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from liouville.backprop import Backprop, Stored, slices
from liouville.fields import (
    AntisymmetricField,
    HamiltonianField,
    Normal,
    PairField,
    ResidualField,
    SecondOrderField,
    SeparableHamiltonianField,
    SymmetricField,
    VectorField,
    dropout,
)
from liouville.flow import Flow
from liouville.schemes import RK4, ForwardEuler, LeapfrogMidpoint, Scheme, State, SymplecticEuler, Verlet
from liouville.testing.measure import EPS, fail, jacobian, near, rounding


def check_engine(engine: Backprop, pairs: Sequence[tuple[Scheme, VectorField]] | None = None, *, seed: int = 0) -> None:
    """Check that ``engine`` computes the map and the gradient of `Stored`, with the same draws from the global stream.

    The check covers the final state, and the gradient with respect to the input and every parameter. It also covers an
    input without a gradient, two forward passes before one backward pass, and the state of the global random generator.

    Args:
        engine: the engine.
        pairs: schemes and fields to compare on; by default one pair of every kind, except pairs that the engine refuses
            (`ValueError`).
        seed: seed of the random inputs.

    Raises:
        AssertionError: with the pair, the law, the measured number and a hint; also if the engine refuses all pairs.

    Examples:
        >>> from liouville.backprop import Checkpointed
        >>> check_engine(Checkpointed())
    """
    if engine != copy.deepcopy(engine):
        fail("engines are values", f"{engine!r} differs from its copy", "make it a frozen dataclass")
    generator = torch.Generator().manual_seed(seed)
    ran = False
    for scheme, field in pairs if pairs is not None else _pairs(generator):
        flow = Flow(copy.deepcopy(field).to("cpu", torch.float64), scheme, T=1.0).train()
        y = torch.randn(3, *field.sample_shape(4), generator=generator, dtype=torch.float64)
        try:
            with torch.random.fork_rng(devices=[]):
                flow.with_backprop(engine).final_state(y)
        except ValueError:
            if pairs is not None:
                raise
            continue
        ran = True
        _compare(engine, flow, y, seed)
    if not ran:
        fail("an engine runs some pair", f"{engine!r} refused all", "give `pairs` that it accepts")


def _pairs(g: torch.Generator) -> Iterator[tuple[Scheme, VectorField]]:
    separable = SeparableHamiltonianField(4, 6, init=Normal(0.5), generator=g)
    yield SymplecticEuler(), separable
    yield Verlet(), PairField(5, 6, p_features=2, init=Normal(0.5), generator=g)
    yield SymplecticEuler(), SecondOrderField(SymmetricField(3, 6, init=Normal(0.5), generator=g), start="half")
    yield SymplecticEuler(), dropout(separable, 0.3)
    yield LeapfrogMidpoint(), AntisymmetricField(4, 6, shared=True, init=Normal(0.5), generator=g)
    yield ForwardEuler(), HamiltonianField(4, 6, train_J=True, init=Normal(0.5), generator=g)
    yield RK4(), ResidualField(3, 6, scalar_bias=True, init=Normal(0.5), generator=g)


def _compare(engine: Backprop, flow: Flow, y: Tensor, seed: int) -> None:
    def results(backprop: Backprop, needs_gradient: bool) -> tuple[list[Tensor], Tensor]:
        """Final states of two passes, the gradients of one loss of both, and the generator's state afterwards."""
        x = y.clone().requires_grad_(needs_gradient)
        run = flow.with_backprop(backprop)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            states = (*run.final_state(x), *run.final_state(2 * x))
            stream = torch.get_rng_state()
        loss = torch.stack([(s * s).sum() + (3 * s).sin().sum() for s in states]).sum()
        inputs = [p for p in flow.parameters() if p.requires_grad] + ([x] if needs_gradient else [])
        return [*(s.detach() for s in states), *torch.autograd.grad(loss, inputs)], stream

    name = f"{type(flow.scheme).__name__} on {type(flow.field).__name__}"
    # a rounding of the forward pass is amplified, and again in the backward pass: growth squared, N layers
    growth = _growth(flow, y)
    for needs_gradient in (True, False):
        expected, stream = results(Stored(), needs_gradient)
        got, moved = results(engine, needs_gradient)
        if not torch.equal(stream, moved):
            fail(f"{engine!r} draws one seed per run ({name})", "the global stream differs", "draw nothing")
        for a, b in zip(got, expected, strict=True):
            allowed = flow.layers * growth * rounding(b)
            near(f"{engine!r} equals Stored() in value and gradient ({name})", a - b, allowed, _ENGINE_HINT)


_ENGINE_HINT = "compare layer by layer: theta slices, field.at_layer(j) for each, the sign and order of the stages"


def _growth(flow: Flow, y: Tensor) -> float:
    theta = flow.eval().field.theta()

    def to_the_end(*state: Tensor) -> State:
        for j, theta_j in enumerate(slices(theta, flow.layers)):
            state = flow.scheme.step(flow.field.at_layer(j), state, theta_j, flow.h)
        return state

    with torch.no_grad():
        start = flow.scheme.init(flow.field, y[:1], next(slices(theta, flow.layers)), flow.h)
    A = jacobian(to_the_end, start)
    flow.train()
    return min(max(1.0, float(torch.linalg.cond(A))), EPS**-0.5)
