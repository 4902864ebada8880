"""Extreme singular values by products with vectors are those of the matrix, within the error that they state."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

import liouville as lv
from liouville.analysis import backward_sensitivity, extreme_singular_values
from measure import EPS, generator, randn
from samples import PAIRS, inputs
from samples import flow as flow_of
from turns import one_in


def check(found, spectrum: torch.Tensor, tolerance: float) -> None:
    """The values are right to the stated error, and that error is small; ``spectrum`` is (*batch, n), decreasing."""
    for value, error, true in (
        (found.largest, found.largest_error, spectrum[..., 0]),
        (found.smallest, found.smallest_error, spectrum[..., -1]),
    ):
        assert value.shape == true.shape
        reference = 100 * EPS * spectrum[..., 0]  # the matrices' own rounding
        assert ((value - true).abs() <= error + reference).all()
        assert (error <= tolerance * true + reference).all()
    assert (found.largest <= spectrum[..., 0] * (1 + 1e-10)).all()


@pytest.mark.parametrize(
    ("scheme", "name"),
    one_in(
        3,
        [
            p
            for p in PAIRS
            if "images" in p[1]
            or p[1]
            in ("separable", "pair", "hamiltonian", "antisymmetric-gamma", "second-order", "shear", "hamiltonian-full")
        ],
    ),
)
def test_extremes_are_those_of_the_matrix(scheme: str, name: str) -> None:
    flow = flow_of(scheme, name).eval()
    y = inputs(flow.field, batch=2)
    M = backward_sensitivity(flow, y)
    check(extreme_singular_values(flow, y, steps=200), torch.linalg.svdvals(M[0]), 2e-3)


def test_extremes_of_a_chain_with_changing_widths() -> None:
    torch.manual_seed(0)
    for widths in ((3, 8, 5), (9, 4, 6), (7, 7)):
        chain = nn.Sequential(
            *[m for a, b in itertools.pairwise(widths) for m in (nn.Linear(a, b), nn.Tanh())]
        ).double()
        x = randn(4, widths[0])
        for layer in range(len(chain)):
            M = backward_sensitivity(chain, x)[layer]
            check(extreme_singular_values(chain, x, layer=layer), torch.linalg.svdvals(M), 1e-2)


def test_a_transformer_can_be_asked_too() -> None:
    layers = [nn.TransformerEncoderLayer(4, 2, 8, batch_first=True, dropout=0.0) for _ in range(2)]
    chain, x = nn.Sequential(*layers).double().eval(), randn(2, 3, 4)
    check(extreme_singular_values(chain, x), torch.linalg.svdvals(backward_sensitivity(chain, x)[0]), 1e-2)


def test_the_identity_breaks_the_recurrence_and_is_found() -> None:
    chain = nn.Sequential(nn.Identity(), nn.Hardtanh(-100.0, 100.0)).double()
    check(extreme_singular_values(chain, randn(3, 5)), torch.ones(3, 5).double(), 1e-10)


def test_a_repeated_singular_value_does_not_hide_the_smallest() -> None:
    """Linear with singular values 3, 3, 3, 1: after two steps the recurrence breaks down and must restart."""
    Q = torch.linalg.qr(randn(4, 4)).Q
    linear = nn.Linear(4, 4, bias=False).double()
    with torch.no_grad():
        linear.weight.copy_(Q @ torch.diag(torch.tensor([3.0, 3.0, 3.0, 1.0]).double()) @ Q.mT)
    check(
        extreme_singular_values([linear], randn(5, 4)),
        torch.tensor([[3.0, 3.0, 3.0, 1.0]]).double().expand(5, 4),
        1e-10,
    )


def test_unfinished_searches_say_so() -> None:
    torch.manual_seed(0)
    chain = nn.Sequential(nn.Linear(60, 60)).double()
    found = extreme_singular_values(chain, randn(2, 60), steps=4)
    true = torch.linalg.svdvals(chain[0].weight.detach())
    assert found.steps == 4 and not found.inverted
    assert (found.smallest >= true[-1]).all() and (found.largest <= true[0]).all()
    assert (found.largest_error > 1e-3 * true[0]).all()
    nearest = (true - found.smallest[:, None]).abs().amin(1)
    assert (nearest <= found.smallest_error).all()


def test_a_value_that_stands_apart_is_known_to_be_found_after_a_few_steps() -> None:
    linear = nn.Linear(60, 60, bias=False).double()
    with torch.no_grad():
        linear.weight.copy_(torch.diag(torch.cat((torch.tensor([10.0]), torch.linspace(0.1, 1, 59)))))
    found = extreme_singular_values([linear], randn(2, 60), steps=6)
    assert ((found.largest - 10).abs() <= found.largest_error).all()
    assert (found.largest_error < 1e-3).all() and (found.smallest_error > 1e-3).all()


def test_reversible_schemes_give_the_smallest_by_their_inverse() -> None:
    h2, h1 = lv.zoo.h2(6, 20, 4.0).double(), lv.zoo.h1(6, 20, 2.0).double()
    y = randn(3, 6)
    assert extreme_singular_values(h2, y).inverted
    assert not extreme_singular_values(h1, y).inverted
    found = extreme_singular_values(h2, y, tolerance=1e-8)
    assert ((found.largest * found.smallest - 1).abs() < 1e-6).all()  # J is orthogonal: the pairs are (s, 1/s)


def test_start_vectors_come_from_the_generator() -> None:
    flow, y = lv.zoo.h2(8, 6, 1.0, operator=lv.Conv(3)), torch.randn(2, 8, 6, 6)
    runs = [extreme_singular_values(flow, y, generator=generator(s)).largest for s in (1, 1, 2)]
    assert torch.equal(runs[0], runs[1]) and not torch.equal(runs[0], runs[2])
    torch.testing.assert_close(runs[0], runs[2], rtol=2e-3, atol=0)


def test_a_layer_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match=r"layer must lie in 0 ... 3, got 4"):
        extreme_singular_values(lv.zoo.h2(4, 4, 1.0), torch.randn(1, 4), layer=4)
