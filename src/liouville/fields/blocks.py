r"""Unchanged residual blocks, used as a field: layer j moves x by f_j(x) = block_j(x) - x.

The parameters stay in the blocks, which may differ, share parameters, or freeze some. So theta is not stacked but held
in `Rows`: every tensor once, and for each layer the tensors that it reads. A block reads its own parameters, which its
row only declares to the engine; the arguments of the run are taken from the row.
"""

from __future__ import annotations

__all__ = ["STATE", "Blocks", "Row", "Rows"]

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from liouville.fields.base import Theta
from liouville.fields.bound import Bound
from liouville.fields.given import PerLayer
from liouville.fields.stochastic import scrambled
from liouville.randomness import seeded


class Row(tuple[Tensor, ...]):
    """theta_j of layers that differ: the tensors that layer j reads, first the parameters of its block."""


class Rows(tuple[Tensor, ...]):
    """The weights of layers that differ, used as theta: every tensor once.

    ``places`` holds, for each layer, the indices of the tensors that it reads; the first ``held`` belong to the blocks.
    """

    places: Sequence[Sequence[int]]
    held: int

    @classmethod
    def of(cls, rows: Sequence[Sequence[Tensor]], held: int) -> Rows:
        """From the tensors of each layer, first the parameters of the blocks."""
        numbers: dict[int, int] = {}
        tensors: list[Tensor] = []
        for t in (t for row in rows for t in row):
            if id(t) not in numbers:
                numbers[id(t)] = len(tensors)
                tensors.append(t)
        return cls(tensors).laid_out([[numbers[id(t)] for t in row] for row in rows], held)

    def laid_out(self, places: Sequence[Sequence[int]], held: int) -> Rows:
        """The same tensors, with these places."""
        self.places, self.held = places, held
        return self

    def layer(self, j: int) -> Row:
        """theta_j."""
        return Row(self[i] for i in self.places[j])

    def again(self, *tensors: Tensor) -> Rows:
        """The same places, with other tensors."""
        return Rows(tensors).laid_out(self.places, self.held)

    def leaves(self, needed: Sequence[bool]) -> Rows:
        """The same, with the arguments as leaves that need a gradient where stated; parameters of blocks stay."""
        own, given = self[: self.held], zip(self[self.held :], needed[self.held :], strict=True)
        return self.again(*own, *(t.detach().requires_grad_(n) for t, n in given))


class _Call(NamedTuple):
    """The arguments of one layer; tensors among them are in its row, after the ``first`` parameters of the block."""

    first: int
    leaves: Sequence[Any]
    spec: Any

    def filled(self, row: Sequence[Tensor]) -> tuple[Sequence[Any], Mapping[str, Any]]:
        tensors = iter(row[self.first :])
        return tree_unflatten([next(tensors) if x is _TENSOR else x for x in self.leaves], self.spec)

    def contents(self, filled: tuple[Sequence[Any], Mapping[str, Any]]) -> tuple[list[Any], Any] | None:
        """The contents of the lists and dicts among the arguments; None without any."""
        args, context = filled
        inner = [x for x in (*args, *context.values()) if isinstance(x, list | dict | tuple)]
        return tree_flatten(inner) if inner else None


_TENSOR = object()
STATE = object()
"""Stands for x among the keywords of a call: blocks may take it by name."""


class Blocks(Bound):
    """One run of the blocks with its arguments, as the field that schemes and engines need.

    Args:
        owner: the module that holds the blocks, named in errors.
        blocks: the blocks that run, in order.
        calls: the arguments of each block, (args, kwargs).
        seed: seed of the noise of blocks in training; block j draws from (seed, j), whenever it is evaluated.
    """

    has_effects = False

    def __init__(
        self, owner: nn.Module, blocks: Sequence[nn.Module], calls: Sequence[tuple[Any, Any]], seed: int | None
    ) -> None:
        self.original, self.blocks, self.seed, self.j = owner, blocks, seed, 0
        self.layers = len(blocks)
        self.places = [_places(block) for block in blocks]
        own = [self.own(j) for j in range(self.layers)]
        rows, self.calls = [], []
        for j, (params, call) in enumerate(zip(own, calls, strict=True)):
            leaves, tensors, spec = _flat(call, j, self.layers)
            rows.append((*params, *tensors))
            self.calls.append(_Call(len(params), leaves, spec))
        held = len({id(p) for params in own for p in params})
        self.weights = Rows.of([*own, *rows], held)
        self.weights.laid_out(self.weights.places[self.layers :], held)

    def theta(self) -> Rows:
        """The parameters of all blocks and the tensors among the arguments."""
        return self.weights

    def at_layer(self, j: int) -> Blocks:
        """The step that layer j evaluates."""
        other = object.__new__(Blocks)
        other.__dict__.update(self.__dict__)
        other.j = j
        return other

    def in_run(self, seed: int | None = None) -> Blocks:
        """This field: the run has begun."""
        return self

    def rate(self, theta: Theta) -> Tensor:
        """Unknown for a user's blocks."""
        raise NotImplementedError("user-defined blocks state no rate.")

    def own(self, j: int) -> tuple[Tensor, ...]:
        """The parameters that block j reads now."""
        found = (held[name] for held, name in self.places[j] if held.get(name) is not None)
        return tuple({id(p): p for p in found}.values())

    def __call__(self, x: Tensor, theta_j: Theta) -> Tensor:
        """f_j(x) = block_j(x) - x."""
        args, context = filled = self.calls[self.j].filled(theta_j)
        block, held = self.blocks[self.j], self.calls[self.j].contents(filled)
        with self._noise(block, x.device), self._unharmed(x) as given:
            name = next((key for key, value in context.items() if value is STATE), None)
            out = block(*args, **{**context, name: given}) if name else block(given, *args, **context)
        if held and not _alike(held, self.calls[self.j].contents(filled)):
            raise ValueError(
                f"block {self.j}, {type(block).__name__}, changes a list or dict among its arguments, and each layer "
                "has its own copy; let the block store the result as an attribute (self.loss = ...) and use Stored() "
                "or Checkpointed(), or lv.unwrap the stack."
            )
        return self._moved(out, x) - x

    # as a force, x'' = f(x): what splitting schemes step through

    def p_dot(self, q: Tensor, theta_j: Theta) -> Tensor:
        """p' = f_j(q)."""
        return self(q, theta_j)

    def q_dot(self, p: Tensor, theta_j: Theta) -> Tensor:
        """q' = p."""
        return p

    def enter(self, y: Tensor, p_dot: Callable[[Tensor], Tensor], h: float) -> tuple[Tensor, Tensor]:
        """From rest: p = 0, q = y."""
        return torch.zeros_like(y), y

    def leave(self, p: Tensor, q: Tensor) -> Tensor:
        """q."""
        return q

    def _noise(self, block: nn.Module, device: torch.device) -> contextlib.AbstractContextManager[Any]:
        if self.seed is None or not block.training:
            return contextlib.nullcontext()
        return seeded(scrambled((self.seed << 24) + 4 * self.j) >> 1, device)

    @contextlib.contextmanager
    def _unharmed(self, x: Tensor) -> Iterator[Tensor]:
        """x for a block that must not change it in place."""
        if x.is_inference():  # it has no version counter to compare
            yield x.clone()
            return
        given, version = x.view_as(x), x._version
        try:
            yield given
        except RuntimeError as error:
            if "in-place operation" in str(error) and "leaf" in str(error):
                raise ValueError(self._in_place()) from error
            raise
        if x._version != version:
            raise ValueError(self._in_place())

    def _in_place(self) -> str:
        return (
            f"block {self.j}, {type(self.blocks[self.j]).__name__}, changes its input in place, but its inverse needs "
            "the input; let its first operation make a new tensor (x = x + f(x) instead of x += f(x))."
        )

    def _moved(self, out: Any, x: Tensor) -> Tensor:
        """The hidden states in the output of the block."""
        if isinstance(out, tuple | list) and out and all(more is None for more in out[1:]):
            out = out[0]
        name = f"block {self.j}, {type(self.blocks[self.j]).__name__},"
        if not isinstance(out, Tensor):
            raise TypeError(
                f"{name} must return x + f(x), or a tuple of that and Nones, got {_said(out)}; let it return hidden "
                "states only (with a Hugging Face model, output_attentions=False and use_cache=False)."
            )
        if out.shape != x.shape:
            raise ValueError(
                f"{name} must keep the shape of its input, {tuple(x.shape)}, since it is x + f(x); got "
                f"{tuple(out.shape)}. Leave it out of the stack, and make one stack of the blocks before it and one of "
                "the blocks after it."
            )
        return out


def _alike(before: tuple[list[Any], Any], after: tuple[list[Any], Any] | None) -> bool:
    """Whether both hold the same objects in the same places."""
    if after is None or before[1] != after[1]:
        return False
    return all(a is b for a, b in zip(before[0], after[0], strict=True))


def _places(block: nn.Module) -> list[tuple[Mapping[str, Any], str]]:
    """Where the parameters of a block are held: found once, then quick to read."""
    parts = [part._parameters for part in block.modules()]
    return [(held, name) for held in parts for name, p in held.items() if p is not None]


def _said(out: Any) -> str:
    if isinstance(out, tuple | list):
        return f"a {type(out).__name__} of {', '.join(type(x).__name__ for x in out)}"
    return type(out).__name__


def _flat(call: tuple[Any, Any], j: int, layers: int) -> tuple[list[Any], list[Tensor], Any]:
    """The arguments of layer j as leaves, with marks for tensors; as the tensors; and as the tree structure."""
    leaves, spec = tree_flatten(call, is_leaf=lambda x: isinstance(x, PerLayer))
    for i, x in enumerate(leaves):
        if isinstance(x, PerLayer):
            if len(x.values) != layers:
                raise ValueError(f"an argument per layer has {len(x.values)} values, but there are {layers} layers.")
            leaves[i] = x.values[j]
    tensors = [x for x in leaves if isinstance(x, Tensor)]
    return [_TENSOR if isinstance(x, Tensor) else x for x in leaves], tensors, spec
