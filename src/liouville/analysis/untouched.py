"""Whether a network is what its classes say: known types, nothing replaced, nothing hooked, every number finite.

A bound is proved of formulas. An object computes its class's formulas if its type *is* that class, no method was
replaced on the object and no hook runs around them.
"""

from __future__ import annotations

__all__ = ["require_untouched"]

from collections.abc import Collection, Iterator
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn

from liouville.backprop import Backprop
from liouville.operators import Operator
from liouville.schemes import Scheme

_HOOKS = ("_forward_hooks", "_forward_pre_hooks")
_SETTINGS = (Scheme, Backprop, Operator)  # what a flow and a field hold besides modules
_PLAIN = (nn.Parameter, nn.Buffer, Tensor)
_modules: Any = torch.nn.modules.module


def require_untouched(network: nn.Module, known: Collection[type[nn.Module]]) -> None:
    """Raise unless every part of ``network`` is exactly of a known type, unaltered and finite.

    Raises:
        NotImplementedError: naming the part and what is unknown about it.
        ValueError: if a parameter or a buffer holds a number that is not finite.

    Examples:
        >>> require_untouched(nn.Linear(2, 2), [nn.Linear])
    """
    if _modules._global_forward_hooks or _modules._global_forward_pre_hooks:
        raise NotImplementedError("global forward hooks are set, which may change what every module computes.")
    if torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda"):
        raise NotImplementedError("under autocast the network computes in other precisions; leave the context.")
    if _rounds_products():
        raise NotImplementedError(
            "products of float32 matrices may be rounded to fewer digits here; call "
            'torch.set_float32_matmul_precision("highest") first.'
        )
    for name, tensor in (*network.named_parameters(), *network.named_buffers()):
        _require_numbers(name, tensor)
    for name, module in network.named_modules():
        _require_plain(module, f"{type(module).__name__} ({name})" if name else type(module).__name__, known)


def _rounds_products() -> bool:
    """Whether products of float32 matrices may be rounded, by torch's former setting or by those of a backend."""
    for backend in (torch.backends.mkldnn, torch.backends.cuda):
        levels = (getattr(backend, "matmul", None), backend, torch.backends)
        said = [getattr(level, "fp32_precision", "none") for level in levels]
        if next((precision for precision in said if precision != "none"), "none") not in ("none", "ieee"):
            return True
    try:
        return torch.get_float32_matmul_precision() != "highest"
    except RuntimeError:  # torch does not answer where a backend was set by itself
        return False


def _require_numbers(name: str, tensor: Tensor) -> None:
    if nn.parameter.is_lazy(tensor):
        raise ValueError(f"{name} has no values yet; call the network once on an input.")
    if type(tensor) not in _PLAIN:
        raise NotImplementedError(f"{name} is a {type(tensor).__name__}, whose products may be anything.")
    if not bool(tensor.isfinite().all()):
        raise ValueError(f"{name} holds a number that is not finite, so nothing can be certified; train it again.")


def _require_plain(module: nn.Module, name: str, known: Collection[type[nn.Module]]) -> None:
    if type(module) not in known:
        raise NotImplementedError(f"nothing is proved about {name}: it may compute anything.")
    if any(getattr(module, hooks) for hooks in _HOOKS):
        raise NotImplementedError(f"a forward hook of {name} may change what it computes; remove it.")
    held = [part for part in vars(module).values() if isinstance(part, _SETTINGS)]
    for part in held:
        if not _is_ours(type(part).__module__):
            raise NotImplementedError(f"nothing is proved about {part!r} of {name}: it may compute anything.")
    parts: list[tuple[Any, str]] = [(module, name), *((part, f"{part!r} of {name}") for part in held)]
    for thing, where in parts:
        for replaced in (key for key in vars(thing) if callable(getattr(type(thing), key, None))):
            raise NotImplementedError(f"{replaced} of {where} was replaced on the object, which may compute anything.")
        for replaced in _replaced(type(thing)):
            raise NotImplementedError(f"{replaced} was replaced on the class of {where}, which may compute anything.")


def _replaced(kind: type) -> Iterator[str]:
    """Methods of our classes, and torch's, that come from elsewhere."""
    for owner in kind.__mro__:
        if _is_ours(owner.__module__):
            for name, value in vars(owner).items():
                if isinstance(value, FunctionType) and not _is_ours(value.__module__ or ""):
                    yield name


def _is_ours(module: str) -> bool:
    return module.partition(".")[0] in ("liouville", "torch")
