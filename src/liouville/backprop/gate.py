r"""The gate of a run: the side effects of a field's velocities, checked once for each kind of input.

Schemes add velocities to states, pass one state to two velocities, and evaluate them again. This is right only for a
velocity shaped like the part it moves, which does not change its input. Fields that no engine can run are refused here;
behaviour that some engines allow, such as random draws, is reported as a `Manner`, which engines that evaluate a layer
twice check.
"""

from __future__ import annotations

__all__ = ["Manner", "admit", "observed", "require_recomputable", "unchanged"]

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from liouville.backprop.contract import is_autocast, is_plain_autograd, kind_of, operations, rewind, streams
from liouville.compilers import is_recorded
from liouville.fields.base import Theta, VectorField
from liouville.fields.given import Given, kind_of_call, like
from liouville.fields.hooks import require_no_hooks
from liouville.fields.partitioned import PartitionedField
from liouville.fields.stochastic import original

_PLAIN = (Tensor, torch.nn.Parameter)


class Manner(NamedTuple):
    """How the velocities of a field behave.

    draws: whether they draw from torch's global random streams.
    repeats: whether a second evaluation with the same streams gives the same result.
    replays: whether this also holds for gradients under `torch.utils.checkpoint`.
    writes: the buffers that they change.
    """

    draws: bool = False
    repeats: bool = True
    replays: bool = True
    writes: tuple[str, ...] = ()


_SOUND = Manner()
_KNOWN = "_manners"  # by field, then by mode and kind of input
_UNRUN = "_unrun"  # by field: a copy of it without its tensors, made before its first run


def admit(field: VectorField, y: Tensor, theta_0: Theta) -> Manner:
    """How the velocities of ``field``, fixed to a run, behave at the input ``y``.

    Raises:
        TypeError: if a velocity is no tensor.
        ValueError: if the field has hooks, or a velocity has another shape or dtype than the part it moves, changes its
            input or its weights in place, or keeps state where the layers cannot keep it.
    """
    if torch.compiler.is_compiling():
        return _SOUND
    own = original(field)
    require_no_hooks(own)
    batch, *sample = y.shape
    if own.has_effects or 0 in sample:  # images without pixels have no values to check
        return _SOUND
    known = vars(own).setdefault(_KNOWN, {})
    some = min(batch, 2)  # a shape that is right for one sample may be broadcast for more
    key = (own.training, some, *sample, y.dtype, y.device, is_autocast(y.device.type), *kind_of_call(field))
    try:
        return known[key]
    except KeyError:
        pass
    except TypeError:  # a symbolic shape
        return _aside(field.at_layer(0), y, theta_0)
    if not isinstance(field, Given):
        own.check_arguments((), {})  # the field may need some of them
    look = _look if _is_plain((y, *theta_0)) else _aside
    found = look(field.at_layer(0), y, theta_0)
    if not torch.jit.is_tracing():
        known[key] = found
    return found


def observed(field: VectorField) -> Manner:
    """The observed behaviour of a field in its present mode, training or evaluation."""
    own = original(field)
    unsound = (m for key, m in vars(own).get(_KNOWN, {}).items() if key[0] == own.training and m != _SOUND)
    return next(unsound, _SOUND)


def require_recomputable(field: VectorField) -> None:
    """Raise where a recomputed layer would give another result."""
    seen = observed(field)
    if seen.replays and not seen.writes:
        return
    what = f"change the buffer {', '.join(seen.writes)}" if seen.writes else "are not the same when they are run again"
    raise RuntimeError(
        f"the layers of {kind_of(field)} {what}, so that a recomputed gradient would be wrong; let them be functions "
        "of input and weights, use lv.dropout(field, p) or a StochasticField for noise, or use "
        "flow.with_backprop(lv.Stored())."
    )


def _is_plain(tensors: Sequence[Tensor]) -> bool:
    """Whether operations run eagerly, and nothing records or transforms them."""
    if (
        torch.jit.is_tracing()
        or torch._C._len_torch_dispatch_stack()
        or is_recorded()
        or not is_plain_autograd(tensors)
    ):
        return False
    return all(type(t) in _PLAIN and not t.is_meta for t in tensors)


def _aside(field: Any, y: Tensor, theta_0: Theta) -> Manner:
    """The same on substitute tensors, where tensors have no values or operations are recorded or transformed."""
    bound: Any = torch._C
    tracing = bound._get_tracing_state()
    bound._set_tracing_state(None)
    try:
        with _disable_current_modes():
            like = [_stand_in(t) for t in (y, *theta_0)]
            return _look(field, like[0], type(theta_0)(*like[1:]))
    except (TypeError, ValueError):
        raise
    except Exception:  # these have no values to check
        return _SOUND
    finally:
        bound._set_tracing_state(tracing)


def _stand_in(t: Tensor) -> Tensor:
    return torch.linspace(-1.0, 1.0, t.numel()).to(t.device, t.dtype).reshape(t.shape)


def _look(field: Any, y: Tensor, theta_0: Theta) -> Manner:
    """Evaluate the velocities of layer 0 twice, on copies, without side effects."""
    own, start = original(field), streams(y.device)
    unrun = _unrun(own)
    grad = torch.is_grad_enabled()  # run like the layers: a field may keep values that it computes at its first call
    with torch.inference_mode(False), torch.set_grad_enabled(grad):
        weights = type(theta_0)(*(w.detach().clone() for w in theta_0))
        velocities = list(_velocities(field, y.detach().clone()))
        parts = _Witness((f"the input of {name}", {"x": x}, "x") for name, _, x, _ in velocities)
        theta, buffers = _Witness((n, weights._asdict(), n) for n in weights._fields), _Witness(_buffers(own))
        try:
            first = [_checked(own, *each, weights) for each in velocities]
            _require_untouched(own, parts, [n for n in theta.changed() if getattr(theta_0, n).requires_grad])
            writes = (*theta.changed(), *buffers.changed())
            own.check_writes(writes)
            draws = any(not torch.equal(a, b) for a, b in zip(start, streams(y.device), strict=True))
            kept = own.plain_state()
            for witness in (theta, buffers):
                witness.restore()
            rewind(start, y.device)
            versions = [v._version for v in first]
            second = [velocity(x.clone(), weights).detach() for _, velocity, x, _ in velocities]
            _require_own_memory(own, first, versions)
            _require_nothing_kept(own, kept, own.plain_state())
            repeats = all(map(_equal, first, second))
            if repeats and not draws and unrun is not None:
                for witness in (theta, buffers):
                    witness.restore()
                _require_no_memory(field, unrun, velocities, weights, buffers)
            replays = repeats and (not draws or all(_replays(v, x, weights, start) for _, v, x, _ in velocities))
        finally:
            for witness in (theta, buffers):
                witness.restore()
            rewind(start, y.device)
    return Manner(draws, repeats, replays, writes)


_Velocity = tuple[str, Callable[[Tensor, Theta], Any], Tensor, Tensor]
"""A name, the velocity, its argument, and the part it moves."""


def _velocities(field: Any, y: Tensor) -> Iterator[_Velocity]:
    if not isinstance(original(field), PartitionedField):
        yield "forward(y)", field, y, y
        return
    try:
        p, q = (part.clone() for part in field.split(y))
    except ValueError:  # y is one of the parts
        p, q = y, y.clone()
    yield "p_dot(q)", field.p_dot, q, p
    yield "q_dot(p)", field.q_dot, p, q


def _checked(own: VectorField, name: str, velocity: Any, x: Tensor, moved: Tensor, theta: Theta) -> Tensor:
    """The velocity, after a check that its kind fits the part it moves."""
    shape, v = moved.shape, velocity(x, theta)
    if not isinstance(v, Tensor):
        raise TypeError(f"{name} of {kind_of(own)} must be a tensor, got {type(v).__name__}; return only the velocity.")
    if v.layout is not torch.strided or v.is_nested:
        raise ValueError(f"{name} of {kind_of(own)} must be a dense tensor, got {v.layout}; return v.to_dense().")
    if v.shape != shape:
        raise ValueError(
            f"{name} of {kind_of(own)} has the shape {tuple(v.shape)}, and the state that it moves {tuple(shape)}: "
            f"their sum would be broadcast or fail; let it end with {shape[own.feature_axis]} features."
        )
    if v.dtype != moved.dtype and not is_autocast(v.device.type):
        raise ValueError(
            f"{name} of {kind_of(own)} is {v.dtype}, and the state that it moves {moved.dtype}; keep constants and "
            "weights in one dtype, with .to(dtype)."
        )
    return v.detach()


def _require_untouched(own: VectorField, parts: _Witness, weights: Sequence[str]) -> None:
    for what in parts.changed() + [f"the weight {name}" for name in weights]:
        raise ValueError(
            f"{kind_of(own)} changes {what} in place, but the next layer or the backward pass needs the old value; let "
            "its first operation make a new tensor (inplace=False, x + 1 instead of x.add_(1))."
        )


def _require_nothing_kept(own: VectorField, before: dict[str, Any], after: dict[str, Any]) -> None:
    for name in after:
        if name not in before or not unchanged(before[name], after[name]):
            raise ValueError(
                f"{kind_of(own)} keeps {name} from one call to the next, in one place for all layers; let forward be a "
                "function of its input and its weights."
            )


def _unrun(own: VectorField) -> VectorField | None:
    """A copy of the field as it was before its first run, with the field's tensors; None if it cannot be copied."""
    try:
        if _UNRUN not in vars(own):
            vars(own)[_UNRUN] = copy.deepcopy(own, {id(t): None for t in (*own.parameters(), *own.buffers())})
        unrun: VectorField | None = copy.deepcopy(vars(own)[_UNRUN])
    except Exception:
        unrun = vars(own)[_UNRUN] = None
    if unrun is not None:
        for mine, its in zip(own.modules(), unrun.modules(), strict=True):
            vars(its).update(_parameters=mine._parameters, _buffers=mine._buffers)
        unrun.train(own.training)
    return unrun


def _require_no_memory(
    bound: Any, unrun: VectorField, velocities: Sequence[_Velocity], weights: Theta, buffers: _Witness
) -> None:
    """Raise where a field that has run gives another velocity, for other weights, than a fresh copy."""
    own = original(bound)
    fixed = set(own.constants)
    other = {
        name: w * 0.75 + 2**-6 if w.is_floating_point() and name not in fixed else w
        for name, w in weights._asdict().items()
    }
    found: list[list[Tensor]] = []
    for field in (own, unrun):
        layer: Any = like(field, bound).at_layer(0)
        named = {"forward(y)": layer} if len(velocities) == 1 else {"p_dot(q)": layer.p_dot, "q_dot(p)": layer.q_dot}
        copies = type(weights)(*(w.clone() for w in other.values()))
        found.append([named[name](x.clone(), copies).detach() for name, _, x, _ in velocities])
        buffers.restore()
    if not all(map(_equal, *found)):
        raise ValueError(
            f"{kind_of(own)} keeps values computed from its weights in its first call, and would use them for every "
            "layer and after every step of training; compute them in each call (no caches of weights)."
        )


def _require_own_memory(own: VectorField, first: Sequence[Tensor], versions: Sequence[int]) -> None:
    if any(v._version != version for v, version in zip(first, versions, strict=True)):
        raise ValueError(
            f"{kind_of(own)} overwrites its previous velocity, which a scheme still needs; let it make a new tensor "
            "every time (no out=, no work in a buffer)."
        )


def unchanged(before: Any, after: Any) -> bool:
    """Whether an attribute is unchanged: the same object, or the same number or string."""
    return before is after or (isinstance(after, bool | int | float | str | tuple) and before == after)


class _Witness:
    """The held tensors by name, with their values: it tells which were changed or replaced."""

    def __init__(self, places: Iterable[tuple[str, dict[str, Any], str]]) -> None:
        found = [(name, place, key, place[key]) for name, place, key in places if place[key] is not None]
        self.held = [(*each, each[-1].detach().clone(), _version(each[-1])) for each in found]

    @torch.no_grad()
    def changed(self) -> list[str]:
        return [
            name
            for name, place, key, t, value, version in self.held
            if place[key] is not t or _version(t) != version or not _equal(t, value, exact=True)
        ]

    @torch.no_grad()
    def restore(self) -> None:
        for _, place, key, t, value, version in self.held:
            place[key] = t
            if _version(t) != version or not _equal(t, value, exact=True):
                t.detach().copy_(value)


def _buffers(own: VectorField) -> Iterator[tuple[str, dict[str, Any], str]]:
    for prefix, module in own.named_modules():
        for name in module._buffers:
            yield f"{prefix}.{name}".lstrip("."), module._buffers, name


def _version(t: Tensor) -> int:
    return 0 if t.is_inference() else t._version


def _equal(a: Tensor, b: Tensor, exact: bool = False) -> bool:
    """Whether they agree, NaN with NaN, to half of the digits: some GPU kernels add in any order."""
    if a.shape != b.shape or not a.numel() or a.is_meta:
        return a.shape == b.shape
    if exact or not a.is_floating_point():
        return bool(torch.equal(a, b)) or bool(((a == b) | ((a != a) & (b != b))).all())
    size = max(1.0, float(b.abs().nan_to_num(0.0, 0.0, 0.0).max()))
    return bool(torch.allclose(a, b, rtol=0.0, atol=size * torch.finfo(a.dtype).eps ** 0.5, equal_nan=True))


def _replays(velocity: Any, x: Tensor, theta: Theta, start: Sequence[Tensor]) -> bool:
    """Whether a gradient is the same after a recomputation that draws the same numbers."""
    from torch.utils.checkpoint import checkpoint

    found = []
    for through in (lambda f, *args: f(*args), lambda f, *args: checkpoint(f, *args, use_reentrant=False)):
        rewind(start, x.device)
        inputs = [t.detach().clone().requires_grad_(t.is_floating_point()) for t in (x, *theta)]
        leaves = [t for t in inputs if t.requires_grad]
        with torch.enable_grad():
            v = through(lambda x, *w: velocity(x, type(theta)(*w)), *inputs)
            if any("rrelu" in name.lower() for name in operations(v)):
                return False  # torch may fail to replay its noise, even if it does here
            weight = torch.linspace(0.5, 1.5, v.numel(), dtype=v.dtype, device=v.device).reshape(v.shape)
            found.append(torch.autograd.grad((v * weight).sum(), leaves, allow_unused=True))
    return all((a is None) == (b is None) and (a is None or _equal(a, b)) for a, b in zip(*found, strict=True))
