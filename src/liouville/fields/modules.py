r"""A user's modules for `ShearField`: the checks, copies with fresh weights, and which layers share a tensor.

A `Slot` is a place that holds a parameter or a buffer: one module object and one attribute name, however many paths
lead to it. Two slots that hold the same tensor are tied, inside a module, between layers or between F and
G alike; a `Pool` is a set of tied tensors, stored once.
"""

from __future__ import annotations

__all__ = [
    "Pool",
    "Slot",
    "modules_of",
    "pools",
    "require_alike",
    "settings",
    "sharing",
    "skeleton_of",
    "slots",
    "tied",
    "uncached",
]

import contextlib
import copy
import inspect
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from liouville.fields.hooks import hook_of

_POWER_STEPS = 15  # iterations for the singular vectors of a spectral norm: torch's number at registration


class Slot(NamedTuple):
    """Where a module holds a tensor, and the tensor there in each layer's module."""

    key: str
    path: str
    tensors: tuple[Tensor, ...]

    @property
    def name(self) -> str:
        """A name for an attribute: ``F__0__weight``."""
        return re.sub(r"\W", "_", f"{self.key}__{self.path.replace('.', '__')}")

    @property
    def part(self) -> tuple[str, str]:
        """Which module holds it."""
        return self.key, self.path.rpartition(".")[0]


class Pool(NamedTuple):
    """A group of tied tensors, each once, and for every slot which of them its layers read."""

    tensors: list[Tensor]
    rows: dict[tuple[int, ...], list[Slot]]


def modules_of(given: nn.Module | Iterable[nn.Module], layers: int, key: str) -> list[nn.Module]:
    """N modules of one structure: copies of a template with fresh weights, or the N given ones."""
    given = _plain(given)
    if isinstance(given, nn.Module) and not isinstance(given, nn.ModuleList):
        _admit(given, key)
        return [_fresh(_copied(given, key)) for _ in range(layers)]
    if not isinstance(given, Iterable):
        raise TypeError(f"{key} must be a module or {layers} of them, got {type(given).__name__}.")
    modules = list(map(_plain, given))
    for each in modules:
        if not isinstance(each, nn.Module):
            raise TypeError(f"{key} must be a module or {layers} of them, got a {type(each).__name__} among them.")
    if len(modules) != layers:
        raise ValueError(f"{key} must be one module or {layers} of them (one per layer), got {len(modules)}.")
    for each in {id(m): m for m in modules}.values():
        _admit(each, key)
    return modules


def _plain(given: Any) -> Any:
    """The module that torch.compile wrapped: the layers are compiled as part of the flow."""
    return given._orig_mod if type(given).__name__ == "OptimizedModule" else given


def slots(modules: Sequence[nn.Module], key: str, kind: str) -> list[Slot]:
    """The slots of N modules of one structure; ``kind`` is ``"_parameters"`` or ``"_buffers"``."""
    found = []
    for prefix, part in modules[0].named_modules():
        places = [vars(m.get_submodule(prefix))[kind] for m in modules]
        for name, tensor in vars(part)[kind].items():
            if tensor is not None:
                path = f"{prefix}.{name}".lstrip(".")
                found.append(Slot(key, path, tuple(place[name] for place in places)))
    return found


def sharing(held: Sequence[Slot], layers: int) -> dict[str, dict[str, list[int]]] | None:
    """For every slot the numbers of its tensors, equal where they are the same tensor; None where nothing is shared."""
    numbers: dict[int, int] = {}
    found: dict[str, dict[str, list[int]]] = {"F": {}, "G": {}}
    for slot in held:
        found[slot.key][slot.path] = [numbers.setdefault(id(t), len(numbers)) for t in slot.tensors]
    return found if len(numbers) < layers * len(held) else None


def tied(
    module: nn.Module, layers: int, numbers: dict[str, list[int]], known: dict[int, nn.Parameter]
) -> list[nn.Module]:
    """N copies that share tensors as `sharing` says; copies for another key share through the same ``known``."""
    modules = [copy.deepcopy(module) for _ in range(layers)]
    for path, row in numbers.items():
        prefix, _, name = path.rpartition(".")
        for each, number in zip(modules, row, strict=True):
            place = each.get_submodule(prefix)._parameters
            place[name] = known.setdefault(number, place[name])  # type: ignore[arg-type]
    return modules


def skeleton_of(module: nn.Module, key: str) -> nn.Module:
    """A copy without memory for its tensors, to be called with the tensors of a layer."""
    return _copied(module, key).to("meta")


def pools(held: Sequence[Slot]) -> list[Pool]:
    """The slots, grouped by the tensors that they share."""
    groups: list[list[Slot]] = []
    for slot in held:
        ids = {id(t) for t in slot.tensors}
        joined = [g for g in groups if any(id(t) in ids for other in g for t in other.tensors)]
        groups = [g for g in groups if all(g is not other for other in joined)]
        groups.append([each for g in joined for each in g] + [slot])
    return [_pool(group) for group in groups]


def _pool(group: Sequence[Slot]) -> Pool:
    tensors = list({id(t): t for slot in group for t in slot.tensors}.values())
    place = {id(t): row for row, t in enumerate(tensors)}
    rows: dict[tuple[int, ...], list[Slot]] = {}
    for slot in group:
        rows.setdefault(tuple(place[id(t)] for t in slot.tensors), []).append(slot)
    return Pool(tensors, rows)


def require_alike(modules: Sequence[nn.Module], key: str) -> None:
    """Raise unless the modules compute one function of their parameters and buffers."""
    shapes = [{name: tuple(p.shape) for name, p in _named(m)} for m in modules]
    if any(s != shapes[0] for s in shapes):
        raise ValueError(f"the modules of {key} must have parameters of the same names and shapes in every layer.")
    for j, other in enumerate(modules[1:], start=1):
        if other is not modules[0] and not _alike(other, modules[0]):
            raise ValueError(
                f"the modules of {key} may differ only in the values of their parameters and buffers, since all layers "
                f"run one structure; module {j} has other parts, settings, dtypes or requires_grad than module 0."
            )


def _named(module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    return module.named_parameters(remove_duplicate=False)


def _admit(block: nn.Module, key: str) -> None:
    """Raise unless the block has weights and is a function only of them and its input."""
    first = next(block.parameters(), None)
    if first is None:
        raise ValueError(f"{key} must have parameters, got {block}.")
    for module in block.modules():
        name = type(module).__name__
        if isinstance(module, torch.jit.ScriptModule | nn.DataParallel | nn.parallel.DistributedDataParallel):
            raise ValueError(
                f"{key} must be modules that can be called with the weights of any layer, got {name}; give the "
                "original module, and trace, compile or distribute the flow."
            )
        if any(t is not None and is_lazy(t) for t in (*module._parameters.values(), *module._buffers.values())):
            raise ValueError(
                f"{key} has parameters without a shape, got {name}; run it once on an input, or give the sizes."
            )
        if hook_of(module) is not None:
            raise ValueError(
                f"{key} must not have hooks, got {hook_of(module)} on {name}: a layer would depend on more than its "
                "input and weights; use torch.nn.utils.parametrizations (weight_norm, spectral_norm, orthogonal) or "
                "register_parametrization, prune.remove, or write it into forward."
            )
        if getattr(module, "track_running_stats", False):
            raise ValueError(
                f"{key} must not keep running statistics, got {name}: a layer would no longer be "
                "a function of its input and weights; use LayerNorm or GroupNorm."
            )
        if isinstance(module, nn.RReLU) and module.lower != module.upper:
            raise ValueError(
                f"{key} must not draw random numbers, got {module}: a step, its inverse and its recomputation would "
                "differ; use nn.LeakyReLU."
            )
        if _drops(module) > 0:
            raise ValueError(
                f"{key} must not draw random numbers, got {module}: a step, its inverse and its recomputation would "
                f"differ; remove it and use lv.dropout(field, {_drops(module):g})."
            )
    _require_called(block, key)


def _require_called(block: nn.Module, key: str) -> None:
    """Raise unless the block can be called as ``block(x)``, or with more arguments."""
    name = type(block).__name__
    if getattr(block.forward, "__name__", "") == "_forward_unimplemented":
        raise ValueError(f"{key} must be a module that can be called, got {name}, which has no forward.")
    try:
        inspect.signature(block.forward).bind_partial(None)
    except TypeError as error:
        raise ValueError(f"{key} is called with a tensor, and {name} is not ({error}); wrap it in a module.") from None


@contextlib.contextmanager
def uncached() -> Iterator[None]:
    """Outside of `torch.nn.utils.parametrize.cached`, whose cache distinguishes neither layers nor weights."""
    outside, parametrize._cache_enabled = parametrize._cache_enabled, 0
    try:
        yield
    finally:
        parametrize._cache_enabled = outside


def _drops(module: nn.Module) -> float:
    """The probability of dropping an entry in one of torch's modules: dropout, attention, recurrent layers."""
    p = module.p if isinstance(module, _DropoutNd) else getattr(module, "dropout", 0.0)
    return p if isinstance(p, int | float) else 0.0


def _copied(module: nn.Module, key: str) -> nn.Module:
    try:
        return copy.deepcopy(module)
    except Exception as error:
        raise ValueError(f"{key} cannot be copied for every layer ({error}); give one module per layer.") from error


def _fresh(module: nn.Module) -> nn.Module:
    """The module, its weights drawn again by its parts' own ``reset_parameters``."""
    for part in module.modules():
        for name in ("reset_parameters", "_reset_parameters"):  # the second is the name in `MultiheadAttention`
            reset: Any = getattr(part, name, None)
            if callable(reset):
                _redraw(part, reset) if parametrize.is_parametrized(part) else reset()
    return module


def _redraw(part: nn.Module, reset: Any) -> None:
    """The same where parametrisations compute the weights: the drawn weights go through their inverse."""
    with parametrize.cached():  # keeps the tensors that `reset` writes to
        reset()
        drawn = {name: getattr(part, name).detach().clone() for name in part.parametrizations}  # type: ignore[union-attr]
    for name, value in drawn.items():
        try:
            setattr(part, name, value)
        except (NotImplementedError, RuntimeError):  # it has no inverse
            _overwrite(part.parametrizations[name], value)  # type: ignore[index]
    training = part.training
    part.train()
    with torch.no_grad():
        for name in drawn:
            for _ in range(_POWER_STEPS):
                getattr(part, name)
    part.train(training)


def _overwrite(parametrised: Any, value: Tensor) -> None:
    held = getattr(parametrised, "original", None)
    if isinstance(held, Tensor) and held.shape == value.shape:
        held.data.copy_(value)


def _alike(a: nn.Module, b: nn.Module) -> bool:
    """Whether two modules of equal parameter shapes compute the same function of parameters and buffers."""
    parts, others = dict(a.named_modules()), dict(b.named_modules())
    if parts.keys() != others.keys():
        return False
    known = {(id(part), id(others[path])) for path, part in parts.items()}
    return all(_same_part(part, others[path], known) for path, part in parts.items())


def _same_part(a: nn.Module, b: nn.Module, known: set[tuple[int, int]]) -> bool:
    if parametrize.type_before_parametrizations(a) is not parametrize.type_before_parametrizations(b):
        return False
    for kind in ("_parameters", "_buffers"):
        mine, theirs = vars(a)[kind], vars(b)[kind]
        if mine.keys() != theirs.keys() or not all(_same_kind(t, theirs[name]) for name, t in mine.items()):
            return False
    mine, theirs = settings(a), settings(b)
    known |= {(id(t), id(u)) for kind in ("_parameters", "_buffers") for t, u in _pairs(a, b, kind)}
    return mine.keys() == theirs.keys() and all(_same(value, theirs[name], known) for name, value in mine.items())


def _pairs(a: nn.Module, b: nn.Module, kind: str) -> Iterator[tuple[Any, Any]]:
    return zip(vars(a)[kind].values(), vars(b)[kind].values(), strict=True)


def _same_kind(a: Tensor | None, b: Tensor | None) -> bool:
    if a is None or b is None:
        return a is b
    return (a.shape, a.dtype, a.device, a.requires_grad) == (b.shape, b.dtype, b.device, b.requires_grad)


def settings(part: nn.Module) -> dict[str, Any]:
    """The plain attributes, which a repr may omit; the field sets ``training``."""
    return {name: value for name, value in vars(part).items() if name not in _INTERNALS}


_INTERNALS = {*vars(nn.Module()), "_flat_weight_refs", "__orig_class__"}  # the second: weak references of torch's RNNs


def _same(a: Any, b: Any, known: set[tuple[int, int]]) -> bool:
    """Whether two attributes are equal, including their own attributes; pairs in ``known`` correspond."""
    if a is b or (id(a), id(b)) in known:
        return True
    if type(a) is not type(b):
        return False
    known.add((id(a), id(b)))
    if isinstance(a, Tensor):
        return _same_kind(a, b) and bool(torch.equal(a, b))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_same(value, b[name], known) for name, value in a.items())
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(_same(x, y, known) for x, y in zip(a, b, strict=True))
    if hasattr(a, "__code__"):
        inner = (a.__defaults__, a.__kwdefaults__, [c.cell_contents for c in a.__closure__ or ()])
        other = (b.__defaults__, b.__kwdefaults__, [c.cell_contents for c in b.__closure__ or ()])
        return a.__code__ == b.__code__ and _same(inner, other, known)
    if hasattr(a, "__func__"):  # a bound method
        return a.__func__ is b.__func__ and _same(a.__self__, b.__self__, known)
    if isinstance(a, nn.Module):
        return _alike(a, b) and all(torch.equal(x, y) for x, y in zip(_tensors(a), _tensors(b), strict=True))
    own = type(a).__eq__ is object.__eq__ and bool(getattr(a, "__dict__", None))
    return _same(vars(a), vars(b), known) if own else _equal(a, b)


def _equal(a: Any, b: Any) -> bool:
    try:
        return bool((a == b).all()) if hasattr(a, "shape") else bool(a == b)
    except Exception:
        return False


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]
