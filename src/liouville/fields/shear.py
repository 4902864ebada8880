r"""Shears of arbitrary modules: any user's block, made invertible with determinant 1."""

from __future__ import annotations

__all__ = ["ShearField"]

import copy
from collections import namedtuple
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.utils.stateless import _reparametrize_module

from liouville.fields.base import PartitionedField, Theta, require_sample_ndim


class ShearField(PartitionedField):
    r"""p' = -G(q), q' = F(p) for any two modules F and G, with weights of their own in every layer.

    Properties: each half moves by a function of the other alone, so every splitting scheme inverts exactly and has
    determinant 1, whatever F and G are. It is symplectic only if they are gradients.

    Args:
        F: a module from n_p to n_q features; a template, copied and reset for every layer, or N modules whose
            weights are taken as they are.
        G: likewise, from n_q to n_p features.
        layers: N.
        features: n = n_p + n_q.
        p_features: n_p; half by default.
        feature_axis: axis of the features, counted from the end; -1 for vectors, -3 for images.
        sample_ndim: how many trailing axes are one sample, 2 for sequences (batch, tokens, features); only answers per
            sample ask for it, and they refuse inputs with more than one axis in front where it is not stated.

    Parameters that need no gradient stay so, and all N modules must agree on it.

    Raises:
        ValueError: if a module has no parameters, keeps running statistics (batch norm), drops out, or the N modules
            differ in more than the values of their parameters; if ``sample_ndim`` leaves the features out.

    Examples:
        >>> block = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 2))
        >>> field = ShearField(block, block, layers=3, features=4)
        >>> field.theta()._fields[:2]
        ('F__0__weight', 'F__0__bias')
    """

    def __init__(
        self,
        F: nn.Module | Sequence[nn.Module],
        G: nn.Module | Sequence[nn.Module],
        *,
        layers: int,
        features: int,
        p_features: int | None = None,
        feature_axis: int = -1,
        sample_ndim: int | None = None,
    ) -> None:
        super().__init__(features, layers, p_features)
        self.feature_axis = feature_axis
        self.sample_ndim = require_sample_ndim(sample_ndim, feature_axis)
        self.stacked = nn.ParameterDict()
        self.skeletons: dict[str, nn.Module] = {}
        self._names: dict[str, list[str]] = {}
        for key, given in (("F", F), ("G", G)):
            copies = _copies(given, layers, key)
            self.skeletons[key] = copy.deepcopy(copies[0]).to("meta")
            self._names[key] = [name for name, _ in copies[0].named_parameters()]
            for name, buffer in copies[0].named_buffers():
                self.register_buffer(_flat(f"{key}_buffer", name), buffer.clone())
            for name in self._names[key]:
                weights = torch.stack([c.get_parameter(name).detach() for c in copies])
                trained = copies[0].get_parameter(name).requires_grad
                self.stacked[_flat(key, name)] = nn.Parameter(weights, requires_grad=trained)
        self.theta()  # its type is known before a compiler looks

    def theta(self) -> Theta:
        """The weights of F and G, stacked over layers."""
        return _theta_type(tuple(self.stacked))(*self.stacked.values())

    def p_dot(self, q: Tensor, theta_j: Theta) -> Tensor:
        """p' = -G(q)."""
        return -self._call("G", q, theta_j)

    def q_dot(self, p: Tensor, theta_j: Theta) -> Tensor:
        """q' = F(p)."""
        return self._call("F", p, theta_j)

    def train(self, mode: bool = True) -> ShearField:
        for skeleton in self.skeletons.values():
            skeleton.train(mode)
        return super().train(mode)

    def extra_repr(self) -> str:
        return super().extra_repr() + ("" if self.sample_ndim is None else f", sample_ndim={self.sample_ndim}")

    def _call(self, key: str, x: Tensor, theta_j: Theta) -> Tensor:
        skeleton = self.skeletons[key]
        tensors = {name: getattr(theta_j, _flat(key, name)) for name in self._names[key]}
        tensors |= {name: getattr(self, _flat(f"{key}_buffer", name)) for name, _ in skeleton.named_buffers()}
        if torch.jit.is_tracing():  # which functional_call refuses
            with _reparametrize_module(skeleton, tensors):
                return skeleton(x)
        return functional_call(skeleton, tensors, (x,))


def _copies(given: nn.Module | Sequence[nn.Module], layers: int, key: str) -> list[nn.Module]:
    """N modules of one structure: copies of a template with fresh weights, or the N given ones."""
    if isinstance(given, nn.Module):
        _check(given, key)
        return [_reset(copy.deepcopy(given)) for _ in range(layers)]
    copies = list(given)
    if len(copies) != layers:
        raise ValueError(f"{key} must be one module or {layers} of them (one per layer), got {len(copies)}.")
    _check(copies[0], key)
    shapes = [{name: tuple(p.shape) for name, p in c.named_parameters()} for c in copies]
    if any(s != shapes[0] for s in shapes):
        raise ValueError(f"the modules of {key} must have parameters of the same names and shapes in every layer.")
    for j, other in enumerate(copies[1:], start=1):
        if not _alike(other, copies[0]):
            raise ValueError(
                f"the modules of {key} may differ in the values of their parameters alone, since all layers run one "
                f"structure; module {j} has other parts, settings, buffers or requires_grad than module 0."
            )
    return copies


def _check(block: nn.Module, key: str) -> None:
    """Raise unless the block has weights and is a function of them and of its input alone."""
    if next(block.parameters(), None) is None:
        raise ValueError(f"{key} must have parameters, got {block}.")
    for module in block.modules():
        if getattr(module, "track_running_stats", False):
            raise ValueError(
                f"{key} must not keep running statistics, got {type(module).__name__}: a layer would no longer be "
                "a function of its input and weights; use LayerNorm or GroupNorm."
            )
        if _drops(module) > 0:
            raise ValueError(
                f"{key} must not draw random numbers, got {module}: a step, its inverse and its recomputation would "
                f"differ; remove it and use lv.dropout(field, {_drops(module):g})."
            )


def _drops(module: nn.Module) -> float:
    """With what probability a module of torch's drops entries: `Dropout` and its kin, attention, recurrent layers."""
    p = module.p if isinstance(module, _DropoutNd) else getattr(module, "dropout", 0.0)
    return p if isinstance(p, int | float) else 0.0


def _alike(a: nn.Module, b: nn.Module) -> bool:
    """Whether two modules of equal parameter shapes compute the same function of those parameters."""
    theirs = dict(b.named_buffers())
    return (
        repr(a) == repr(b)
        and [_settings(part) for part in a.modules()] == [_settings(part) for part in b.modules()]
        and [w.requires_grad for w in a.parameters()] == [w.requires_grad for w in b.parameters()]
        and dict(a.named_buffers()).keys() == theirs.keys()
        and all(torch.equal(buffer, theirs[name]) for name, buffer in a.named_buffers())
    )


def _settings(part: nn.Module) -> dict[str, Any]:
    """The plain attributes, which a repr need not show; `training` is the field's to set."""
    return {
        name: value
        for name, value in vars(part).items()
        if isinstance(value, bool | int | float | str) and name != "training" and name[0] != "_"
    }


def _reset(module: nn.Module) -> nn.Module:
    for part in module.modules():
        for name in ("reset_parameters", "_reset_parameters"):  # the second is that of `MultiheadAttention`
            reset: Any = getattr(part, name, None)
            if callable(reset):
                reset()
    return module


def _flat(key: str, name: str) -> str:
    return f"{key}__{name.replace('.', '__')}"


def _theta_type(names: tuple[str, ...]) -> Any:
    if names not in _THETA_TYPES:  # no functools.cache, which torch.compile warns of
        _THETA_TYPES[names] = namedtuple("ShearTheta", names)
    return _THETA_TYPES[names]


_THETA_TYPES: dict[tuple[str, ...], Any] = {}
