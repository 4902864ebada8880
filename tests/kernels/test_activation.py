"""The kernel's own tanh and ReLU: at most 4 ulp over the whole range, and right where there is no number."""

import math

import pytest
import torch

from liouville.kernels.library import is_built, library

pytestmark = pytest.mark.skipif(not is_built(), reason="the native kernel is not built")

TYPES = {torch.float32: 0, torch.float64: 1}
types = pytest.mark.parametrize("dtype", TYPES, ids=str)


def native(x, kind):
    out = torch.empty_like(x)
    library().lv_activation(TYPES[x.dtype], kind, x.numel(), x.data_ptr(), out.data_ptr())
    return out


def ulps(actual, exact, dtype):
    """The distance from ``exact``, in units of the last place of the nearest number of ``dtype``."""
    nearest = exact.to(dtype).abs()
    below = torch.nextafter(nearest, torch.zeros_like(nearest))
    return ((actual.double() - exact).abs() / (nearest.double() - below.double())).max()


def everywhere(dtype):
    """Numbers of every exponent from the smallest denormal to the largest number, and densely where tanh bends."""
    bits, integers = (31, torch.int32) if dtype == torch.float32 else (63, torch.int64)
    positive = torch.linspace(1, 2**bits - 2 ** (23 if bits == 31 else 52) - 1, 200_001, dtype=torch.float64)
    exponents = positive.to(torch.int64).clamp(max=2**bits - 1).to(integers).view(dtype)
    bend = torch.linspace(0, 25, 1_000_003, dtype=dtype)
    x = torch.cat((exponents[exponents.isfinite()], bend[1:]))
    return torch.cat((x, -x))


@types
def test_tanh_is_within_four_ulp_over_the_whole_range(dtype):
    x = everywhere(dtype)
    # torch's own float64 tanh, within an ulp of the truth, is the measure: exact for float32, one ulp more for float64
    exact = torch.tanh(x.double())
    assert ulps(native(x, 0), exact, dtype) <= (4 if dtype == torch.float32 else 5)


def test_tanh_in_double_precision_against_fifty_digits():
    mpmath = pytest.importorskip("mpmath")
    mpmath.mp.dps = 50
    x = torch.cat((torch.logspace(-12, 1.25, 4001, dtype=torch.float64), -torch.linspace(0.001, 19, 2000).double()))
    for value, got in zip(x.tolist(), native(x, 0).tolist(), strict=True):
        exact = mpmath.tanh(mpmath.mpf(value))
        unit = float(abs(exact)) - math.nextafter(float(abs(exact)), 0.0)
        assert abs(mpmath.mpf(got) - exact) <= 4 * unit


@types
def test_tanh_stays_within_one(dtype):
    assert native(everywhere(dtype), 0).abs().max() <= 1


@pytest.mark.parametrize("kind, expected", [(0, torch.tanh), (1, torch.relu)], ids=["tanh", "relu"])
@types
def test_special_numbers(dtype, kind, expected):
    tiny = torch.finfo(dtype).smallest_normal
    x = torch.tensor(
        [0.0, math.inf, -math.inf, tiny, -tiny, tiny / 8, -tiny / 8, tiny * torch.finfo(dtype).eps], dtype=dtype
    )
    assert torch.equal(native(x, kind), expected(x))
    assert native(torch.full((37,), math.nan, dtype=dtype), kind).isnan().all()


@types
def test_every_length(dtype):
    for count in range(40):
        x = torch.linspace(-2, 2, count, dtype=dtype)
        assert torch.equal(native(x, 1), torch.relu(x))
