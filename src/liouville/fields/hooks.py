"""Hooks on the parts of a field: engines evaluate velocities, not the module's call, and would skip the hooks."""

from __future__ import annotations

__all__ = ["hook_of", "require_no_hooks"]

from typing import Any

from torch import nn

_KINDS = ("_forward_pre_hooks", "_forward_hooks", "_backward_hooks", "_backward_pre_hooks")
_ONLOOKERS = ("lightning.", "pytorch_lightning.", "torchinfo.", "torch.utils.module_tracker")  # they only look


def hook_of(module: nn.Module) -> str | None:
    """The name of a hook that could change what the module computes, or None."""
    d = module.__dict__
    if not (d["_forward_pre_hooks"] or d["_forward_hooks"] or d["_backward_hooks"] or d["_backward_pre_hooks"]):
        return None
    for kind in _KINDS:
        for hook in d[kind].values():
            if not _module_of(hook).startswith(_ONLOOKERS):
                return f"{kind.strip('_').replace('_', ' ').removesuffix('s')} {_name_of(hook)}"
    return None


def require_no_hooks(field: nn.Module) -> None:
    """Raise a `ValueError` if the field or one of its parts has a hook."""
    d = field.__dict__
    if d["_forward_pre_hooks"] or d["_forward_hooks"] or d["_backward_hooks"] or d["_backward_pre_hooks"]:
        found = hook_of(field)
        if found:
            raise ValueError(
                f"{type(field).__name__} has the {found}, which no engine runs, since engines only evaluate "
                "velocities; use torch.nn.utils.parametrizations or parametrize.register_parametrization instead "
                "(prune.remove makes pruning permanent), or put the hook on the flow."
            )
    for part in d["_modules"].values():
        if part is not None:
            require_no_hooks(part)


def _module_of(hook: Any) -> str:
    return getattr(hook, "__module__", None) or type(hook).__module__


def _name_of(hook: Any) -> str:
    return getattr(hook, "__qualname__", None) or type(hook).__name__
