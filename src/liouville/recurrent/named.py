r"""The recurrent networks by name: each is a field, a scheme and a step, and nothing else."""

from __future__ import annotations

__all__ = ["AntisymmetricRNN", "AntisymmetricRNNCell", "HamiltonianRNN", "HamiltonianRNNCell"]

from collections.abc import Callable
from typing import Any

import torch

from liouville.activations import Activation
from liouville.backprop import Backprop
from liouville.fields import (
    AntisymmetricField,
    GatedAntisymmetricField,
    Initial,
    SeparableHamiltonianField,
    Smooth,
    VectorField,
)
from liouville.recurrent.cell import Cell
from liouville.recurrent.layer import Recurrent
from liouville.recurrent.start import ACTION, step_for
from liouville.schemes import ForwardEuler, Scheme, SymplecticEuler

_INIT = Smooth(scale=0.175, mean=0.5)


class HamiltonianRNNCell(Cell):
    r"""One step of symplectic Euler through a separable Hamiltonian field that the input drives.

        p_t = p_{t-1} - h X^T K_q^T sigma(K_q q_{t-1} + W_q u_t + b_q)
        q_t = q_{t-1} + h X K_p^T sigma(K_p p_t + W_p u_t + b_p)

    Properties: dState_t/dState_{t-1} is symplectic for every input, weight and step, so no product of them, over any
    number of steps, has a norm below 1: the gradient of every loss reaches the first step.

    Args:
        input_size: the width of u.
        hidden_size: the width of y = (p, q), even.
        length: the expected number of steps, from which h follows (`liouville.recurrent.step_for`).
        h: the step, in place of ``length``.
        action: Omega, how far the fastest mode turns in ``length`` steps at the start; more tells apart more moments.
        input_scale: how far an input of variance 1 moves each bias at the start.
        scheme: `SymplecticEuler`, `Verlet`, `Yoshida4` or another scheme that fits.
        activation: sigma, by name or as an `Activation`.
        init: initial weights of the field.
        generator: random generator of all initial weights; torch's default stream if None.

    Raises:
        ValueError: if hidden_size is odd, or both or neither of ``length`` and ``h`` are given.

    Examples:
        >>> HamiltonianRNNCell(3, 8, length=100)(torch.randn(5, 3)).shape
        torch.Size([5, 8])
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        length: int | None = None,
        h: float | None = None,
        action: float = ACTION,
        input_scale: float = 1.0,
        scheme: Scheme = SymplecticEuler(),
        activation: str | Activation = "tanh",
        init: Initial = _INIT,
        generator: torch.Generator | None = None,
    ) -> None:
        field = SeparableHamiltonianField(hidden_size, 1, activation=activation, init=init, generator=generator)
        step = _step(field, scheme, length, h, action)
        super().__init__(input_size, field, scheme, step, input_scale=input_scale, generator=generator)


class AntisymmetricRNNCell(Cell):
    r"""One step of forward Euler through an antisymmetric field that the input drives.

        y_t = y_{t-1} + h tanh((A - gamma I) y_{t-1} + W u_t + b),        A = W_y - W_y^T

    and with ``gated`` the step is multiplied by sigmoid((A - gamma I) y_{t-1} + V u_t + c), entry by entry.

    Properties: the equation neither damps nor amplifies to first order. Forward Euler amplifies slightly: for gamma = 0
    a step has determinant >= 1, and gradients do not vanish; gamma > 0 damps, and no lower bound holds.

    Reference: Chang, Chen, Haber & Chi, AntisymmetricRNN, ICLR 2019 (1902.09689).

    Args:
        input_size: the width of u.
        hidden_size: the width of y.
        length: the expected number of steps, from which h follows (`liouville.recurrent.step_for`).
        h: the step, in place of ``length``.
        action: Omega, how far the fastest mode turns in ``length`` steps at the start; more tells apart more moments.
        input_scale: how far an input of variance 1 moves each bias at the start.
        gamma: diffusion, >= 0.
        gated: whether a gate multiplies the step.
        scheme: `ForwardEuler`, `RK4`, `ImplicitMidpoint` or another scheme that fits.
        init: initial weights of the field.
        generator: random generator of all initial weights; torch's default stream if None.

    Raises:
        ValueError: if gamma < 0, or both or neither of ``length`` and ``h`` are given.

    Examples:
        >>> AntisymmetricRNNCell(3, 8, length=100, gated=True)(torch.randn(5, 3)).shape
        torch.Size([5, 8])
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        length: int | None = None,
        h: float | None = None,
        action: float = ACTION,
        input_scale: float = 1.0,
        gamma: float = 0.0,
        gated: bool = False,
        scheme: Scheme = ForwardEuler(),
        init: Initial = _INIT,
        generator: torch.Generator | None = None,
    ) -> None:
        kind = GatedAntisymmetricField if gated else AntisymmetricField
        field = kind(hidden_size, 1, gamma=gamma, init=init, generator=generator)
        step = _step(field, scheme, length, h, action)
        super().__init__(input_size, field, scheme, step, input_scale=input_scale, generator=generator)


class HamiltonianRNN(Recurrent):
    """A recurrent layer of `HamiltonianRNNCell`s, called like `torch.nn.GRU`.

    Args:
        input_size: the width of the input.
        hidden_size: the width of a state y = (p, q), even.
        num_layers, batch_first, dropout, bidirectional, backprop: as for `Recurrent`.
        length, h, action, input_scale, scheme, activation, init, generator: as for `HamiltonianRNNCell`.

    Examples:
        >>> rnn = HamiltonianRNN(3, 8, num_layers=2, batch_first=True, length=20)
        >>> output, state = rnn(torch.randn(5, 20, 3))
        >>> output.shape, state.shape
        (torch.Size([5, 20, 8]), torch.Size([2, 5, 8]))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        length: int | None = None,
        h: float | None = None,
        action: float = ACTION,
        input_scale: float = 1.0,
        scheme: Scheme = SymplecticEuler(),
        activation: str | Activation = "tanh",
        init: Initial = _INIT,
        generator: torch.Generator | None = None,
        backprop: Backprop | None = None,
    ) -> None:
        own: dict[str, Any] = {"length": length, "h": h, "action": action, "input_scale": input_scale}
        own |= {"scheme": scheme, "init": init, "generator": generator}
        cells = _levels(
            HamiltonianRNNCell, input_size, hidden_size, num_layers, bidirectional, own, activation=activation
        )
        super().__init__(
            cells,
            num_layers=num_layers,
            batch_first=batch_first,
            dropout=dropout,
            bidirectional=bidirectional,
            backprop=backprop,
        )


class AntisymmetricRNN(Recurrent):
    """A recurrent layer of `AntisymmetricRNNCell`s, called like `torch.nn.GRU`.

    Args:
        input_size: the width of the input.
        hidden_size: the width of a state y.
        num_layers, batch_first, dropout, bidirectional, backprop: as for `Recurrent`.
        length, h, action, input_scale, gamma, gated, scheme, init, generator: as for `AntisymmetricRNNCell`.

    Examples:
        >>> rnn = AntisymmetricRNN(3, 8, length=20, gamma=0.01)
        >>> output, state = rnn(torch.randn(20, 5, 3))
        >>> output.shape, state.shape
        (torch.Size([20, 5, 8]), torch.Size([1, 5, 8]))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        length: int | None = None,
        h: float | None = None,
        action: float = ACTION,
        input_scale: float = 1.0,
        gamma: float = 0.0,
        gated: bool = False,
        scheme: Scheme = ForwardEuler(),
        init: Initial = _INIT,
        generator: torch.Generator | None = None,
        backprop: Backprop | None = None,
    ) -> None:
        own: dict[str, Any] = {"length": length, "h": h, "action": action, "input_scale": input_scale}
        own |= {"scheme": scheme, "init": init, "generator": generator}
        cells = _levels(
            AntisymmetricRNNCell, input_size, hidden_size, num_layers, bidirectional, own, gamma=gamma, gated=gated
        )
        super().__init__(
            cells,
            num_layers=num_layers,
            batch_first=batch_first,
            dropout=dropout,
            bidirectional=bidirectional,
            backprop=backprop,
        )


def _step(field: VectorField, scheme: Scheme, length: int | None, h: float | None, action: float) -> float:
    if (length is None) == (h is None):
        raise ValueError("give length, the expected number of steps, or h, the step: one of the two.")
    if h is not None and action != ACTION:
        raise ValueError(f"action chooses the step for a length, and h = {h} is one already: leave one of them out.")
    return step_for(field, scheme, length, action) if h is None else h  # type: ignore[arg-type]


def _levels(
    kind: Callable[..., Cell],
    input_size: int,
    hidden_size: int,
    num_layers: int,
    bidirectional: bool,
    own: dict[str, Any],
    **more: Any,
) -> list[Cell]:
    """The cells of all levels and directions."""
    directions = 2 if bidirectional else 1
    sizes = [input_size if level == 0 else directions * hidden_size for level in range(num_layers)]
    return [kind(size, hidden_size, **own, **more) for size in sizes for _ in range(directions)]
