"""Whether a network is exactly what its classes define: known types, nothing replaced, no hooks, every number finite.

A bound is proved for formulas. An object computes its class's formulas if its type *is* that class, no method was
replaced on the object and no hook runs.
"""

from __future__ import annotations

__all__ = ["require_stated", "require_untouched", "states_its_own", "unknown_run", "unknown_velocities"]

from collections.abc import Callable, Collection, Iterator
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from liouville import fields
from liouville.analysis.proofs.assumptions import activation_facts, activation_of, is_shipped
from liouville.backprop import Backprop
from liouville.budget import BUDGETED
from liouville.devices import fast_products
from liouville.fields import VectorField
from liouville.fields.base import is_closed
from liouville.flow import Flow
from liouville.operators import Conv, Operator
from liouville.schemes import Scheme

_FIELDS = [kind for kind in vars(fields).values() if isinstance(kind, type) and issubclass(kind, VectorField)]
FIELDS: tuple[type[nn.Module], ...] = (*_FIELDS, *BUDGETED)
"""The fields of this library."""
_STEP = ("step", "shears", "inverse", "init", "final", "terminal", "log_growth", "amplification", "check")
_HOOKS = ("_forward_hooks", "_forward_pre_hooks")
_SETTINGS = (Scheme, Backprop, Operator)  # attributes of a flow and a field that are not modules
_PLAIN = (nn.Parameter, nn.Buffer, Tensor)
_modules: Any = torch.nn.modules.module


def require_untouched(network: nn.Module, known: Collection[type[nn.Module]]) -> None:
    """Raise unless every part of ``network`` is exactly of a known type, unaltered and finite.

    Raises:
        NotImplementedError: with the part and its unknown aspect.
        ValueError: if a parameter or a buffer holds a number that is not finite.

    Examples:
        >>> require_untouched(nn.Linear(2, 2), [nn.Linear])
    """
    _require_no_global_hooks()
    if torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda"):
        raise NotImplementedError("under autocast the network computes in other precisions; leave the context.")
    if _rounds_products():
        raise NotImplementedError(
            "products of float32 matrices may be rounded to fewer digits here; call "
            'torch.set_float32_matmul_precision("highest") first.'
        )
    if any(map(_convolves, network.modules())):
        for weight in network.parameters():
            if fast_products(weight.dtype, weight.device.type, "convolution"):
                raise NotImplementedError(
                    "convolutions of float32 on CUDA round to 10 bits here, as is torch's default; set "
                    "torch.backends.cudnn.allow_tf32 = False first."
                )
    for name, tensor in (*network.named_parameters(), *network.named_buffers()):
        _require_numbers(name, tensor)
    for name, module in network.named_modules():
        _require_plain(module, f"{type(module).__name__} ({name})" if name else type(module).__name__, known)


def unknown_run(flow: Flow) -> str:
    """Why nothing is proved about the steps through the layers; "" where flow, scheme and engine are known.

    A subclass of a splitting scheme may state other ``stages``: they are data, and all share one implementation.
    """
    scheme = flow.scheme
    changed = [name for name in _STEP if isinstance(scheme, Scheme) and states_its_own(scheme, name)]
    if changed:
        return f"{type(scheme).__name__} overrides {changed[0]}, which no proof here knows"
    return _reason(lambda: _require_plain_flow(flow))


def states_its_own(scheme: Scheme, name: str) -> bool:
    """Whether a user-defined class states ``name``."""
    return any(name in vars(kind) and not _is_ours(kind.__module__) for kind in type(scheme).__mro__[:-1])


def unknown_velocities(field: VectorField) -> str:
    """Why the velocities are not known to be a formula of this library; "" where they are."""
    return _reason(lambda: _require_plain_field(field))


def require_stated(flow: Flow) -> None:
    """Raise unless the bounds that the classes of a flow state belong to their computations.

    A user-defined class may state its own constants, which are trusted (`liouville.testing.check_field` and
    `check_scheme` test them); it may not inherit constants from a class that computes something else.

    Raises:
        NotImplementedError: with the part.
    """
    _require_no_global_hooks()
    _require_as_its_class(flow, type(flow).__name__)
    if type(flow) is not Flow:
        raise NotImplementedError(f"nothing is known about {type(flow).__name__}, which is not a Flow.")
    for part in flow.field.modules():
        name = type(part).__name__
        _require_as_its_class(part, name)
        if not isinstance(part, VectorField):
            continue
        if type(part) not in FIELDS and not is_closed(part, "lipschitz"):
            raise NotImplementedError(
                f"{name} states no Lipschitz constants of its computation; override lipschitz(theta) to get upper "
                "bounds."
            )
        operator = getattr(part, "operator", None)
        if isinstance(operator, Operator) and not is_closed(operator, "norm", ("apply", "apply_transpose", "mix")):
            raise NotImplementedError(f"{type(operator).__name__} states no norm of its computation; override norm.")
    sigma = activation_of(flow.field)
    if sigma is not None and not is_shipped(sigma):
        for fact in activation_facts(sigma, sigma.monotone):
            if not fact.holds:
                raise NotImplementedError(f"no bound is known: not true that {fact.text}: {fact.evidence}.")


def _reason(require: Callable[[], None]) -> str:
    try:
        require()
    except NotImplementedError as error:
        return str(error).rstrip(".")
    return ""


def _require_plain_flow(flow: Flow) -> None:
    _require_no_global_hooks()
    _require_plain(flow, type(flow).__name__, (Flow,))
    for part, kind in ((flow.scheme, Scheme), (flow.backprop, Backprop)):
        if not isinstance(part, kind):
            raise NotImplementedError(f"nothing is proved about {part!r}, which is not a {kind.__name__}.")


def _require_plain_field(field: VectorField) -> None:
    _require_no_global_hooks()
    inside: set[nn.Module] = set()
    for name, module in field.named_modules():
        if parametrize.is_parametrized(module):  # it makes weights, from which theta() is then computed
            inside.update(module.parametrizations.modules())
        if module not in inside:
            _require_plain(module, f"{type(module).__name__} ({name})" if name else type(module).__name__, FIELDS)
    sigma = activation_of(field)
    if sigma is not None and not is_shipped(sigma):
        raise NotImplementedError(f"{sigma!r} is an activation of your own, whose slopes are known only at some points")


def _require_no_global_hooks() -> None:
    if _modules._global_forward_hooks or _modules._global_forward_pre_hooks:
        raise NotImplementedError("global forward hooks are set, which may change what every module computes.")


def _rounds_products() -> bool:
    """Whether products of float32 matrices may be rounded, by torch's older setting or a backend's settings."""
    for backend in (torch.backends.mkldnn, torch.backends.cuda):
        levels = (getattr(backend, "matmul", None), backend, torch.backends)
        said = [getattr(level, "fp32_precision", "none") for level in levels]
        if next((precision for precision in said if precision != "none"), "none") not in ("none", "ieee"):
            return True
    try:
        return torch.get_float32_matmul_precision() != "highest"
    except RuntimeError:  # torch raises an error if a backend was set separately
        return False


def _convolves(module: nn.Module) -> bool:
    return isinstance(module, nn.modules.conv._ConvNd) or isinstance(getattr(module, "operator", None), Conv)


def _require_numbers(name: str, tensor: Tensor) -> None:
    if nn.parameter.is_lazy(tensor):
        raise ValueError(f"{name} has no values yet; call the network once on an input.")
    if type(tensor) not in _PLAIN:
        raise NotImplementedError(f"{name} is a {type(tensor).__name__}, which may compute any product.")
    if not bool(tensor.isfinite().all()):
        raise ValueError(f"{name} holds a number that is not finite, so nothing can be certified; train it again.")


def _require_plain(module: nn.Module, name: str, known: Collection[type[nn.Module]]) -> None:
    parametrized = parametrize.is_parametrized(module) and type(module).__bases__[0] in FIELDS
    if type(module) not in known and not (parametrized and known is FIELDS):
        raise NotImplementedError(f"nothing is proved about {name}: it may compute anything.")
    for part in (part for part in vars(module).values() if isinstance(part, _SETTINGS)):
        if not all(_is_ours(kind.__module__) or _is_data(kind) for kind in type(part).__mro__[:-1]):
            raise NotImplementedError(f"nothing is proved about {part!r} of {name}: it may compute anything.")
    _require_as_its_class(module, name)


def _require_as_its_class(module: nn.Module, name: str) -> None:
    """Raise if a module has hooks, or a part of it was replaced."""
    if any(getattr(module, hooks) for hooks in _HOOKS):
        raise NotImplementedError(f"a forward hook of {name} may change what it computes; remove it.")
    held = [part for part in vars(module).values() if isinstance(part, _SETTINGS)]
    parts: list[tuple[Any, str]] = [(module, name), *((part, f"{part!r} of {name}") for part in held)]
    for thing, where in parts:
        for replaced in (key for key in vars(thing) if callable(getattr(type(thing), key, None))):
            raise NotImplementedError(f"{replaced} of {where} was replaced on the object, which may compute anything.")
        for replaced in _replaced(type(thing)):
            raise NotImplementedError(f"{replaced} was replaced on the class of {where}, which may compute anything.")
    for kept in (module._modules, module._parameters, module._buffers):
        for hidden in kept.keys() & vars(module).keys():
            raise NotImplementedError(f"{hidden} of {name} is hidden behind another object of that name.")


def _replaced(kind: type) -> Iterator[str]:
    """Methods of our classes, or of torch, that were replaced."""
    for owner in kind.__mro__:
        if _is_ours(owner.__module__):
            for name, value in vars(owner).items():
                if isinstance(value, FunctionType) and not _is_ours(value.__module__ or ""):
                    yield name


def _is_data(kind: type) -> bool:
    """Whether a class states only numbers and stages, and so leaves the computation to its base."""
    return all(
        name in _MADE or type(value) in (int, float, bool, str, tuple, type(None)) for name, value in vars(kind).items()
    )


_MADE = {
    *("__init__", "__repr__", "__eq__", "__hash__", "__setattr__", "__delattr__", "__replace__", "__match_args__"),
    *("__annotations__", "__annotate_func__", "__annotations_cache__", "__dataclass_fields__", "__dataclass_params__"),
    *(
        "__abstractmethods__",
        "_abc_impl",
        "__orig_bases__",
        "__parameters__",
        "__dict__",
        "__weakref__",
        "__slotnames__",
    ),
}
"""Names that Python and dataclasses write into a class."""


def _is_ours(module: str) -> bool:
    return module.partition(".")[0] in ("liouville", "torch")
