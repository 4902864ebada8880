r"""The papers' networks by name: each is one field and one scheme, and nothing else.

P1 is Haber & Ruthotto (1705.03341), P2 Galimberti et al. (2105.13205), P3 its predecessor (2104.13166), P4 Chang et
al. (1709.03698). Every function returns a `Flow`; `liouville.classifier` and `liouville.regressor` put a lift and a
head around one.
Their common arguments are explained here, and `help` of each function shows them with its own:

Args:
    features: n, the width of the state; for two parts, p and q, the sum of both widths.
    layers: N, the number of steps.
    T: final time; the step is h = T / layers. More layers take finer steps at fixed T, and reach a longer T at fixed h.
    operator: family of K: `Dense` for vectors, `Conv` for signals, images and volumes, `Graph` for sparse blocks.
    activation: sigma, by its name in ``liouville.activations.ACTIVATIONS`` or as an `Activation`.
    shared: one weight for all layers.
    init: how initial weights are drawn: `Smooth` in depth, or `Normal`, independent in every layer.
    generator: random generator of the initial weights; torch's default stream if None.
    backprop: the engine, which decides what a run stores and never changes the result: `Auto`, which chooses one,
        `Stored`, `Checkpointed`, `Reversible`, `Fused` or `BatchLast`.
"""

from __future__ import annotations

__all__ = [
    "MODELS",
    "antisymmetric",
    "h1",
    "h2",
    "leapfrog",
    "midpoint",
    "ms1",
    "ms2",
    "ms3",
    "resnet",
    "verlet",
]

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from liouville.activations import Activation
from liouville.backprop import Backprop
from liouville.fields import (
    AntisymmetricField,
    HamiltonianField,
    Initial,
    PairField,
    ResidualField,
    SecondOrderField,
    SemidefiniteField,
    SeparableHamiltonianField,
    Smooth,
    SymmetricField,
)
from liouville.flow import Flow
from liouville.kernels import Auto
from liouville.names import lookup
from liouville.operators import Dense, Operator
from liouville.schemes import ForwardEuler, LeapfrogMidpoint, SymplecticEuler
from liouville.zoo.explained import explained

Builder = Callable[..., Flow]
_explained = explained(__doc__)


@_explained
def h1(
    features: int,
    layers: int,
    T: float,
    *,
    J: str | Tensor = "canonical",
    train_J: bool = False,
    operator: Operator = Dense(),
    activation: str | Activation = "tanh",
    shared: bool = False,
    init: Initial = Smooth(),
    generator: torch.Generator | None = None,
    backprop: Backprop = Auto(),
) -> Flow:
    """P2's H1-DNN: y_{j+1} = y_j + h J K_j^T sigma(K_j y_j + b_j). P3 calls ``J="full"`` H2-DNN.

    Args:
        J: ``"canonical"`` (n even), ``"full"``, or a skew matrix, (n, n) for all layers or (N, n, n).
        train_J: train J, too.

    Examples:
        >>> h1(4, layers=64, T=2.0).scheme
        ForwardEuler()
    """
    field = HamiltonianField(
        features,
        layers,
        J=J,
        train_J=train_J,
        operator=operator,
        activation=activation,
        shared=shared,
        init=init,
        generator=generator,
    )
    return Flow(field, ForwardEuler(), T, backprop)


@_explained
def h2(
    features: int,
    layers: int,
    T: float,
    *,
    X: Tensor | float | None = None,
    hidden: int | None = None,
    operator: Operator = Dense(),
    activation: str | Activation = "tanh",
    shared: bool = False,
    init: Initial = Smooth(),
    generator: torch.Generator | None = None,
    backprop: Backprop = Auto(),
) -> Flow:
    """P2's H2-DNN: p += -h X^T K_q^T sigma(K_q q + b_q), then q += h X K_p^T sigma(K_p p + b_p). Symplectic.

    Args:
        X: coupling of p and q: a matrix (n_q, n_p), a number c for c I, or None for I.
        hidden: rows of K_p and K_q; the widths of p and q if None.

    Examples:
        >>> h2(4, layers=64, T=6.4).scheme
        SymplecticEuler()
    """
    field = SeparableHamiltonianField(
        features,
        layers,
        X=X,
        hidden=hidden,
        operator=operator,
        activation=activation,
        shared=shared,
        init=init,
        generator=generator,
    )
    return Flow(field, SymplecticEuler(), T, backprop)


@_explained
def ms1(
    features: int,
    layers: int,
    T: float,
    *,
    scalar_bias: bool = False,
    operator: Operator = Dense(),
    activation: str | Activation = "tanh",
    shared: bool = False,
    init: Initial = Smooth(),
    generator: torch.Generator | None = None,
    backprop: Backprop = Auto(),
) -> Flow:
    """P3's MS1: z += -h sigma(K^T y + c), then y += h sigma(K z + b), with state (p, q) = (z, y).

    Args:
        scalar_bias: one number per layer instead of the vectors b and c.

    Examples:
        >>> ms1(4, layers=64, T=2.0).field.theta().K.shape
        torch.Size([64, 2, 2])
    """
    field = PairField(
        features,
        layers,
        scalar_bias=scalar_bias,
        operator=operator,
        activation=activation,
        shared=shared,
        init=init,
        generator=generator,
    )
    return Flow(field, SymplecticEuler(), T, backprop)


@_explained
def verlet(
    features: int,
    layers: int,
    T: float,
    *,
    operator: Operator = Dense(),
    activation: str | Activation = "tanh",
    shared: bool = False,
    init: Initial = Smooth(),
    generator: torch.Generator | None = None,
    backprop: Backprop = Auto(),
) -> Flow:
    """P1's Hamiltonian network (sec. 4.2, 4.3): `ms1` with one scalar bias per layer for both halves.

    Put the data into y with ``Lift(features, place="q")``.

    Examples:
        >>> verlet(4, layers=16, T=20.0).field.scalar_bias
        True
    """
    return ms1(
        features,
        layers,
        T,
        scalar_bias=True,
        operator=operator,
        activation=activation,
        shared=shared,
        init=init,
        generator=generator,
        backprop=backprop,
    )


@_explained
def ms2(
    features: int,
    layers: int,
    T: float,
    *,
    gamma: float = 0.0,
    operator: Operator = Dense(),
    activation: str | Activation = "tanh",
    shared: bool = False,
    init: Initial = Smooth(),
    generator: torch.Generator | None = None,
    backprop: Backprop = Auto(),
) -> Flow:
    """P3's MS2: y_{j+1} = y_j + h sigma((W_j - W_j^T - gamma I) y_j + b_j).

    Args:
        gamma: damping, >= 0.

    Examples:
        >>> ms2(4, layers=64, T=2.0).scheme
        ForwardEuler()
    """
    field = AntisymmetricField(
        features,
        layers,
        gamma=gamma,
        operator=operator,
        activation=activation,
        shared=shared,
        init=init,
        generator=generator,
    )
    return Flow(field, ForwardEuler(), T, backprop)


@_explained
def antisymmetric(
    features: int,
    layers: int,
    T: float,
    *,
    gamma: float = 0.0,
    factor: float = 0.5,
    scalar_bias: bool = True,
    operator: Operator = Dense(),
    activation: str | Activation = "tanh",
    shared: bool = False,
    init: Initial = Smooth(),
    generator: torch.Generator | None = None,
    backprop: Backprop = Auto(),
) -> Flow:
    """P1's eq. (4.12): y_{j+1} = y_j + h sigma(1/2 (W_j - W_j^T - gamma I) y_j + b_j), b_j a number.

    Args:
        gamma: damping, >= 0.
        factor: factor of the matrix W - W^T - gamma I.
        scalar_bias: whether b_j is one number, else a vector.

    Examples:
        >>> antisymmetric(4, layers=64, T=20.0, gamma=1e-4).field.factor
        0.5
    """
    field = AntisymmetricField(
        features,
        layers,
        gamma=gamma,
        factor=factor,
        scalar_bias=scalar_bias,
        operator=operator,
        activation=activation,
        shared=shared,
        init=init,
        generator=generator,
    )
    return Flow(field, ForwardEuler(), T, backprop)


@_explained
def midpoint(
    features: int,
    layers: int,
    T: float,
    *,
    gamma: float = 0.0,
    operator: Operator = Dense(),
    activation: str | Activation = "tanh",
    shared: bool = False,
    init: Initial = Smooth(),
    generator: torch.Generator | None = None,
    backprop: Backprop = Auto(),
) -> Flow:
    """P4's midpoint network: y_{j+1} = y_{j-1} + 2 h sigma((W_j - W_j^T) y_j + b_j), y_1 by forward Euler.

    Args:
        gamma: damping; leave it at 0, since this scheme amplifies damped modes.

    Examples:
        >>> midpoint(4, layers=64, T=2.0).scheme
        LeapfrogMidpoint()
    """
    field = AntisymmetricField(
        features,
        layers,
        gamma=gamma,
        operator=operator,
        activation=activation,
        shared=shared,
        init=init,
        generator=generator,
    )
    return Flow(field, LeapfrogMidpoint(), T, backprop)


@_explained
def ms3(
    features: int,
    layers: int,
    T: float,
    *,
    hidden: int | None = None,
    operator: Operator = Dense(),
    activation: str | Activation = "tanh",
    shared: bool = False,
    init: Initial = Smooth(),
    generator: torch.Generator | None = None,
    backprop: Backprop = Auto(),
) -> Flow:
    """P3's MS3, P4's Hamiltonian block: y += h K1^T sigma(K1 z + b1), then z += -h K2^T sigma(K2 y + b2).

    It is the separable field with p = y, q = z, X = -I, K_q = K1 and K_p = K2.

    Args:
        hidden: rows of K1 and K2; the widths of their halves if None.

    Examples:
        >>> field = ms3(2, layers=4, T=1.0).field
        >>> float(field.structure(field.theta())[0, 1])
        1.0
    """
    return h2(
        features,
        layers,
        T,
        X=-1.0,
        hidden=hidden,
        operator=operator,
        activation=activation,
        shared=shared,
        init=init,
        generator=generator,
        backprop=backprop,
    )


@_explained
def leapfrog(
    features: int,
    layers: int,
    T: float,
    *,
    force: Literal["symmetric", "semidefinite"] = "symmetric",
    start: Literal["half", "rest"] = "half",
    operator: Operator = Dense(),
    activation: str | Activation = "tanh",
    shared: bool = False,
    init: Initial = Smooth(),
    generator: torch.Generator | None = None,
    backprop: Backprop = Auto(),
) -> Flow:
    """y_{j+1} = 2 y_j - y_{j-1} + h^2 f(y_j; theta_j), run as symplectic Euler on y'' = f(y).

    Args:
        force: ``"symmetric"``: f = -K^T sigma(K y + b) (P4); ``"semidefinite"``: f = sigma(-C^T C y + b) (P1).
        start: ``"half"``: y_1 = y_0 + h^2/2 f(y_0), order 2; ``"rest"``: y_{-1} = y_0, the authors' code, order 1.

    Examples:
        >>> leapfrog(4, layers=64, T=2.0).field.start
        'half'
    """
    kind = lookup({"symmetric": SymmetricField, "semidefinite": SemidefiniteField}, force, "force")
    field = kind(
        features,
        layers,
        operator=operator,
        activation=activation,
        shared=shared,
        init=init,
        generator=generator,
    )
    return Flow(SecondOrderField(field, start=start), SymplecticEuler(), T, backprop)


@_explained
def resnet(
    features: int,
    layers: int,
    T: float,
    *,
    scalar_bias: bool = False,
    operator: Operator = Dense(),
    activation: str | Activation = "tanh",
    shared: bool = False,
    init: Initial = Smooth(),
    generator: torch.Generator | None = None,
    backprop: Backprop = Auto(),
) -> Flow:
    """P1's eq. (2.1): y_{j+1} = y_j + h sigma(K_j y_j + b_j). The baseline, without guarantees.

    Args:
        scalar_bias: whether b_j is one number per layer instead of a vector.

    Examples:
        >>> resnet(4, layers=64, T=2.0).scheme
        ForwardEuler()
    """
    field = ResidualField(
        features,
        layers,
        scalar_bias=scalar_bias,
        operator=operator,
        activation=activation,
        shared=shared,
        init=init,
        generator=generator,
    )
    return Flow(field, ForwardEuler(), T, backprop)


MODELS: dict[str, Builder] = {
    f.__name__: f for f in (h1, h2, ms1, ms2, ms3, antisymmetric, verlet, leapfrog, midpoint, resnet)
}
