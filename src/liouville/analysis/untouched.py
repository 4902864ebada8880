"""Whether a network is what its classes say: known types, nothing replaced, nothing hooked, every number finite.

A bound is proved of formulas. An object computes its class's formulas if its type *is* that class, no method was
replaced on the object and no hook runs around them.
"""

from __future__ import annotations

__all__ = ["require_untouched"]

from collections.abc import Collection
from typing import Any

import torch
from torch import nn

_HOOKS = ("_forward_hooks", "_forward_pre_hooks")
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
    if torch.get_float32_matmul_precision() != "highest":
        raise NotImplementedError(
            "products of float32 matrices may be rounded to fewer digits here; call "
            'torch.set_float32_matmul_precision("highest") first.'
        )
    _require_finite(network)
    for name, module in network.named_modules():
        _require_plain(module, f"{type(module).__name__} ({name})" if name else type(module).__name__, known)


def _require_finite(network: nn.Module) -> None:
    for name, tensor in (*network.named_parameters(), *network.named_buffers()):
        if not bool(tensor.isfinite().all()):
            raise ValueError(f"{name} holds a number that is not finite, so nothing can be certified; train it again.")


def _require_plain(module: nn.Module, name: str, known: Collection[type[nn.Module]]) -> None:
    if type(module) not in known:
        raise NotImplementedError(f"nothing is proved about {name}: it may compute anything.")
    if any(getattr(module, hooks) for hooks in _HOOKS):
        raise NotImplementedError(f"a forward hook of {name} may change what it computes; remove it.")
    replaced = [key for key in vars(module) if callable(getattr(type(module), key, None))]
    if replaced:
        raise NotImplementedError(f"{replaced[0]} of {name} was replaced on the object, which may compute anything.")
