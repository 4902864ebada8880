"""Autocast: as by `Stored` under the same, in both passes, whatever the backward pass runs under."""

import pytest
import torch

import liouville as lv
import samples
from backprop.runs import MODES, fits
from measure import generator, near

modes = pytest.mark.parametrize("engine", MODES.values(), ids=MODES)

AUTOCAST = [
    ("SymplecticEuler", "separable"),
    ("SymplecticEuler", "second-order"),  # p starts in 16 bits, and q in 32
    ("Verlet", "separable-images"),
    ("SymplecticEuler", "dropout-partitioned"),
    ("LeapfrogMidpoint", "hamiltonian"),
    ("SymplecticEuler", "shear"),
    ("ImplicitMidpoint", "hamiltonian"),
]


@pytest.mark.parametrize(
    "engine, scheme, name",
    [(e, s, f) for e in MODES.values() for s, f in AUTOCAST if fits(e, samples.SCHEMES[s], samples.field(f))],
    ids=repr,
)
@pytest.mark.parametrize("low", [torch.bfloat16, torch.float16], ids=str)
def test_autocast(engine, scheme, name, low):
    """Equal to `Stored` under the same autocast: to float32's roundings, or with other sums to the low dtype's."""
    flow = samples.flow(scheme, name)
    y, flow = samples.inputs(flow.field).float(), flow.float()

    def results(backprop):
        x = y.clone().requires_grad_()
        torch.manual_seed(0)
        with torch.autocast("cpu", low):
            out = flow.with_backprop(backprop)(x)
        return [out.detach(), *torch.autograd.grad(out.float().square().sum(), [x, *flow.parameters()])]

    # of three layers, and of sums that an arithmetic of its own rounds otherwise before 16 bits are cut from them
    same_sums = not (engine.exact or engine.compensated) and name != "second-order"
    eps = torch.finfo(torch.float32 if same_sums else low).eps
    for a, b in zip(results(engine), results(lv.Stored()), strict=True):
        assert a.dtype == b.dtype
        near(a, b, 30 * samples.N * eps * float(b.abs().max().clamp(min=1)))


@modes
def test_autocast_of_the_forward_pass_alone_counts(engine):
    """A layer is evaluated again under the autocast it was evaluated under, whatever the backward pass runs under.

    Torch's own backward formulas obey the latter, with `Stored` too: that is within its roundings. Exact mode verifies
    besides that no bit of the state differs.
    """
    flow, y = samples.flow("SymplecticEuler", "separable", backprop=engine).float(), torch.randn(3, 4)

    def gradient(forward, backward):
        x = y.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=forward):
            loss = flow(x).float().square().sum()
        with torch.autocast("cpu", torch.float16, enabled=backward):
            return torch.autograd.grad(loss, x)[0]

    size = float(gradient(False, False).abs().max())
    near(gradient(False, True), gradient(False, False), 10 * torch.finfo(torch.float16).eps * size)
    near(gradient(True, True), gradient(True, False), 10 * torch.finfo(torch.bfloat16).eps * size)
    assert not torch.equal(gradient(True, False), gradient(False, False))


class Island(lv.SeparableHamiltonianField):
    """A velocity that is computed in full precision under any autocast, as implicit layers are."""

    def p_dot(self, q, theta_j):
        with torch.autocast("cpu", enabled=False):
            return super().p_dot(q.float(), theta_j)


@modes
def test_what_a_layer_computes_in_full_precision_is_differentiated_in_full_precision(engine):
    """Autocast belongs to the layer's evaluation, and is no business of the backward formulas of torch."""
    flow = lv.Flow(Island(16, 4, init=lv.Normal(0.3), generator=generator()), lv.SymplecticEuler(), T=0.4)
    y = torch.randn(8, 16, generator=generator(1))
    with torch.no_grad():
        flow.field.K_p.zero_()  # q does not move, so that of the gradient nothing is of 16 bits but b_p's
        flow.field.K_p.requires_grad_(False)

    def gradient(backprop):
        with torch.autocast("cpu", torch.bfloat16):
            out = flow.with_backprop(backprop)(y)
        return torch.autograd.grad(out.square().sum(), flow.field.K_q)[0]

    expected = gradient(lv.Stored())
    near(gradient(engine), expected, 10 * flow.layers * torch.finfo(torch.float32).eps * float(expected.abs().max()))
