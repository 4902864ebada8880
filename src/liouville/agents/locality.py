r"""Does a network fit a communication graph? Proved or refuted for every layer, forwards and backwards.

S_ik = 1 means that node i may receive from node k. A layer fits if every boolean product that its passes need, see
`liouville.agents.patterns.needs`, lies within S. With S symmetric and ones on the diagonals of S, R and T (or X), the
forward products imply the backward ones; otherwise they do not, so all are tested.
"""

from __future__ import annotations

__all__ = ["Locality", "Violation", "check", "derived_mask", "require_local"]

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from liouville.agents.patterns import (
    PROTOCOLS,
    GeneralPattern,
    Protocol,
    SeparablePattern,
    needs,
    patterns_of,
    product,
    reach,
)
from liouville.flow import Flow
from liouville.graphs import Pattern, adjacency, as_pattern, distances
from liouville.names import lookup

Layer = GeneralPattern | SeparablePattern


@dataclass(frozen=True)
class Violation:
    """Something that a node needs and cannot receive: ``hops`` links away, or -1 where no path leads.

    ``layer`` is None where all layers have the same pattern; ``called`` is what both nodes are called.
    """

    node: int
    other: int
    what: str
    hops: int
    layer: int | None
    phase: str
    called: tuple[str, str] | None = None

    def __str__(self) -> str:
        node, other = self.called or (f"node {self.node}", f"node {self.other}")
        away = f"which is {self.hops} hops away" if self.hops > 0 else "which no path of the graph reaches"
        layer = "every layer's" if self.layer is None else f"layer {self.layer}'s"
        return f"{node} needs the {self.what} of {other}, {away}, in {layer} {self.phase} pass"


@dataclass(frozen=True)
class Locality:
    """What `check` found.

    Args:
        protocol: the one that was checked.
        violations: empty where the network fits the graph.
        exchanges: rounds of messages in each layer's forward pass; the backward pass has as many.
        hops: for each layer, how many links the farthest influence crosses; -1 where one comes from beyond all paths.
        receptive: `[j][i][k]`, whether node i's state after j layers depends on node k's at the start, booleans.
        spans: after j layers, how many links the farthest of these influences has crossed; -1 as for ``hops``.
    """

    protocol: Protocol
    violations: tuple[Violation, ...]
    exchanges: tuple[int, ...]
    hops: tuple[int, ...]
    receptive: Tensor
    spans: tuple[int, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether every node finds all it needs at its neighbours."""
        return not self.violations

    @property
    def everywhere(self) -> int | None:
        """The depth after which every node depends on every node's input; None if that is never reached."""
        full = self.receptive.flatten(1).all(1).nonzero()
        return int(full[0]) if len(full) else None

    @property
    def decision(self) -> str:
        """What one pass through all layers takes, in words; "" where not all layers were given."""
        if len(self.spans) != len(self.exchanges) + 1:
            return ""
        far = f"up to {self.spans[-1]} hops away" if self.spans[-1] >= 0 else "that no path reaches"
        layers = "1 layer" if len(self.exchanges) == 1 else f"{len(self.exchanges)} layers"
        rounds = f"{sum(self.exchanges)} exchanges one after the other"
        return f"a decision, {layers}, takes {rounds}, and depends on nodes {far}"

    def __str__(self) -> str:
        verdict = f"local under {self.protocol}" if self.holds else f"not local under {self.protocol}"
        sizes = self.receptive.sum(2)
        grow = ", ".join(f"{int(s.min())}-{int(s.max())}" if s.min() < s.max() else str(int(s[0])) for s in sizes)
        lines = [
            f"{verdict}: {_range(self.exchanges)} exchanges and {_range(self.hops)} hops a layer",
            f"nodes that a node depends on, by depth: {grow}",
            *([self.decision] if self.decision else []),
            *(str(violation) for violation in self.violations),
        ]
        return "\n".join(lines)


def check(graph: Any, pattern: Flow | Layer | Sequence[Layer], protocol: Protocol = "replicated") -> Locality:
    """Prove or refute that every node of ``graph`` needs nothing but its neighbours, forwards and backwards.

    Args:
        graph: the communication graph S, anything that `liouville.graphs.adjacency` reads; S_ik: i may receive from k.
        pattern: the block patterns of a layer, one for each of several layers, or a flow whose operator is a `Graph`.
        protocol: "replicated": nodes also hold rows of K that their neighbours own, one exchange per half-step;
            "owner-computes": only its owner holds a row of K, two exchanges per half-step.

    Raises:
        ValueError: for an unknown protocol, patterns of another number of nodes, or a flow without a `Graph`.

    Examples:
        >>> import liouville as lv
        >>> ring = [(i, (i + 1) % 8) for i in range(8)]
        >>> flow = lv.zoo.h2(16, layers=4, T=2.0, operator=lv.Graph(ring))
        >>> check(ring, flow, "owner-computes").holds
        True
        >>> print(check(ring, flow).violations[0])
        node 0 needs the state of node 2, which is 2 hops away, in every layer's forward pass
    """
    lookup(dict.fromkeys(PROTOCOLS), protocol, "protocol")
    S = adjacency(graph)
    layers: list[Any] = patterns_of(pattern) if isinstance(pattern, Flow) else _as_list(pattern)
    for layer in layers:
        _require_size(layer, len(S))
    far = distances(S)
    same = all(_equal(layer, layers[0]) for layer in layers)
    violations: list[Violation] = []
    for j, layer in enumerate(layers[:1] if same else layers):
        violations += _violations(S, far, layer, protocol, None if same else j)
    reached = [reach(layer) for layer in layers]
    hops = tuple(_farthest(far, _by_node(r, len(S))) for r in reached)
    exchanges = tuple(_exchanges(layer, protocol) for layer in layers)
    single = isinstance(pattern, (GeneralPattern, SeparablePattern))
    receptive = _receptive(reached, len(S), repeat=single)
    spans = tuple(_farthest(far, one) for one in receptive)
    return Locality(protocol, tuple(violations), exchanges, hops, receptive, spans)


def require_local(graph: Any, flow: Flow, protocol: Protocol) -> None:
    """Raise a `ValueError` with the first violation where a flow does not fit a communication graph."""
    violations = check(graph, flow, protocol).violations
    if violations:
        more = f" (and {len(violations) - 1} more)" if len(violations) > 1 else ""
        other = "; the protocol owner-computes needs fewer links" if protocol == "replicated" else ""
        raise ValueError(
            f"the network does not fit the communication graph: {violations[0]}{more}. Use a mask of K within the "
            f"graph, as agents.derived_mask makes one{other}."
        )


def derived_mask(graph: Any, protocol: Protocol = "replicated") -> Pattern:
    """The mask R of K that a communication graph admits under a protocol, for node-wise J.

    Owner-computes: all links that go both ways. Replicated: row i is a set of nodes that all hear each other, node i
    and its neighbours, added one after the other, those with the most neighbours in common first, ties by number.

    Examples:
        >>> two_hops = [(i, (i + d) % 8) for i in range(8) for d in (1, 2)]
        >>> sum(derived_mask(two_hops)[0]), sum(derived_mask(two_hops, "owner-computes")[0])
        (3, 5)
    """
    lookup(dict.fromkeys(PROTOCOLS), protocol, "protocol")
    pattern = adjacency(graph)
    S = torch.tensor(pattern)
    both = S & S.mT
    if protocol == "owner-computes":
        return as_pattern(both, pattern.names)
    R = torch.eye(len(S), dtype=torch.bool)
    common = both.double() @ both.double()
    for i, row in enumerate(R):
        neighbours = both[i].nonzero().flatten().tolist()
        for k in sorted(neighbours, key=lambda k: (-common[i, k].item(), k)):
            if both[k][row].all():
                row[k] = True
    return as_pattern(R, pattern.names)


def _violations(graph: Pattern, far: Tensor, layer: Layer, protocol: Protocol, j: int | None) -> list[Violation]:
    found: dict[Violation, None] = {}
    S = torch.tensor(graph)
    for phase, what, pattern in needs(layer, protocol):
        for i, k in (pattern & ~S).nonzero().tolist():
            found[Violation(i, k, what, int(far[i, k]), j, phase, (graph.label(i), graph.label(k)))] = None
    return list(found)


def _receptive(reached: list[Tensor], M: int, repeat: bool) -> Tensor:
    """After 0, 1, ... layers; a single pattern is repeated until nothing changes."""
    total = torch.eye(len(reached[0]), dtype=torch.bool)
    fields, layers = [_by_node(total, M)], iter(reached)
    while (layer := next(layers, reached[-1] if repeat else None)) is not None:
        before, total = total, product(layer, total)
        if repeat and torch.equal(before, total):
            break
        fields.append(_by_node(total, M))
    return torch.stack(fields)


def _by_node(pattern: Tensor, M: int) -> Tensor:
    """(2M, 2M) over (p, q) -> (M, M) over nodes."""
    copies = len(pattern) // M
    return pattern.reshape(copies, M, copies, M).any(2).any(0)


def _farthest(far: Tensor, pattern: Tensor) -> int:
    hops = far[pattern]
    return -1 if (hops < 0).any() else int(hops.max())


def _exchanges(layer: Layer, protocol: Protocol) -> int:
    stages = 1 if isinstance(layer, GeneralPattern) else len(layer.stages)
    if protocol == "replicated":
        return stages
    A = layer.T if isinstance(layer, GeneralPattern) else layer.X
    coupled = bool((torch.as_tensor(A) != 0)[~torch.eye(len(A), dtype=torch.bool)].any())
    return stages * (3 if coupled else 2)


def _as_list(pattern: Layer | Sequence[Layer]) -> list[Any]:
    layers = [pattern] if isinstance(pattern, (GeneralPattern, SeparablePattern)) else list(pattern)
    if not layers or not all(isinstance(layer, (GeneralPattern, SeparablePattern)) for layer in layers):
        raise ValueError("expected a Flow, a GeneralPattern, a SeparablePattern, or a list of patterns, one per layer.")
    return layers


def _require_size(layer: Layer, M: int) -> None:
    for matrix in layer[: 2 if isinstance(layer, GeneralPattern) else 3]:
        if tuple(matrix.shape) != (M, M):  # type: ignore[union-attr]
            raise ValueError(
                f"the graph has {M} nodes, so every pattern is a {M} x {M} matrix; got shape {tuple(matrix.shape)}."  # type: ignore[union-attr]
            )


def _equal(a: Any, b: Any) -> bool:
    return a is b or (
        type(a) is type(b)
        and all(torch.equal(x, y) if isinstance(x, Tensor) else x == y for x, y in zip(a, b, strict=True))
    )


def _range(numbers: tuple[int, ...]) -> str:
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low} to {high}"
