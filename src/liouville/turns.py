r"""A reversible stack whose model iterates over the layers: ``for layer in self.layers: x = layer(x, ...)``.

The first calls record their arguments and return a placeholder for the hidden states; the last call runs the stack.
Any other use of a placeholder is an error: between two layers there are no hidden states.
"""

from __future__ import annotations

__all__ = ["Turns", "require_calls", "require_no_recording", "taken_apart"]

import enum
import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from liouville.fields.blocks import STATE
from liouville.fields.given import PerLayer

_PLAIN = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device, torch.layout, slice, enum.Enum)
_SHAPES = ("shape", "dtype", "device", "ndim", "layout", "requires_grad", "is_cuda", "is_cpu", "size", "dim", "numel")


class Turns:
    """One pass over the first layers of a stack."""

    def __init__(self, stack: Any, blocks: Sequence[nn.Module]) -> None:
        self.stack, self.blocks = stack, blocks
        self.calls: list[tuple[Any, Any]] = []
        self.x: Any = None
        self.held: Any = None

    @classmethod
    def of(cls, stack: Any, index: Any) -> Any:
        """The value of ``stack[index]``: the turns for a slice from the first layer on, one layer for a number."""
        blocks = list(stack._modules.values())
        if not isinstance(index, slice):
            return _Layer(None, blocks[index])
        chosen = range(len(blocks))[index]
        if len(chosen) and (chosen.start != 0 or chosen.step != 1):
            raise ValueError(
                "a reversible stack runs from its first layer on; take stack[:n], or two stacks to run the layers "
                "before and after a place separately."
            )
        turns = cls(stack, blocks[index])
        return _First(turns)

    def take(self, block: nn.Module, x: Any, args: tuple[Any, ...], context: dict[str, Any]) -> Tensor:
        """The call of one layer, in its turn."""
        j = len(self.calls)
        if block is not self.blocks[j] or (j and x is not self.held):
            raise RuntimeError(_BETWEEN)
        if j == 0:
            self.x, self.held = x, x.as_subclass(_Pending) if type(x) is Tensor else x
        self.calls.append((args, context))
        if len(self.calls) < len(self.blocks):
            return self.held
        x, calls, self.calls, self.x, self.held = self.x, self.calls, [], None, None
        return self.stack.run(x, self.blocks, calls)


class _First(list[Any]):
    """The first layers of a stack, to be iterated or called."""

    def __init__(self, turns: Turns) -> None:
        super().__init__(_Layer(turns, block) for block in turns.blocks)
        self._turns = turns

    def __call__(self, *args: Any, **context: Any) -> Any:
        x, args, context = taken_apart(args, context)
        return self._turns.stack.run(x, self._turns.blocks, [(args, context)] * len(self))


class _Layer:
    """A layer of a stack, with the attributes of the block; a call takes its turn, or is refused out of turn."""

    def __init__(self, turns: Turns | None, block: nn.Module) -> None:
        object.__setattr__(self, "_turns", turns)
        object.__setattr__(self, "_block", block)

    def __call__(self, *args: Any, **context: Any) -> Any:
        if self._turns is None:
            raise RuntimeError(
                "one layer of a reversible stack by itself is x + f(x), which is not a step of the stack; call the "
                "stack, or lv.unwrap(stack)[i] for the plain layer."
            )
        return self._turns.take(self._block, *taken_apart(args, context))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._block, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._block, name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self._block, name)

    def __repr__(self) -> str:
        return repr(self._block)


class _Pending(Tensor):
    """Placeholder for the hidden states between two layers, which are not computed."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(getattr(func, "__self__", None), "__name__", None) or getattr(func, "__name__", "")
        if name in _SHAPES:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **(kwargs or {}))
        raise RuntimeError(_BETWEEN)


def taken_apart(args: tuple[Any, ...], context: dict[str, Any]) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    """The hidden states of a call, the first argument or one by name, and the other arguments."""
    if args:
        return args[0], args[1:], context
    for name in ("hidden_states", "x"):
        if name in context:
            return context[name], args, {**context, name: STATE}
    return None, args, context


_BETWEEN = (
    "the layers of a reversible stack run together, when the last one is called, so between two of them there are "
    "no hidden states to look at, to change or to return (output_hidden_states, layers that are skipped, an early "
    "exit); call the stack, take stack[:n], or lv.unwrap it."
)


def require_no_recording() -> None:
    """Raise a `ValueError` while transformers records outputs of layers: x + f(x) is not a state of the stack."""
    recorder: Any = sys.modules.get("transformers.utils.output_capturing")
    active = getattr(recorder, "_active_collector", None)
    if active is not None and active.get():
        what = ", ".join(f"output_{name}" for name in active.get() if not name.startswith("_"))
        raise ValueError(
            f"{what} asks for the output of every layer, which is x + f(x) and not a state of a reversible stack; "
            "leave it out, or lv.unwrap the model for it."
        )


def require_calls(calls: Sequence[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """The arguments of every layer, made safe for two evaluations: an empty cache is left out.

    Raises:
        ValueError: for a cache that is not empty, or any other object that a layer might change.
    """
    known: dict[int, tuple[Any, Any]] = {}
    return [known.setdefault(id(call), _admitted(call)) for call in calls]


def _admitted(call: tuple[Any, Any]) -> tuple[Any, Any]:
    leaves, spec = tree_flatten(call, is_leaf=lambda x: isinstance(x, PerLayer))
    return tree_unflatten([_leaf(x) for x in leaves], spec)


def _leaf(x: Any) -> Any:
    if isinstance(x, (Tensor, PerLayer, *_PLAIN)) or callable(x) or x is STATE:
        return x
    length = getattr(x, "get_seq_length", None)
    if length is not None:
        if int(length()) == 0:
            return None
        raise ValueError(
            f"the {type(x).__name__} passed to the blocks holds {int(length())} tokens, and layers that are evaluated "
            "twice would add to it twice; give use_cache=False while training, or generate under torch.no_grad()."
        )
    raise ValueError(
        f"an argument of the blocks is a {type(x).__name__}, which a layer may change, and layers are evaluated twice; "
        "give tensors, numbers, strings, and tuples, lists and dicts of them."
    )
