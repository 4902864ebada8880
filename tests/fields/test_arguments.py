"""Arguments of a run: which velocities get them, what is refused, and that `check_field` knows them."""

from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

import liouville as lv
import samples
from liouville.fields.signatures import Signature
from liouville.testing import check_field
from measure import generator, near, randn


class Masked(nn.Module):
    """x -> tanh(W x) * mask, or nothing masked; ``shift`` is added if it is given."""

    def __init__(self, width=2):
        super().__init__()
        self.linear = nn.Linear(width, width)

    def forward(self, x, mask, *, shift=0.0):
        return torch.tanh(self.linear(x)) * mask + shift


class Plain(nn.Sequential):
    def __init__(self, width=2):
        super().__init__(nn.Linear(width, 3), nn.Tanh(), nn.Linear(3, width))


class _Theta(NamedTuple):
    K: Tensor


class Conditioned(lv.VectorField):
    """y' = tanh(K y) * scale + offset: a field of one's own with two arguments."""

    def __init__(self, layers=samples.N):
        super().__init__(3, layers)
        self.K = nn.Parameter(torch.randn(layers, 3, 3, generator=generator(1)))

    def theta(self):
        return _Theta(self.K)

    def forward(self, y, theta_j, scale, offset=None):
        v = torch.tanh(y @ theta_j.K.mT) * scale
        return v if offset is None else v + offset


class Halves(lv.PartitionedField):
    """p' = q * gain, q' = tanh(K p): the arguments go to both, and q_dot lets them pass."""

    def __init__(self, layers=samples.N):
        super().__init__(4, layers)
        self.K = nn.Parameter(torch.randn(layers, 2, 2, generator=generator(2)))

    def theta(self):
        return _Theta(self.K)

    def p_dot(self, q, theta_j, gain=1.0):
        return torch.sin(q) * gain

    def q_dot(self, p, theta_j, **_):
        return torch.tanh(p @ theta_j.K.mT)


def shear(F=Plain, G=Masked, layers=samples.N):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return lv.ShearField(F(), G(), layers=layers, features=4).double()


def test_every_layer_is_given_the_arguments():
    """Against the loop by hand: p -= G(q, mask, shift_j), q += F(p)."""
    field, y, mask = shear(), randn(5, 4), randn(2, seed=3)
    shifts = randn(3, 2, seed=4)
    p, q = y.chunk(2, -1)
    for j, theta_j in enumerate(zip(*(w.unbind(0) for w in field.theta()), strict=True)):
        w = dict(zip(field.theta()._fields, theta_j, strict=True))
        p = p - (torch.tanh(q @ w["G__linear__weight"].T + w["G__linear__bias"]) * mask + shifts[j])
        q = q + torch.tanh(p @ w["F__0__weight"].T + w["F__0__bias"]) @ w["F__2__weight"].T + w["F__2__bias"]
    flow = lv.Flow(field, lv.SymplecticEuler(), T=3.0)
    for out in (flow(y, mask, shift=lv.PerLayer(shifts)), flow(y, mask=mask, shift=lv.PerLayer(list(shifts)))):
        near(out, torch.cat((p, q), -1), 1e-13)
    near(flow.trajectory(y, mask, shift=lv.PerLayer(shifts))[-1], torch.cat((p, q), -1), 1e-13)
    near(flow.inverse(out, mask, shift=lv.PerLayer(shifts)), y, 1e-13)


def test_arguments_may_sit_in_containers_and_be_no_tensors():
    class Rotary(nn.Linear):
        def forward(self, x, tables, kind="cos"):
            cos, sin = tables["tables"]
            return super().forward(x) * (cos if kind == "cos" else sin)

    flow = lv.Flow(shear(F=lambda: Rotary(2, 2), G=lambda: Rotary(2, 2)), lv.Verlet(), T=1.0)
    y, cos, sin = randn(5, 4), randn(2, seed=1), randn(2, seed=2)
    a, b = flow(y, {"tables": (cos, sin)}), flow(y, {"tables": [sin, cos]}, kind="sin")
    near(a, b, 0.0)
    kinds = lv.PerLayer(["cos", "sin", "cos"])
    tables = lv.PerLayer(torch.stack((cos, sin, cos))), lv.PerLayer(torch.stack((sin, cos, sin)))
    near(flow(y, {"tables": (cos, sin)}, kind=kinds), flow(y, {"tables": tables}), 0.0)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: flow_of(shear())(randn(5, 4)), r"G needs the argument mask.*flow\(y, mask=mask\)"),
        (lambda: flow_of(shear())(randn(5, 4), 1.0, no=2), "neither F nor G takes no beside its input"),
        (lambda: flow_of(shear())(randn(5, 4), 1.0, 2.0), "neither F nor G takes 2 by position"),
        (lambda: flow_of(shear(G=Plain))(randn(5, 4), 1.0), "neither F nor G takes 1 by position"),
        (lambda: flow_of(Conditioned().double(), lv.RK4())(randn(5, 3)), "Conditioned needs the argument scale"),
        (lambda: flow_of(Conditioned().double(), lv.RK4())(randn(5, 3), 1.0, no=1), "Conditioned takes scale and offs"),
        (lambda: flow_of(Conditioned().double(), lv.RK4())(randn(5, 3), offset=1.0), "needs the argument scale"),
        (lambda: flow_of(Halves().double())(randn(5, 4), shift=1.0), "Halves takes gain beside its input, got shift"),
        (lambda: lv.analysis.backward_sensitivity(flow_of(shear()), randn(5, 4)), "G needs the argument mask"),
    ],
)
def test_what_a_field_does_not_take_is_refused_by_name(call, message):
    with pytest.raises(TypeError, match=message):
        call()


def flow_of(field, scheme=lv.SymplecticEuler()):
    return lv.Flow(field, scheme, T=1.0)


@pytest.mark.parametrize("name", [f for f in samples.FIELDS if not (f.startswith("shear") or f.endswith("inputs"))])
def test_fields_of_ours_take_none(name):
    """Of every kind, noise and second order included; those of modules ask their modules."""
    field = samples.field(name)
    scheme = next(s for s, f in samples.PAIRS if f == name)
    with pytest.raises(TypeError, match="takes no arguments beside its input, got mask"):
        lv.Flow(field, samples.SCHEMES[scheme], T=1.0)(samples.inputs(field), mask=1.0)


def test_values_per_layer_are_counted_and_alike():
    flow = flow_of(shear())
    with pytest.raises(ValueError, match="has 2 values, but there are 3 layers"):
        flow(randn(5, 4), lv.PerLayer(randn(2, 2)))
    for values in ([randn(2), randn(3)], [randn(2), None], [randn(2), randn(2).float()]):
        with pytest.raises(ValueError, match="must have one shape, dtype and device"):
            lv.PerLayer(values)
    with pytest.raises(ValueError, match="one tensor per layer, got containers"):
        lv.PerLayer([(randn(2), 1)] * 3)


def test_dropout_passes_them_on():
    field, y, mask = lv.dropout(shear(), 0.3), randn(5, 4), randn(2)
    flow = flow_of(field)
    torch.manual_seed(0)
    noisy = flow(y, mask=mask)
    flow.eval()
    near(flow(y, mask=mask), flow_of(shear())(y, mask=mask), 0.0)
    assert not torch.equal(noisy, flow(y, mask=mask))


def test_check_field_examines_a_field_with_its_arguments():
    check_field(Conditioned(), arguments={"scale": randn(3), "offset": randn(3, 3)})
    check_field(Halves(), arguments={"gain": randn(2)})
    check_field(shear(), arguments={"mask": torch.tensor([True, False])})
    check_field(lv.dropout(shear(), 0.2), arguments={"mask": randn(2)})
    with pytest.raises(TypeError, match="Halves takes gain"):
        check_field(Halves(), arguments={"shift": 1.0})


def test_check_field_notices_a_wrong_gradient_to_an_argument():
    class Detaches(Conditioned):
        def forward(self, y, theta_j, scale, offset=None):
            return super().forward(y, theta_j, scale.detach(), offset)

    with pytest.raises(AssertionError, match="gradient of forward"):
        check_field(Detaches(), arguments={"scale": randn(3)})


def test_signatures():
    def f(x, /, a, b=1, *args, c, d=2, **more): ...

    found = Signature.of(f)
    assert found.order == ("a", "b") and found.required == ("a", "c") and found.any_name
    assert found.missing((1,), {}) == ["c"]
    assert Signature.of(torch.tanh) == Signature()
