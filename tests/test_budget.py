"""A budget holds for all weights, costs no gradient, and every engine computes the same with it."""

import pytest
import torch

import liouville as lv
from liouville.analysis import log_inverse_bound, log_upper_bound
from liouville.budget import BudgetedField, PartitionedBudgetedField
from liouville.kernels.library import is_built
from liouville.train import Penalty, SoftBudget
from measure import generator, randn

MODELS = ("h1", "h2", "ms1", "ms2", "ms3", "antisymmetric", "verlet", "resnet", "midpoint")
SCALES = (1e-3, 0.3, 1.0, 30.0, 1e6)


def flow_of(model, scale=1.0, layers=6, budget=4.0, **more):
    inner = lv.zoo.MODELS[model](4, layers, 2.0, init=lv.Normal(scale), generator=generator(), **more)
    return lv.budgeted(inner, budget)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_bound_keeps_the_budget_whatever_the_weights(model, scale, dtype):
    flow = flow_of(model, scale).to(dtype)
    assert bound(flow) <= 4.0
    if scale >= 30:  # and uses all of it, to the resolution of the search
        assert bound(flow) >= 4.0 * (1 - 3e-3)


def test_weights_within_the_budget_are_used_as_they_are():
    flow = flow_of("h2", scale=1e-3)
    assert all(torch.equal(a, b) for a, b in zip(flow.field.theta(), flow.field.field.theta(), strict=True))


@pytest.mark.parametrize("model", MODELS)
def test_biases_are_left_alone_and_the_kernels_keep_their_directions(model):
    flow = flow_of(model, scale=3.0).double()
    ratios = []
    for name, raw, w in zip((t := flow.field.field.theta())._fields, t, flow.field.theta(), strict=True):
        if name[0] in "bc":
            assert torch.equal(raw, w)
        else:
            ratios += [(w / raw)[raw != 0].flatten()]
    ratio = torch.cat(ratios)
    assert 0 < float(ratio.min()) < 1 and float(ratio.max() / ratio.min() - 1) < 1e-12


@pytest.mark.parametrize("model", MODELS)
def test_no_gradient_leads_out_of_the_budget(model):
    """U(theta(raw)) is constant where the budget binds, so its derivative is 0: the implicit function theorem."""
    flow = flow_of(model, scale=2.0).double()
    raw = [w for w in flow.field.field.parameters() if w.requires_grad]  # in a bound's derivative multipliers are fixed
    end = max(ends(flow), key=float)
    bent = torch.autograd.grad(end, raw, allow_unused=True)
    straight = torch.autograd.grad(
        log_upper_bound(lv.Flow(flow.field.field, flow.scheme, flow.T), 1), raw, allow_unused=True
    )
    size = max(float(g.abs().max()) for g in straight if g is not None)
    assert size > 0
    assert all(float(g.abs().max()) < 1e-9 * size for g in bent if g is not None)


@torch.no_grad()
def bound(flow):
    """Of both ends of the spectrum, by the flow's own multipliers where it has some."""
    return float(max(ends(flow)).exp())


def ends(flow):
    """Bounds of the largest singular value and, for shears, of 1 / the smallest."""
    backwards = [log_inverse_bound(flow, 1)] if isinstance(flow.scheme, lv.schemes.ShearScheme) else []
    return [log_upper_bound(flow, 1), *backwards]


def engines():
    return (lv.Reversible(), lv.Reversible(exact=True), lv.Auto(), *((lv.Fused(),) if is_built() else ()))


@pytest.mark.parametrize("model", ["h2", "h1"])
def test_every_engine_computes_the_same(model):
    def results(engine):
        flow = flow_of(model, layers=8).double().with_backprop(engine)
        y = randn(5, 4).requires_grad_()
        out = flow(y)
        out.square().sum().backward()
        return [out.detach(), y.grad, *(w.grad for w in flow.parameters())]

    stored = results(lv.Stored())
    for engine in engines():
        if model == "h1" and isinstance(engine, lv.Reversible):
            continue
        for a, b in zip(stored, results(engine), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_auto_takes_the_native_kernel_for_a_budgeted_field():
    if not is_built():
        pytest.skip("the native kernel is not built")
    flow = flow_of("h2")
    assert isinstance(lv.Auto().choose(flow.scheme, flow.field, torch.zeros(3, 4)).engine, lv.Fused)


def test_inverse_refinement_and_file(tmp_path):
    flow = flow_of("h2", scale=2.0).double()
    y = randn(3, 4)
    torch.testing.assert_close(flow.inverse(flow(y)), y)
    assert bound(flow.refined()) <= 4.0 and flow.refined().field.layers == 12
    again = lv.load(lv.save(flow, tmp_path / "flow.safetensors"))
    assert isinstance(again.field, PartitionedBudgetedField) and again.field.budget == 4.0
    assert torch.equal(again(y), flow(y))


def test_a_classifier_with_a_budget():
    network = lv.classifier("h1", 2, 2, 4, layers=5, T=3.0, budget=2.0)
    assert type(network.body.field) is BudgetedField and bound(network.body) <= 2.0
    with pytest.raises(ValueError, match="without dropout"):
        lv.classifier("h1", 2, 2, 4, layers=5, T=3.0, budget=2.0, dropout_rate=0.1)


def test_the_scheme_is_part_of_the_budget():
    flow = flow_of("h2")
    with pytest.raises(ValueError, match="keeps its budget only with SymplecticEuler"):
        lv.Flow(flow.field, lv.Verlet(), flow.T)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: lv.budgeted(lv.zoo.h2(4, 2, 1.0), 1.0), "must be above 1"),
        (lambda: lv.budgeted(lv.zoo.h2(4, 2, 1.0), float("nan")), "must be above 1"),
        (lambda: lv.budgeted(lv.zoo.leapfrog(4, 2, 1.0), 3.0), "a budget needs one of .*; got SecondOrderField"),
        (lambda: lv.budgeted(lv.zoo.ms2(4, 2, 1.0, gamma=0.1), 3.0), "gamma = 0"),
        (
            lambda: lv.budgeted(lv.Flow(lv.HamiltonianField(4, 2), lv.ImplicitSymplecticEuler(), 1.0), 3.0),
            "a budget needs an upper bound",
        ),
    ],
)
def test_what_does_not_fit_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_the_penalty_counts_what_exceeds_the_budget():
    network = lv.classifier("h2", 2, 2, 4, layers=16, T=4.0)
    log_u = float(log_upper_bound(network.body, 0).detach())
    expected = (log_u - torch.tensor(20.0).log()).square()
    torch.testing.assert_close(Penalty(soft_budget=20.0)(network), expected)
    assert float(SoftBudget(budget=1.01 * float(torch.tensor(log_u).exp()))(network)) == 0.0
    with pytest.raises(ValueError, match="soft_budget must be above 1"):
        Penalty(soft_budget=0.5)


def test_the_penalty_alone_brings_the_bound_down():
    flow = lv.zoo.h2(4, layers=16, T=4.0, generator=generator())
    optimizer = torch.optim.Adam(flow.parameters(), lr=0.05)
    for _ in range(400):
        optimizer.zero_grad()
        SoftBudget(budget=20.0)(flow).backward()
        optimizer.step()
    assert bound(flow) < 24.0


@pytest.mark.parametrize("size", [1e3, 1e9, 1e15, 1e19, 1e25])
@pytest.mark.parametrize("model", ["h2", "ms1", "h1", "resnet"])
def test_a_budget_holds_for_weights_of_any_size(model, size):
    flow = lv.budgeted(lv.zoo.MODELS[model](4, 8, 2.0), 20.0)
    with torch.no_grad():
        for name, w in flow.field.field.named_parameters():
            if name[0] in "KW":
                w.mul_(size)
    assert float(lv.analysis.log_upper_bound(flow).detach().exp()) <= 20
    y = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    assert float(lv.analysis.norms(lv.analysis.backward_sensitivity(flow, y)).two.max()) <= 20 * (1 + 1e-4)
    assert all(bool(w.isfinite().all()) for w in flow.field.theta())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_end_the_search_and_show_in_the_output(value):
    flow = lv.budgeted(lv.zoo.h2(4, 8, 2.0), 20.0)
    with torch.no_grad():
        flow.field.field.K_p[0, 0, 0] = value
    assert not bool(flow(torch.ones(1, 4)).isfinite().all())
