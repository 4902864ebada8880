r"""`reversible`: a stack of any residual blocks, run by a reversible scheme.

A plain stack is x -> x + f_j(x), layer by layer: forward Euler with h = 1. The same blocks run by `Momentum` or other
schemes are another network, close to the plain one or not, with layers that can be undone; so only the last state is
kept.
"""

from __future__ import annotations

__all__ = ["ReversibleBlocks", "reversible", "unwrap"]

import warnings
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from liouville.backprop import Backprop, Checkpointed, Reversible, Stored
from liouville.backprop.contract import Advice
from liouville.fields.blocks import Blocks
from liouville.schemes import (
    IMPLICIT,
    Coupled,
    LeapfrogMidpoint,
    Momentum,
    Scheme,
    SymplecticEuler,
)
from liouville.turns import Turns, require_calls, require_no_recording, taken_apart

M = TypeVar("M", bound=nn.Module)

_SCHEMES = {
    "momentum": lambda bits: Momentum(bits),
    "bdia": lambda bits: Momentum(bits, -1),
    "midpoint": lambda bits: LeapfrogMidpoint(),
    "leapfrog": lambda bits: SymplecticEuler(),
    "coupled": lambda bits: Coupled(gain=1.0),
}


def reversible(
    blocks: Iterable[nn.Module],
    scheme: str | Scheme = "momentum",
    bits: int = 4,
    backprop: Backprop = Reversible(exact=True, compensated=True),
) -> ReversibleBlocks:
    r"""One module that runs residual blocks, x -> x + f(x), with memory that hardly grows with their number.

    Parameters stay in place: the blocks are held, not copied, under their old names, so that state_dicts, an existing
    optimiser, frozen or shared parameters, hooks and adapters keep working. Blocks may differ in everything except
    that input and output have the same shape.

    Args:
        blocks: an ``nn.ModuleList``, an ``nn.Sequential`` or a list of modules, each called as ``block(x, ...)``.
        scheme: the replacement of x + f(x), with v_0 = 0:

            - ``"momentum"``: v' = 2^-bits v + (1 - 2^-bits) f(x), x' = x + v', `Momentum`: a pretrained network keeps
              its function to about 2^-bits; ``bits`` bits per entry and layer are stored.
            - ``"bdia"``: the same with -2^-bits.
            - ``"midpoint"``: x'' = x + 2 f(x'), `LeapfrogMidpoint`; ``"leapfrog"``: v' = v + f(x), x' = x + v', which
              is `SymplecticEuler` with f as a force; ``"coupled"``: two alternating streams, `Coupled` with gain 1.
              They store no bits, but are other networks than the plain one: train them from the start.

            Or a scheme of the library.
        bits: number of bits for momentum and bdia, 1, 2, 4 or 8.
        backprop: the default restores every bit, on 64-bit integers. ``Reversible()`` is faster, only for schemes
            without bits, and its drift is measured. ``Stored()`` and ``Checkpointed()`` run the same network without
            inversion.

    Raises:
        TypeError: if a block is not a module.
        ValueError: for an unknown scheme, batch normalisation in training mode, no blocks, or an engine that cannot run
            the scheme; in a run, if a block changes its input in place or the shape.
        RuntimeError: in a run, if a block changes a buffer or depends on parameters that are not its own.

    Examples:
        >>> blocks = nn.ModuleList(nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 8)) for _ in range(12))
        >>> class Residual(nn.Module):
        ...     def __init__(self, f):
        ...         super().__init__()
        ...         self.f = f
        ...     def forward(self, x):
        ...         return x + self.f(x)
        >>> stack = reversible([Residual(f) for f in blocks])
        >>> stack(torch.randn(2, 8)).sum().backward()
        >>> blocks[0][1].weight.grad is not None, len(unwrap(stack))
        (True, 12)
    """
    if isinstance(scheme, str):
        if scheme not in _SCHEMES:
            raise ValueError(
                f"scheme must be one of {', '.join(_SCHEMES)}, or a scheme of the library, got {scheme!r}."
            )
        scheme = _SCHEMES[scheme](bits)
    if not isinstance(scheme, Scheme):
        raise TypeError(
            f"scheme must be one of {', '.join(_SCHEMES)}, or a scheme of the library, such as lv.Momentum(4), got "
            f"{scheme!r}."
        )
    if isinstance(scheme, IMPLICIT):
        raise ValueError(f"{scheme} solves an equation in each layer and is only for fields; take an explicit scheme.")
    return ReversibleBlocks(blocks, scheme, backprop)


def unwrap(module: M) -> M | nn.ModuleList | nn.Sequential:
    """The plain stack of the same blocks, an nn.Sequential if it was one, else an nn.ModuleList; for a model, the model
    with every reversible stack replaced in this way.

    Raises:
        ValueError: if there is none.
    """
    if isinstance(module, ReversibleBlocks):
        return module.plain()
    found = False
    for part in list(module.modules()):
        for name, child in list(part._modules.items()):
            if isinstance(child, ReversibleBlocks):
                part._modules[name], found = child.plain(), True
    if not found:
        raise ValueError(f"there is no reversible stack in {type(module).__name__}.")
    return module


class ReversibleBlocks(nn.ModuleList):
    """The result of `reversible`: the blocks under their names, run by a scheme when it is called or iterated.

    ``stack(x, mask)`` passes the arguments to every block, and its own value of each `liouville.PerLayer`. If a model
    iterates over its layers, ``for layer in self.layers: x = layer(x, mask)``, the call of the last layer runs the
    stack, each layer with the arguments of its call; see `liouville.turns`.
    """

    advice = Advice(
        noise="Draw from torch's own streams inside a block in training mode, which are replayed, or use Stored().",
        buffer="Call eval() on batch normalisation and other running statistics, or use Stored().",
        door="its own parameters and the arguments of the run",
        parameter="Hold it in the block, pass it to the stack as an argument, or use Stored().",
        impure="call eval() on such parts",
    )

    def __init__(self, blocks: Iterable[nn.Module], scheme: Scheme, backprop: Backprop) -> None:
        named = _named(blocks)
        super().__init__()
        self._modules.update(named)
        self.scheme, self.backprop = scheme, backprop
        self._sequential = isinstance(blocks, nn.Sequential)
        if not isinstance(backprop, Stored | Checkpointed | Reversible):
            raise ValueError(f"blocks are run by Reversible, Checkpointed or Stored, got {backprop!r}.")
        backprop.check(scheme, self)  # type: ignore[arg-type]
        for name, part in self.named_modules():
            if part.training and getattr(part, "track_running_stats", False):
                raise ValueError(
                    f"{name} is {type(part).__name__} in training mode: it would update its statistics at each of the "
                    "two evaluations of a layer; call eval() on it, or replace it by GroupNorm or LayerNorm."
                )

    def plain(self) -> nn.ModuleList | nn.Sequential:
        """The blocks in a plain container, under the same names."""
        stack: Any = nn.Sequential() if self._sequential else nn.ModuleList()
        stack._modules.update(self._modules)
        stack.training = self.training
        return stack

    def forward(self, *args: Any, **context: Any) -> Tensor:
        """The output of the stack, shaped like x, its first argument (or the one named x or hidden_states)."""
        x, args, context = taken_apart(args, context)
        return self.run(x, list(self._modules.values()), [(args, context)] * len(self))

    def run(self, x: Tensor, blocks: Sequence[nn.Module], calls: Sequence[tuple[Any, Any]]) -> Tensor:
        """The output of the first blocks, each with its arguments."""
        if torch.compiler.is_compiling():  # a declared graph break
            return torch.compiler.disable(self._run)(x, blocks, calls)
        return self._run(x, blocks, calls)

    def _run(self, x: Tensor, blocks: Sequence[nn.Module], calls: Sequence[tuple[Any, Any]]) -> Tensor:
        if not isinstance(x, Tensor) or not x.is_floating_point():
            what = f"a tensor of {x.dtype}" if isinstance(x, Tensor) else type(x).__name__
            raise TypeError(f"a reversible stack takes hidden states, a floating-point tensor, got {what}.")
        require_no_recording()
        traced = torch.is_grad_enabled()
        if traced:
            calls = require_calls(calls)
            self._warn_of_checkpoints(blocks)
        seed = int(torch.randint(2**31, ())) if any(block.training for block in blocks) else None
        field: Any = Blocks(self, blocks, calls, seed)
        theta = field.theta()
        needed = traced and (x.requires_grad or any(w.requires_grad for w in theta))
        engine = self.backprop if needed else Stored()
        state = self.scheme.init(field.at_layer(0), x, theta.layer(0), 1.0)
        return self.scheme.final(field, engine.run(self.scheme, field, state, theta, 1.0))

    def _warn_of_checkpoints(self, blocks: Sequence[nn.Module]) -> None:
        if any(getattr(block, "gradient_checkpointing", False) and block.training for block in blocks):
            warnings.warn(
                "gradient checkpointing is on inside a reversible stack: every block is evaluated once more without "
                "need; call model.gradient_checkpointing_disable().",
                stacklevel=4,
            )

    def __iter__(self) -> Any:
        return iter(self[:])

    def __getitem__(self, index: Any) -> Any:
        return Turns.of(self, index)

    def __repr__(self) -> str:
        blocks = super().__repr__().partition("(")[2]
        return f"{type(self).__name__}(scheme={self.scheme}, backprop={self.backprop},{blocks}"


def _named(blocks: Iterable[nn.Module]) -> dict[str, nn.Module]:
    if isinstance(blocks, ReversibleBlocks):
        raise ValueError("these blocks are a reversible stack already; lv.unwrap gives the plain one back.")
    if isinstance(blocks, nn.ModuleList | nn.Sequential):
        named = dict(blocks._modules)
    elif isinstance(blocks, nn.Module):
        raise TypeError(f"blocks must be an nn.ModuleList, an nn.Sequential or a list, got {type(blocks).__name__}.")
    else:
        named = {str(j): block for j, block in enumerate(blocks)}
    for name, block in named.items():
        if not isinstance(block, nn.Module):
            raise TypeError(f"blocks must be modules, got {type(block).__name__} for block {name}.")
    if not named:
        raise ValueError("there are no blocks.")
    return named
