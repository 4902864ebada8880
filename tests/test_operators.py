"""<K y, z> = <y, K^T z>, and every statement about K, against the matrix obtained from basis vectors."""

import dataclasses

import pytest
import torch

import liouville as lv
import samples
from liouville.operators import Conv, Operator
from measure import EPS, near, randn

each = pytest.mark.parametrize("operator", samples.OPERATORS.values(), ids=samples.OPERATORS)
IN, OUT = 6, 3


def positions(operator):
    return (4, 3, 5)[: -1 - operator.feature_axis]


def weight(operator, outputs=OUT, inputs=IN, seed=0):
    return operator.constrain(randn(*operator.weight_shape(outputs, inputs), seed=seed))


def matrix(apply, features, shape):
    """The matrix of a linear map, column by column."""
    size = features * torch.Size(shape).numel()
    basis = torch.eye(size, dtype=torch.float64).reshape(size, features, *shape)
    return apply(basis).reshape(size, -1).mT


def terms(operator):
    """Numbers added up per entry of K y: each rounds once."""
    return (IN + OUT) * getattr(operator, "kernel", 1) ** len(positions(operator))


def check_adjoint(operator):
    K, shape = weight(operator), positions(operator)
    y, z = randn(5, IN, *shape, seed=1), randn(5, OUT, *shape, seed=2)
    left = (operator.apply(K, y) * z).sum()
    right = (y * operator.apply_transpose(K, z)).sum()
    # at most all products of one sum, each rounded once
    near(left, right, EPS * terms(operator) * float((operator.apply(K, y).abs() * z.abs()).sum()))


def check_transpose(operator):
    """The weight transpose(K) acts as K^T: dense matrices, and a stack of layers."""
    stack, shape = torch.stack([weight(operator, seed=s) for s in (3, 4)]), positions(operator)
    for K, Kt in zip(stack, operator.transpose(stack), strict=True):
        A = matrix(lambda y, K=K: operator.apply(K, y), IN, shape)
        B = matrix(lambda z, K=K: operator.apply_transpose(K, z), OUT, shape)
        C = matrix(lambda z, Kt=Kt: operator.apply(Kt, z), OUT, shape)
        assert torch.equal(B, A.mT)  # basis vectors pick single weights: no rounding at all
        assert torch.equal(C, A.mT)
        assert torch.equal(operator.transpose(Kt), K)


def check_skew(operator):
    W = weight(operator, IN, IN)
    A = matrix(lambda y: operator.apply(W - operator.transpose(W), y), IN, positions(operator))
    assert torch.equal(A, -A.mT)
    assert A.abs().max() > 0.1


@each
def test_apply_transpose_is_the_adjoint(operator):
    check_adjoint(operator)


@each
def test_transpose_is_the_weight_of_the_adjoint(operator):
    check_transpose(operator)


@each
def test_weight_minus_its_transpose_is_a_skew_matrix(operator):
    check_skew(operator)


def test_the_laws_catch_wrong_transposes():
    class Unflipped(Conv):
        def transpose(self, weight):
            return weight.transpose(-self.dims - 2, -self.dims - 1)

    class Flipped(Conv):
        def apply_transpose(self, weight, z):
            return self.apply(weight.transpose(-self.dims - 2, -self.dims - 1), z)

    for dims in (1, 2, 3):
        for check, wrong in ((check_transpose, Unflipped), (check_skew, Unflipped), (check_adjoint, Flipped)):
            with pytest.raises(AssertionError):
                check(wrong(3, dims))
            check(wrong(1, dims))  # a 1x1 stencil has nothing to flip


@each
def test_bias_is_one_number_per_output_feature(operator):
    K, b, shape = weight(operator), randn(OUT, seed=5), positions(operator)
    y = randn(4, IN, *shape, seed=6)
    shift = operator.apply(K, y, b) - operator.apply(K, y)
    expected = b.reshape(OUT, *(1,) * len(shape)).expand(4, OUT, *shape)
    near(shift, expected, EPS * terms(operator) * float(operator.apply(K, y).abs().max() + 1))
    assert torch.equal(operator.broadcast(b).expand(4, OUT, *shape), expected)


@each
def test_mix_is_one_matrix_at_every_position(operator):
    J, y = randn(OUT, IN, seed=7), randn(4, IN, *positions(operator), seed=8)
    expected = torch.einsum("ij,bj...->bi...", J, y)
    near(operator.mix(J, y), expected, 4 * IN * EPS * float(expected.abs().max() + 1))


@each
def test_norm_bounds_every_layer_and_is_exact_for_a_matrix(operator):
    stack = torch.stack([weight(operator, seed=s) for s in range(4)])
    bounds = operator.norm(stack)
    assert bounds.shape == (4,)
    for K, bound in zip(stack, bounds.tolist(), strict=True):
        A = matrix(lambda y, K=K: operator.apply(K, y), IN, positions(operator))
        exact = float(torch.linalg.matrix_norm(A, ord=2))
        slack = 10 * len(A) * EPS * exact  # backward error of the singular value decomposition
        assert bound >= exact - slack
        if getattr(operator, "kernel", 1) == 1:
            near(bound, exact, slack)
    near(operator.norm(stack[0]), bounds[0], 10 * len(A) * EPS * float(bounds[0]))


def test_norm_is_not_merely_the_norm_of_one_tap():
    """A constant stencil adds its taps up: nothing smaller than their sum bounds it on a large image."""
    K = torch.ones(1, 1, 3, dtype=torch.float64)
    A = matrix(lambda y: Conv(3, 1).apply(K, y), 1, (200,))
    assert float(torch.linalg.matrix_norm(A, ord=2)) > 2.999
    near(Conv(3, 1).norm(K), 3.0, 4 * EPS)


@each
def test_operators_are_values(operator):
    assert operator == dataclasses.replace(operator)
    assert hash(operator) == hash(dataclasses.replace(operator))
    assert isinstance(operator, Operator)
    assert operator.weight_shape(OUT, IN)[:2] == (OUT, IN)


def test_dense_takes_any_leading_axes():
    K, y = weight(lv.Dense()), randn(2, 3, 5, IN)
    assert lv.Dense().apply(K, y).shape == (2, 3, 5, OUT)
    assert lv.Dense().apply_transpose(K, y[..., :OUT]).shape == (2, 3, 5, IN)


@pytest.mark.parametrize("kernel, dims, message", [(4, 2, "got 4, use 5"), (0, 2, "odd"), (3, 4, "1 .signals.*got 4")])
def test_errors_say_what_to_use(kernel, dims, message):
    with pytest.raises(ValueError, match=message):
        Conv(kernel, dims)
