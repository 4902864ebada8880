r"""The contract of layers that an engine evaluates twice, and how a breach is noticed.

A velocity must be a function of only its arguments. A second evaluation with other random numbers, or a parameter that
does not come through ``theta()``, would silently give a wrong gradient; each check here raises instead.
"""

from __future__ import annotations

__all__ = [
    "NO_SECOND",
    "STORED",
    "Advice",
    "advice",
    "autocast_now",
    "impure",
    "is_autocast",
    "is_declared",
    "is_plain_autograd",
    "kind_of",
    "operations",
    "require_declared",
    "require_no_other_way",
    "require_plain_autograd",
    "rewind",
    "streams",
    "unwritten",
    "watched",
]

import contextlib
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from liouville.devices import is_capturing
from liouville.fields.stochastic import original

_any_autocast = torch._C._is_any_autocast_enabled
STORED = "use flow.with_backprop(lv.Stored()), the plain loop, for it"
NO_SECOND = f"Reversible, and Auto where it chose it, have no second derivatives; {STORED}."


def is_plain_autograd(tensors: Sequence[Tensor]) -> bool:
    """Whether neither a torch.func transform (grad, vmap, jvp, ...) nor forward-mode differentiation is active."""
    if torch._C._are_functorch_transforms_active():
        return False
    if torch.compiler.is_compiling():  # a compiler sees only one kind of tensors
        return True
    batched = torch._C._functorch.is_legacy_batchedtensor  # torch.autograd.grad(..., is_grads_batched=True)
    if any(batched(t) for t in tensors):
        return False
    return forward_ad._current_level < 0 or all(forward_ad.unpack_dual(t).tangent is None for t in tensors)


def is_autocast(device: str) -> bool:
    """Whether autocast is on for a kind of device; False for a kind without autocast, such as "meta"."""
    return _any_autocast() and torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)


def require_plain_autograd(tensors: Sequence[Tensor]) -> None:
    """Raise where `is_plain_autograd` is False."""
    if not is_plain_autograd(tensors):
        raise RuntimeError(
            f"this engine gives only reverse-mode gradients by torch.autograd, not torch.func transforms, "
            f"vmap or forward mode; {STORED}."
        )


@contextlib.contextmanager
def watched(field: Any, device: torch.device, largest: float = math.inf) -> Iterator[None]:
    """Raise a `RuntimeError` if the block draws from torch's global random streams or changes a buffer.

    For a buffer of more than ``largest`` entries only the version counter is checked, which needs no memory; so for one
    on CUDA, whose numbers the host would wait for. While a CUDA graph is recorded none of it can be checked.
    """
    if device.type == "cuda" and is_capturing():
        yield
        return
    start = streams(device)
    with unwritten(field, largest):
        yield
        if any(not torch.equal(a, b) for a, b in zip(start, streams(device), strict=True)):
            raise RuntimeError(
                f"random numbers were drawn from torch's global stream while the layers of {kind_of(field)} ran; "
                f"evaluated again they would differ, and the gradient would be wrong. {advice(field).noise}"
            )


@contextlib.contextmanager
def unwritten(field: Any, largest: float = math.inf) -> Iterator[None]:
    """Raise a `RuntimeError` if the block changes a buffer, as `watched` does."""
    buffers: dict[str, tuple[Tensor, Tensor | int]] = {
        name: (b, b.detach().clone() if b.numel() <= largest and not b.is_cuda else b._version)
        for name, b in field.named_buffers()
    }
    yield
    now = dict(field.named_buffers())
    changed = [name for name, (b, value) in buffers.items() if now.get(name) is not b or not _is_still(b, value)]
    if changed:
        raise RuntimeError(
            f"the layers of {kind_of(field)} change the buffer {', '.join(changed)}; evaluated again they would "
            f"change it twice and give another result. {advice(field).buffer}"
        )


def _is_still(b: Tensor, value: Tensor | int) -> bool:
    return torch.equal(b, value) if isinstance(value, Tensor) else b._version == value


def is_declared(result: Tensor, inputs: Sequence[Tensor]) -> bool:
    """Whether autograd carries gradients from ``result`` to no leaves other than ``inputs``."""
    if not result.requires_grad:
        return True
    known = {id(x) for x in inputs}
    return all(id(leaf) in known for leaf in _leaves(result))


def require_declared(result: Tensor, inputs: Sequence[Tensor], field: Any, j: int) -> None:
    """Raise where `is_declared` is False."""
    if not is_declared(result, inputs):
        raise RuntimeError(
            f"layer {j} of {kind_of(field)} depends on a parameter that does not come through {advice(field).door}; "
            f"its gradient would be missing. {advice(field).parameter}"
        )


def require_no_other_way(inputs: Sequence[Tensor]) -> None:
    """Make it an error to differentiate, towards ``inputs``, tensors that a layer may keep beside its result."""
    for x in inputs:
        if x.requires_grad:
            x.register_hook(_ends_here)


def _ends_here(gradient: Tensor) -> None:
    raise RuntimeError(
        "a tensor that a layer keeps beside its result (an auxiliary loss, a hook's recording) is being "
        "differentiated, but its graph ends at that layer, so that the gradient would be wrong; detach it, or use "
        "Stored(), the plain loop."
    )


class Advice(NamedTuple):
    """How to repair a breach; a field of another kind has its own ``advice``."""

    noise: str = f"Use lv.dropout(field, p), derive the field from StochasticField, or {STORED}."
    buffer: str = f"Use a norm without running statistics, or {STORED}."
    door: str = "theta()"
    parameter: str = f"Return the parameter from theta() and read it from theta_j, or {STORED}."
    impure: str = "use lv.dropout, or derive it from StochasticField"


def advice(field: Any) -> Advice:
    """The advice of the field, by default the advice for a vector field."""
    return getattr(original(field), "advice", _ADVICE)


_ADVICE = Advice()


def impure(field: Any) -> str:
    """A sentence about a layer that gives different results when evaluated twice."""
    return (
        f"{kind_of(field)} gives another velocity at each evaluation (its own random numbers, running "
        f"statistics: {advice(field).impure})"
    )


def kind_of(field: Any) -> str:
    """The name of a field in a sentence."""
    return type(original(field)).__name__


def autocast_now(device: str) -> Callable[[], contextlib.AbstractContextManager[Any]]:
    """The present autocast, to be entered again; without its cache, which would keep every layer's weights."""
    if not is_autocast(device):
        return contextlib.nullcontext
    return functools.partial(torch.autocast, device, dtype=torch.get_autocast_dtype(device), cache_enabled=False)


def streams(device: torch.device) -> list[Tensor]:
    """The states of torch's global random streams, the CPU's first."""
    found = [torch.get_rng_state()]
    if device.type == "cuda":
        found.append(torch.cuda.get_rng_state(device))
    return found


def rewind(to: Sequence[Tensor], device: torch.device) -> None:
    """Restore torch's global random streams to the states from `streams`."""
    torch.set_rng_state(to[0])
    if len(to) > 1:
        torch.cuda.set_rng_state(to[1], device)


def operations(result: Tensor) -> list[str]:
    """The names of the operations in the backward graph."""
    return [node.name() for node in _nodes(result)]


def _leaves(result: Tensor) -> Iterator[Tensor]:
    """The leaves of the autograd graph of ``result``."""
    if result.grad_fn is None:
        yield result
    for node in _nodes(result):
        if not node.next_functions and hasattr(node, "variable"):
            yield node.variable


def _nodes(result: Tensor) -> Iterator[Any]:
    nodes = [] if result.grad_fn is None else [result.grad_fn]
    seen: set[Any] = set(nodes)
    for node in nodes:  # it grows
        yield node
        for before, _ in node.next_functions:
            if before is not None and before not in seen:
                seen.add(before)
                nodes.append(before)
