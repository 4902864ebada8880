"""A budget by multipliers: kept by the weights that run, whatever they and the multipliers are; exact derivatives."""

import math

import pytest
import torch

import liouville as lv
from liouville.analysis import backward_sensitivity, log_inverse_bound, log_upper_bound
from liouville.checkpoint import describe
from measure import generator, randn

C = 4.0
CASES = {
    "h2": {},
    "h1": {},
    "ms1": {},
    "antisymmetric": {},
    "resnet": {},
    "relu": {"activation": "relu"},
    "X": {"X": torch.tensor([[1.0, 0.5], [-2.0, 0.3]])},
}


def flow_of(case, scale=2.0, bound=None, layers=6, **more):
    model = case if case in lv.zoo.MODELS else "h2"
    inner = lv.zoo.MODELS[model](4, layers, 2.0, init=lv.Normal(scale), generator=generator(), **CASES[case], **more)
    return lv.budgeted(inner, C, bound)


def scale_of(flow):
    name = flow.field.theta()._fields[0]
    raw, kept = getattr(flow.field.field.theta(), name), getattr(flow.field.theta(), name)
    return float((kept.norm() / raw.norm()).detach())


@pytest.mark.parametrize("case", CASES)
def test_both_ends_are_kept_and_nothing_is_wasted(case):
    flow = flow_of(case).double()
    with torch.no_grad():
        log_u = float(log_upper_bound(flow, 1))
        ends = [log_u] if case in ("h1", "antisymmetric", "resnet") else [log_u, float(log_inverse_bound(flow, 1))]
        assert max(ends) <= math.log(C) and max(ends) > math.log(C) - 3e-3
        singular = torch.linalg.svdvals(backward_sensitivity(flow, 3 * randn(50, 4)))
    assert float(singular.max()) <= C and (len(ends) == 1 or float(singular.min()) >= 1 / C)


@pytest.mark.parametrize("case", ["h2", "ms1", "h1", "antisymmetric", "X"])
def test_it_leaves_more_room_than_norms(case):
    assert scale_of(flow_of(case, 1.0)) > 1.01 * scale_of(flow_of(case, 1.0, "norms"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("far", [0.0, 3.0, 1e4])
def test_multipliers_may_become_anything(far, dtype):
    flow = flow_of("h2").to(dtype)
    with torch.no_grad():
        flow.field.multipliers.add_(far * randn(*flow.field.multipliers.shape).to(dtype))
        assert float(log_upper_bound(flow, 1)) <= math.log(C)
        theta = flow.field.theta()
        run = lv.Flow(flow.field.field.double(), flow.scheme, flow.T)
        run.field.K_p.copy_(theta.K_p), run.field.K_q.copy_(theta.K_q)
        assert float(log_upper_bound(run, 100)) <= math.log(C)  # the rounded numbers, by multipliers of their own


def test_multipliers_that_are_no_numbers_break_no_budget():
    flow = flow_of("h2")
    with torch.no_grad():
        flow.field.multipliers.fill_(float("nan"))
        theta, inner = flow.field.theta(), lv.zoo.h2(4, layers=6, T=2.0)
        inner.field.K_p.copy_(theta.K_p), inner.field.K_q.copy_(theta.K_q)
        assert float(log_upper_bound(inner)) <= math.log(C)


@pytest.mark.parametrize("case", ["h2", "ms1", "h1", "X"])
def test_the_scale_follows_weights_and_multipliers_as_its_derivative_says(case, monkeypatch):
    """Central differences of log t; its resolution is made finer than they are."""
    monkeypatch.setattr("liouville.multipliers.scaling._TOLERANCE", 1e-11)
    flow = flow_of(case).double()
    name = flow.field.theta()._fields[0]
    raw = getattr(flow.field.field, name)
    other = [raw, flow.field.multipliers]

    def size():
        return getattr(flow.field.theta(), name).square().sum().log()

    slopes = torch.autograd.grad(size(), other)
    for p, slope in zip(other, slopes, strict=True):
        direction, step, values = randn(*p.shape, seed=1), 1e-5, []
        with torch.no_grad():
            for sign in (1, -1):
                p.add_(direction, alpha=sign * step)
                values.append(float(size()))
                p.sub_(direction, alpha=sign * step)
        found = (values[0] - values[1]) / (2 * step)
        assert found == pytest.approx(float((slope * direction).sum()), rel=2e-3, abs=1e-5)


def test_weights_within_the_budget_leave_the_multipliers_a_gradient_of_zero():
    flow = flow_of("h2", scale=1e-3)
    flow(randn(3, 4).float()).sum().backward()
    assert float(flow.field.multipliers.grad.abs().max()) == 0.0


def test_files_keep_the_kind_of_bound_and_old_ones_are_by_norms(tmp_path):
    for kind in ("multipliers", "norms"):
        flow = flow_of("h2", bound=kind)
        again = lv.load(lv.save(flow, tmp_path / "flow.safetensors"))
        assert again.field.bound == kind and torch.equal(again.field.theta().K_p, flow.field.theta().K_p)
    description = describe(flow.field)
    assert description["bound"] == "norms" and "multipliers" not in dict(flow.named_parameters())


def test_convolutions_have_a_budget_by_norms():
    inner = lv.zoo.h2(4, layers=3, T=1.0, operator=lv.Conv(3))
    assert lv.budgeted(inner, C).field.bound == "norms"
    with pytest.raises(ValueError, match='bound="multipliers" needs known steps'):
        lv.budgeted(inner, C, "multipliers")
    with pytest.raises(ValueError, match='bound must be "multipliers", "norms" or None'):
        lv.budgeted(inner, C, "best")
