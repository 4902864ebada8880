r"""Shears of arbitrary modules: any block, made invertible with determinant 1."""

from __future__ import annotations

__all__ = ["ShearField"]

from collections import namedtuple
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils import parametrize
from torch.nn.utils.stateless import _reparametrize_module

from liouville.fields.base import Theta, require_sample_ndim
from liouville.fields.modules import (
    Pool,
    Slot,
    modules_of,
    pools,
    require_alike,
    settings,
    sharing,
    skeleton_of,
    slots,
    uncached,
)
from liouville.fields.partitioned import PartitionedField
from liouville.fields.signatures import Signature, named


class _Entry(NamedTuple):
    """One tensor of `theta`: the parameter or buffer it is read from, and the buffer of the rows to take, if any."""

    name: str
    source: str
    rows: str | None = None


class ShearField(PartitionedField):
    r"""p' = -G(q), q' = F(p) for any two modules F and G, with separate weights in every layer.

    Properties: each half moves by a function of only the other, so every splitting scheme inverts exactly and has
    determinant 1, whatever F and G are. It is symplectic only if they are gradients.

    The modules are *copied*: the field owns the stacked weights, and training it does not change the given modules.
    Shared tensors stay shared: a parameter under two names, a part that is used twice, and in a list one module
    given for several layers, or for both F and G. ``[block] * N`` has the weights of one block.

    Args:
        F: a module from n_p to n_q features; a template, copied for every layer, with weights drawn afresh by
            the ``reset_parameters`` of its parts, or N modules whose weights are copied as they are.
        G: likewise, from n_q to n_p features. A template given as F and as G is copied for both.
        layers: N.
        features: n = n_p + n_q.
        p_features: n_p; half by default.
        feature_axis: axis of the features, counted from the end; -1 for vectors, -3 for images.
        sample_ndim: how many trailing axes are one sample, 2 for sequences (batch, tokens, features). Only results per
            sample need it; without it they refuse inputs with more than one batch axis.

    Masks, tables, embeddings: ``flow(y, mask=mask)`` hands every layer's F and G the arguments by keyword that their
    ``forward`` names, and all those by position, if it takes so many. Tensors among them get their gradients.

    Frozen parameters stay frozen, and all N modules must agree on which are. Buffers that differ between layers are
    kept per layer.

    Raises:
        TypeError: if F or G is neither a module nor a sequence of modules.
        ValueError: if a module has no parameters, parameters without a shape, hooks (old ``weight_norm``, ``prune``),
            keeps running statistics (batch norm) or drops out; if the N modules differ in more than the values of their
            parameters and buffers; if ``sample_ndim`` leaves the features out; in the first run, if a module changes
            its input in place, keeps something from one call to the next, or returns another shape or dtype than the
            half that it moves.

    Examples:
        >>> block = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 2))
        >>> field = ShearField(block, block, layers=3, features=4)
        >>> field.theta()._fields[:2]
        ('F__0__weight', 'F__0__bias')
        >>> shared = ShearField([block] * 3, [block] * 3, layers=3, features=4)
        >>> sum(w.numel() for w in shared.parameters()) == sum(w.numel() for w in block.parameters())
        True
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
        self._entries: list[_Entry] = []
        self.merged: set[str] = set()  # buffers that were equal in several modules, and are kept once
        # the tensors given to the paths of a module: entries of theta, and buffers that all layers read
        self._lent: dict[str, list[tuple[str, str]]] = {"F": [], "G": []}
        self._fixed: dict[str, list[tuple[str, str]]] = {"F": [], "G": []}
        self._watched: dict[str, list[str]] = {"F": [], "G": []}  # the paths of all buffers
        held: dict[str, list[Slot]] = {"_parameters": [], "_buffers": []}
        for key, given in (("F", F), ("G", G)):
            modules = modules_of(given, layers, key)
            if not isinstance(given, nn.Module) or isinstance(given, nn.ModuleList):
                require_alike(modules, key)
            self.skeletons[key] = skeleton_of(modules[0], key)
            for kind in held:
                held[kind] += slots(modules, key, kind)
        self._takes = {key: Signature.of(skeleton.forward) for key, skeleton in self.skeletons.items()}
        self._keep_buffers(held["_buffers"])
        self.sharing = sharing(held["_parameters"], layers)
        self.stacked.constant = frozenset().union(*map(self._stack, pools(held["_parameters"])))  # type: ignore[assignment]
        self.theta()  # its type is known before a compiler looks

    def _stack(self, pool: Pool) -> set[str]:
        """One parameter for each group of tied tensors; its name, where its axis 0 does not count the layers."""
        weights = torch.stack([t.detach() for t in pool.tensors])
        source = self._unused(next(iter(pool.rows.values()))[0].name)
        self.stacked[source] = nn.Parameter(weights, requires_grad=pool.tensors[0].requires_grad)
        plain = len(pool.rows) == 1 and next(iter(pool.rows)) in (tuple(range(self.layers)), (0,) * self.layers)
        for row, tied in pool.rows.items():
            name, rows = (source, None) if plain else (self._unused(tied[0].name), f"rows_{len(self._entries)}")
            if rows:
                self.register_buffer(rows, torch.tensor(row), persistent=False)
            self._entries.append(_Entry(name, source, rows))
            for slot in tied:
                self._lent[slot.key].append((slot.path, name))
        return set() if plain and len(weights) == self.layers else {source}

    def _keep_buffers(self, held: Sequence[Slot]) -> None:
        """Buffers equal in all layers, once; for a part where any differ, one copy per layer."""
        varying = {slot.part for slot in held if any(not torch.equal(t, slot.tensors[0]) for t in slot.tensors)}
        known: dict[tuple[int, ...], str] = {}
        for slot in held:
            ids, own = tuple(map(id, slot.tensors)), slot.part in varying
            if ids not in known:
                known[ids] = self._unused(slot._replace(key=f"{slot.key}_buffer").name)
                value = torch.stack(slot.tensors) if own else slot.tensors[0].clone()
                self.register_buffer(known[ids], value.detach())
                if own:
                    self._entries.append(_Entry(known[ids], known[ids]))
                elif len(set(ids)) > 1:
                    self.merged.add(known[ids])
            (self._lent if own else self._fixed)[slot.key].append((slot.path, known[ids]))
            self._watched[slot.key].append(slot.path)

    def _unused(self, name: str) -> str:
        """``name``, or a similar name that is free."""
        taken = {entry.name for entry in self._entries} | vars(self)["_buffers"].keys()
        while name in taken:
            name += "_"
        return name

    def theta(self) -> Theta:
        """The weights of F and G, stacked over layers (axis 0 of length 1 where all share one), and such buffers."""
        return _theta_type(tuple(entry.name for entry in self._entries))(*map(self._read, self._entries))

    def _read(self, entry: _Entry) -> Tensor:
        held = self.stacked[entry.source] if entry.source in self.stacked else getattr(self, entry.source)
        return held if entry.rows is None else held.index_select(0, getattr(self, entry.rows))

    def p_dot(self, q: Tensor, theta_j: Theta, *args: Any, **context: Any) -> Tensor:
        """p' = -G(q)."""
        return -self._call("G", q, theta_j, args, context)

    def q_dot(self, p: Tensor, theta_j: Theta, *args: Any, **context: Any) -> Tensor:
        """q' = F(p)."""
        return self._call("F", p, theta_j, args, context)

    def check_arguments(self, args: Sequence[Any], context: Mapping[str, Any]) -> None:
        chosen = {key: takes.chosen(args, context) for key, takes in self._takes.items()}
        unknown = [name for name in context if not any(name in own for _, own in chosen.values())]
        if unknown or (args and not any(own for own, _ in chosen.values())):
            raise TypeError(
                f"neither F nor G takes {named(() if unknown else args, dict.fromkeys(unknown))} beside its input; "
                "each gets the arguments by keyword that its forward names, and all by position if it takes so many."
            )
        for key, own in chosen.items():
            for name in self._takes[key].missing(*own):
                raise TypeError(
                    f"{key} needs the argument {name} beside its input; give it to the run, as in "
                    f"flow(y, {name}={name})."
                )

    def train(self, mode: bool = True) -> ShearField:
        for skeleton in self.skeletons.values():
            skeleton.train(mode)
        return super().train(mode)

    def extra_repr(self) -> str:
        return super().extra_repr() + ("" if self.sample_ndim is None else f", sample_ndim={self.sample_ndim}")

    def _call(self, key: str, x: Tensor, theta_j: Theta, args: Sequence[Any], context: dict[str, Any]) -> Tensor:
        if parametrize._cache_enabled:  # it would hand the weights of one layer to all
            with uncached():
                return self._call(key, x, theta_j, args, context)
        if args or context:
            args, context = self._takes[key].chosen(args, context)
        skeleton, tensors = self.skeletons[key], self._tensors(key, theta_j)
        buffers = {path: tensors[path] for path in self._watched[key]}
        if torch.compiler.is_compiling():  # a compiler does not show work in place, and removes a needless copy
            x = x.clone()
        if torch.jit.is_tracing():  # functional_call refuses it
            with _reparametrize_module(skeleton, tensors):
                velocity = skeleton(x, *args, **context)
        else:  # tied tensors are given under each of their names
            velocity = functional_call(skeleton, tensors, (x, *args), context, tie_weights=False)
        if any(tensors[path] is not buffer for path, buffer in buffers.items()):
            raise ValueError(
                f"{key} replaces a buffer by a new tensor, which no layer of ShearField can keep; let forward "
                "be a function of its input and weights."
            )
        if isinstance(velocity, Tensor) and velocity.shape != x.shape:
            self._require_width(key, x, velocity)
        return velocity

    def _require_width(self, key: str, x: Tensor, velocity: Tensor) -> None:
        shape = list(x.shape)
        shape[self.feature_axis] = self.features - self.p_features if key == "F" else self.p_features
        if list(velocity.shape) != shape:
            raise ValueError(
                f"{key} gives a velocity of shape {tuple(velocity.shape)} for a state of shape {tuple(shape)}: their "
                f"sum would be broadcast or fail; let it end with {shape[self.feature_axis]} features."
            )

    def _tensors(self, key: str, theta_j: Theta) -> dict[str, Tensor]:
        """The tensors that F or G reads in one layer, by their paths in the module."""
        tensors = {path: getattr(theta_j, name) for path, name in self._lent[key]}
        return tensors | {path: getattr(self, name) for path, name in self._fixed[key]}

    @property
    def constants(self) -> Collection[str]:  # type: ignore[override]
        return [entry.name for entry in self._entries if entry.source not in self.stacked]

    def check_writes(self, buffers: Sequence[str]) -> None:
        for name in buffers:
            if name in self.merged:
                raise ValueError(
                    f"{name[0]} changes the buffer {name.partition('_buffer__')[2]}, which ShearField keeps once for "
                    "all layers, since it was equal in all of them at first; let forward leave buffers unchanged."
                )

    def plain_state(self) -> dict[str, Any]:
        return {
            f"the attribute {name} of {key}": _frozen(value)
            for key, skeleton in self.skeletons.items()
            for part in skeleton.modules()
            for name, value in settings(part).items()
        }

    def _prolong(self, how: str) -> None:
        """Double the buffers of the layers, and the record of which layers share them."""
        for entry in self._entries:
            if entry.rows and how != "constant":
                raise ValueError(
                    f"how={how!r} would give layers that share {entry.source} weights of their own; use 'constant'."
                )
            doubled = entry.rows or (entry.source if entry.source not in self.stacked else None)
            if doubled:
                setattr(self, doubled, getattr(self, doubled).repeat_interleave(2, 0))


def _frozen(value: Any) -> Any:
    """A copy of a container's present contents; any other value unchanged."""
    if isinstance(value, dict):
        value = [*value, *value.values()]
    return tuple(map(_frozen, value)) if isinstance(value, list | tuple | set) else value


def _theta_type(names: tuple[str, ...]) -> Any:
    if names not in _THETA_TYPES:  # not functools.cache: torch.compile warns about it
        _THETA_TYPES[names] = namedtuple("ShearTheta", names)
    return _THETA_TYPES[names]


_THETA_TYPES: dict[tuple[str, ...], Any] = {}
