r"""Compilers, tracers, exporters and modes that see the operations of a run, and the operations that each must see.

A *recorder* (torch.jit.trace, make_fx, torch.export, both ONNX exporters) records operations, to be run again on
other inputs and without this library: it gets the plain loop (`liouville.Flow`). An *observer* (a dispatch mode
such as FlopCounterMode or FakeTensorMode, a function mode, torch.compile) sees only operators: a native call goes
through its registered operator (`liouville.Fused`).
"""

from __future__ import annotations

__all__ = ["Bystander", "advanced", "advanced_", "is_hollow", "is_recorded", "is_watched"]

import torch
from torch import Tensor
from torch.compiler import is_compiling, is_dynamo_compiling
from torch.utils._device import DeviceContext
from torch.utils._python_dispatch import TorchDispatchMode, _get_current_dispatch_mode_stack

_is_exporting = getattr(torch.compiler, "is_exporting", lambda: False)  # torch 2.6 has none
_is_tracing = torch._C._is_tracing
_dispatch_modes = torch._C._len_torch_dispatch_stack
_function_modes = torch._C._len_torch_function_stack
_mode = torch._C._get_dispatch_mode
_before_dispatch = torch._ops._get_dispatch_mode_pre_dispatch
_PROXY = torch._C._TorchDispatchModeKey.PROXY


class Bystander(TorchDispatchMode):
    """A dispatch mode of this library that observes storages, not operators: it does not change what runs."""


def advanced(x: Tensor, velocity: Tensor, step: float) -> Tensor:
    """x + step * velocity.

    Eager torch runs it as one operation. Inductor must not see that operation: torch 2.13 fuses
    ``torch.add(x, a @ b, alpha=step)`` into an ``addmm`` without the step (docs/compilers.md).

    Examples:
        >>> advanced(torch.ones(2), torch.tensor([1.0, 2.0]), -0.5)
        tensor([0.5000, 0.0000])
    """
    if is_dynamo_compiling() or _mode(_PROXY) is not None:  # called once per shear: must not take longer than two calls
        return x + step * velocity
    return torch.add(x, velocity, alpha=step)


def advanced_(x: Tensor, velocity: Tensor, step: float) -> Tensor:
    """The same, in place."""
    if is_dynamo_compiling() or _mode(_PROXY) is not None:
        return x.add_(step * velocity)
    return x.add_(velocity, alpha=step)


def is_watched() -> bool:
    """Whether anything except autograd sees the present operations, so that it would miss a native call."""
    return (
        is_compiling()
        or _is_tracing()
        or (_dispatch_modes() > 0 and not all(isinstance(m, Bystander) for m in _get_current_dispatch_mode_stack()))
        or _before_dispatch(_PROXY) is not None
        or (_function_modes() > 0 and not all(isinstance(m, DeviceContext) for m in _function_stack()))
    )


def is_recorded() -> bool:
    """Whether operations are recorded, to be run again on other inputs without this library's Python code."""
    if is_dynamo_compiling():
        return _is_exporting()
    return is_watched() and (is_compiling() or _is_tracing() or _has_proxies())


def is_hollow(x: Tensor) -> bool:
    """Whether x has a shape but no values (the meta device, FakeTensorMode), so that nothing can be checked on it."""
    return x.is_meta or (type(x) is not Tensor and _is_fake(x))


def _is_fake(x: Tensor) -> bool:
    from torch._subclasses.fake_tensor import FakeTensor
    from torch._subclasses.functional_tensor import FunctionalTensor

    return isinstance(torch._from_functional_tensor(x.elem) if isinstance(x, FunctionalTensor) else x, FakeTensor)


def _has_proxies() -> bool:
    return _mode(_PROXY) is not None or _before_dispatch(_PROXY) is not None


def _function_stack() -> list[object]:
    return [torch._C._get_function_stack_at(k) for k in range(_function_modes())]
