"""Weights as functions of time: initial draws, and refinement to 2N layers."""

import math

import pytest
import torch

import liouville as lv
import samples
from liouville.fields.prolongation import _PROLONGATIONS
from measure import EPS, generator, near, randn


def test_smooth_draws_are_one_function_of_time_at_every_depth():
    """The middles of N intervals are the middles of every third of 3N."""
    for shape in ((4, 4), (2, 3, 3, 3)):
        coarse = lv.Smooth().weight(7, shape, torch.eye(*shape[:2]), generator(3))
        fine = lv.Smooth().weight(21, shape, torch.eye(*shape[:2]), generator(3))
        # float32: a few cosines of arguments up to 4 pi
        near(fine[1::3], coarse, 20 * torch.finfo(torch.float32).eps * 4 * math.pi)


def test_smooth_is_the_stated_sum_of_cosines_around_the_mean():
    a = torch.randn(3, 2, 4, generator=generator(5))
    t, k = ((torch.arange(8) + 0.5) / 8)[:, None, None, None], torch.arange(3.0)[None, :, None, None]
    r = (a * torch.cos(math.pi * k * t)).sum(1) / (1 + 2 / 2) ** 0.5  # variances 1, 1/2, 1/2 over [0, T]
    M = torch.tensor([[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]])
    init = lv.Smooth(scale=0.8, bias_scale=0.7, modes=3, mean=1.5)
    allowed = 40 * torch.finfo(torch.float32).eps * 12
    near(init.weight(8, (2, 4), M, generator(5)), 1.5 * M + 0.8 / 4**0.5 * r, allowed)
    near(init.weight(8, (2, 4), None, generator(5)), 0.8 / 4**0.5 * r, allowed)
    near(init.bias(8, (2, 4), generator(5)), 0.7 * r, allowed)


def test_a_stencil_holds_the_mean_in_its_middle():
    M = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    K = lv.Smooth(scale=0.0, mean=2.0).weight(3, (2, 2, 3, 3), M, generator(0))
    assert torch.equal(K[1, :, :, 1, 1], 2 * M)
    assert K.abs().sum() == 3 * 2 * M.sum()


def test_smooth_has_the_stated_standard_deviation_and_normal_too():
    # 40000 x 4 independent amplitudes: the variance errs by about 1 %
    K = lv.Smooth(scale=2.0).weight(50, (200, 200), None, generator(1))
    near(K.square().mean().sqrt() * math.sqrt(200), 2.0, 0.05)
    near(lv.Normal(0.5).weight(50, (30, 30), None, generator(1)).std(), 0.5, 0.02)
    near(lv.Normal(0.5).bias(50, (900,), generator(1)).std(), 0.5, 0.02)


def test_normal_has_no_limit_in_depth_and_smooth_has():
    """1/(2h) sum |theta_{j+1} - theta_j|^2 at T = 1: bounded in N for one, like N^2 for the other."""

    def penalty(init, N):
        K = init.weight(N, (4, 4), None, generator(2))
        return float(K.diff(dim=0).square().sum()) * N / 2

    assert penalty(lv.Smooth(), 512) < 1.1 * penalty(lv.Smooth(), 64)
    assert penalty(lv.Normal(), 512) > 30 * penalty(lv.Normal(), 64)


def test_one_mode_makes_all_layers_equal():
    K = lv.Smooth(modes=1).weight(5, (2, 2), None, generator(0))
    assert torch.equal(K[0], K[4])


def test_untrained_antisymmetric_weights_lie_around_a_quarter_turn():
    for n in (4, 5):
        A = lv.AntisymmetricField(n, 2, init=lv.Smooth(scale=0.0, mean=1.0)).theta().A[0]
        half = n // 2
        expected = torch.zeros(n, n)
        expected[:half, n - half :], expected[n - half :, :half] = -torch.eye(half), torch.eye(half)
        assert torch.equal(A, expected)


@pytest.mark.parametrize("how", _PROLONGATIONS)
@pytest.mark.parametrize("name", samples.FIELDS)
def test_refined_field_has_twice_the_layers_and_keeps_the_original(name, how):
    field = samples.field(name)
    before = [w.clone() for w in field.parameters()]
    if name == "shear-shared" and how != "constant":  # what lies between two layers that share belongs to neither
        with pytest.raises(ValueError, match="use 'constant'"):
            field.refined(how)
        return
    fine = field.refined(how)
    assert (fine.layers, field.layers) == (2 * samples.N, samples.N)
    for coarse, w in zip(field.theta(), fine.theta(), strict=True):
        assert len(w) == (1 if len(coarse) == 1 else 2 * samples.N)
    assert all(torch.equal(a, b) for a, b in zip(before, field.parameters(), strict=True))
    assert [p.requires_grad for p in fine.parameters()] == [p.requires_grad for p in field.parameters()]
    assert not {p.data_ptr() for p in fine.parameters()} & {p.data_ptr() for p in field.parameters()}


@pytest.mark.parametrize("N", [2, 5])
def test_prolongations_of_a_linear_function_of_time(N):
    slope, start = randn(3, seed=1), randn(3, seed=2)

    def line(t):
        return start + t[:, None] * slope

    middles = (torch.arange(N, dtype=torch.float64) + 0.5) / N
    fine = (torch.arange(2 * N, dtype=torch.float64) + 0.5) / (2 * N)
    allowed = 8 * EPS * float(start.abs().max() + slope.abs().max())
    near(_PROLONGATIONS["constant"](line(middles)), line(middles.repeat_interleave(2)), 0.0)
    near(_PROLONGATIONS["linear"](line(middles))[1:-1], line(fine)[1:-1], allowed)
    near(_PROLONGATIONS["linear"](line(middles))[[0, -1]], line(middles)[[0, -1]], allowed)
    left, fine_left = (torch.arange(k, dtype=torch.float64) / k for k in (N, 2 * N))
    near(_PROLONGATIONS["linear-left"](line(left))[:-1], line(fine_left)[:-1], allowed)
    near(_PROLONGATIONS["linear-left"](line(left))[-1], line(left)[-1], allowed)


def test_one_layer_becomes_two_of_its_own_unless_it_is_shared():
    assert lv.ResidualField(2, 1).refined().K.shape == (2, 2, 2)
    assert lv.ResidualField(2, 1, shared=True).refined().K.shape == (1, 2, 2)
    assert lv.HamiltonianField(2, 1, train_J=True).refined().J_raw.shape == (1, 2, 2)
    assert lv.HamiltonianField(2, 3, train_J=True).refined().J_raw.shape == (1, 2, 2)


def test_unknown_prolongation_is_refused():
    with pytest.raises(ValueError, match="'constant', 'linear', 'linear-left', got 'cubic'"):
        lv.ResidualField(2, 2).refined("cubic")
