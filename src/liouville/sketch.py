r"""Networks without their memory: built as usual, but what would take much lies on torch's ``meta`` device, empty.

A description is a few hundred bytes and may ask for any number of gigabytes. Built as a sketch it shows names, shapes
and dtypes, which are compared with what a file holds before anything is allocated. Small tensors are real, since some
constructors look at their numbers.
"""

from __future__ import annotations

__all__ = ["Sketch", "TooLargeError", "sketching"]

import contextvars
import itertools
import math
import weakref
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

_ACTIVE: contextvars.ContextVar[bool] = contextvars.ContextVar("sketching", default=False)
_META = torch.device("meta")
_BYTES = 16  # of the largest number
_MOST = 2**60
_SIZED = ("empty", "empty_strided", "full", "ones", "rand", "randint", "randn", "randperm", "scalar_tensor", "zeros")


class TooLargeError(ValueError):
    """What a constructor needs to know of its own weights is larger than a sketch may hold."""


def sketching() -> bool:
    """Whether networks are sketched just now, so that nothing is allocated for them."""
    return _ACTIVE.get()


class Sketch(TorchDispatchMode):
    """Inside the block, tensors are real while those that live take ``allowance`` bytes at most, and empty beyond.

    Args:
        allowance: bytes.
        strict: raise where they end, in place of going on with empty tensors.

    Attributes:
        live: bytes of the tensors that live, real or not.
        peak: the most that ``live`` has been: what the same block takes without a sketch.

    Raises:
        TooLargeError: a constructor asks for the numbers in an empty tensor; where ``strict``, for more than allowed.

    Examples:
        >>> with Sketch(1000) as sketch:
        ...     layer = torch.nn.Linear(10**6, 10**6)
        >>> layer.weight.shape, layer.weight.device, sketch.peak
        (torch.Size([1000000, 1000000]), device(type='meta'), 4000004000000)
    """

    def __init__(self, allowance: int, strict: bool = False) -> None:
        super().__init__()
        self.allowance, self.strict, self.live, self.peak = allowance, strict, 0, 0

    def __enter__(self) -> Sketch:
        self._token = _ACTIVE.set(True)
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        _ACTIVE.reset(self._token)
        super().__exit__(*error)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """No: torch would import its compiler for it, in a second, and nothing is compiled here."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        parts = tree_leaves((args, kwargs))
        tensors = [part for part in parts if isinstance(part, Tensor)]
        if any(tensor.is_meta for tensor in tensors):
            made = self._empty(func, args, kwargs)
            if func._schema.name.endswith("_") and isinstance(args[0], Tensor) and not args[0].is_meta:
                return args[0]  # real, and to be filled with what is not known
            return self._counted(made) if _makes(func) else made
        if not _makes(func):
            return func(*args, **kwargs)
        reach = min(_reach(func, tensors, parts), _MOST)
        if self.live + _BYTES * reach > self.allowance:
            sizes = (
                self.strict and not tensors and reach < _MOST
            )  # the empty run would import what it needs for nothing
            needed, made = (_BYTES // 2 * int(reach), None) if sizes else self._needed(func, args, kwargs)
            if self.live + needed > self.allowance:
                if made is None or self.strict:
                    raise TooLargeError(f"it needs {needed:,} bytes at once")
                return self._counted(made)
        return self._counted(func(*args, **kwargs))

    def _counted(self, made: Any) -> Any:
        """The same, whose memory counts until it is given back."""
        for part in tree_leaves(made):
            if isinstance(part, Tensor):
                storage = part.untyped_storage()
                size = storage.nbytes()
                self.live += size
                self.peak = max(self.peak, self.live)
                weakref.finalize(storage, self._forget, size).atexit = False
        return made

    def _forget(self, size: int) -> None:
        self.live -= size

    def _needed(self, func: Any, args: Any, kwargs: Any) -> tuple[int, Any]:
        """How many bytes an operation on real tensors makes, and what it makes, empty."""
        if func is torch.ops.aten.repeat_interleave.Tensor:  # its size is in its numbers
            return 8 * int(args[0].sum()), None
        try:
            made = self._empty(func, args, kwargs)
        except TooLargeError:  # as many as the numbers that are looked at, at most, with a place for each axis
            found = [part for part in tree_leaves((args, kwargs)) if isinstance(part, Tensor)]
            return 16 * sum(tensor.numel() * max(1, tensor.dim()) for tensor in found), None
        return _bytes(made), made

    def _empty(self, func: Any, args: Any, kwargs: Any) -> Any:
        """What an operation makes, on the meta device."""
        args, kwargs = tree_map(_emptied, (args, kwargs))
        places = {argument.name for argument in func._schema.arguments}
        if "device" in places and not any(isinstance(a, torch.device) for a in args):
            kwargs = kwargs | {"device": _META}
        if "generator" in kwargs:
            kwargs = kwargs | {"generator": None}
        try:
            return func(*args, **kwargs)
        except (NotImplementedError, RuntimeError) as error:
            raise TooLargeError("the numbers of a large tensor are asked for while it is built") from error


def _emptied(part: Any) -> Any:
    if isinstance(part, Tensor) and not part.is_meta:
        return torch.empty_strided(part.shape, part.stride(), dtype=part.dtype, device=_META)
    return _META if isinstance(part, torch.device) else None if isinstance(part, torch.Generator) else part


def _reach(func: Any, tensors: list[Tensor], parts: list[Any]) -> float:
    """At least as many numbers as an operation on real tensors makes: its sizes and theirs, multiplied.

    The empty run of `_empty` says it exactly, but for the first time it imports a good part of torch, in a second.
    """
    name = func._schema.name.removeprefix("aten::")
    plain = [part for part in parts if isinstance(part, int | float) and not isinstance(part, bool)]
    if name == "arange":
        start, end, step = (0, *plain, 1) if len(plain) == 1 else (*plain, 1)[:3]
        return abs((end - start) / step) + 1 if step else math.inf
    if name == "eye":
        return (plain[0] * plain[-1]) if plain else math.inf
    if torch.Tag.pointwise in func.tags:
        axes = itertools.zip_longest(*(reversed(tensor.shape) for tensor in tensors), fillvalue=1)
        return math.prod(0 if 0 in sizes else max(sizes) for sizes in axes)
    if name == "mm":
        return tensors[0].shape[0] * tensors[1].shape[1]
    if not tensors and name not in _SIZED:
        return math.inf
    sizes = (max(1, abs(part)) for part in plain if isinstance(part, int))
    return math.prod(tensor.numel() for tensor in tensors if tensor.numel()) * math.prod(sizes)


def _makes(func: Any) -> bool:
    """Whether an operation makes memory of its own: views and work in place do not."""
    return not any(result.alias_info is not None for result in func._schema.returns)


def _bytes(made: Any) -> int:
    return sum(math.prod(t.shape) * t.element_size() for t in tree_leaves(made) if isinstance(t, Tensor))
