r"""Shears of arbitrary modules: any user's block, made invertible with determinant 1."""

from __future__ import annotations

__all__ = ["ShearField"]

import copy
import functools
from collections import namedtuple
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from liouville.fields.base import PartitionedField, Theta


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

    Raises:
        ValueError: if a module has no parameters, keeps running statistics (batch norm), or the N modules differ.

    Example:
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
    ) -> None:
        super().__init__(features, layers, p_features)
        self.feature_axis = feature_axis
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
                self.stacked[_flat(key, name)] = nn.Parameter(weights)

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

    def _call(self, key: str, x: Tensor, theta_j: Theta) -> Tensor:
        skeleton = self.skeletons[key]
        tensors = {name: getattr(theta_j, _flat(key, name)) for name in self._names[key]}
        tensors |= {name: getattr(self, _flat(f"{key}_buffer", name)) for name, _ in skeleton.named_buffers()}
        return functional_call(skeleton, tensors, (x,))


def _copies(given: nn.Module | Sequence[nn.Module], layers: int, key: str) -> list[nn.Module]:
    """N modules of one shape: copies of a template with fresh weights, or the N given ones."""
    if isinstance(given, nn.Module):
        copies = [_reset(copy.deepcopy(given)) for _ in range(layers)]
    else:
        copies = list(given)
    if len(copies) != layers:
        raise ValueError(f"{key} must be one module or {layers} of them (one per layer), got {len(copies)}.")
    shapes = [{name: tuple(p.shape) for name, p in c.named_parameters()} for c in copies]
    if not shapes[0]:
        raise ValueError(f"{key} must have parameters, got {copies[0]}.")
    if any(s != shapes[0] for s in shapes):
        raise ValueError(f"the modules of {key} must have parameters of the same names and shapes in every layer.")
    for module in copies[0].modules():
        if getattr(module, "track_running_stats", False):
            raise ValueError(
                f"{key} must not keep running statistics, got {type(module).__name__}: a layer would no longer be "
                "a function of its input and weights; use LayerNorm or GroupNorm."
            )
    return copies


def _reset(module: nn.Module) -> nn.Module:
    for part in module.modules():
        reset: Any = getattr(part, "reset_parameters", None)
        if callable(reset):
            reset()
    return module


def _flat(key: str, name: str) -> str:
    return f"{key}__{name.replace('.', '__')}"


@functools.cache
def _theta_type(names: tuple[str, ...]) -> Any:
    return namedtuple("ShearTheta", names)
