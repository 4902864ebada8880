"""A graph as nested tuples of booleans, `S[i][k]`: node i may receive from node k; and the names of its nodes."""

from __future__ import annotations

__all__ = ["LARGEST", "Pattern", "as_pattern", "distances", "linked", "numbered"]

import re
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

LARGEST = 4096  # maximum number of nodes: beyond it the matrix of a typing error could fill the memory


class Pattern(tuple[tuple[bool, ...], ...]):
    """A square boolean pattern as nested tuples, with their comparison and hash; names do not count.

    Args:
        rows: `S[i][k]`, whether node i may receive from node k.
        names: names of the nodes, in order; empty if nodes are numbered 0 ... M - 1.
        notes: assumptions made in reading the graph, as sentences.

    Examples:
        >>> S = Pattern([(True, False), (True, True)], ("tank", "pump"))
        >>> S == ((True, False), (True, True)), S.label(1), S.one_way()
        (True, 'node pump', [(0, 1)])
    """

    names: tuple[str, ...]
    notes: tuple[str, ...]

    def __new__(
        cls, rows: Iterable[Iterable[bool]] = (), names: Sequence[str] = (), notes: Sequence[str] = ()
    ) -> Pattern:
        pattern = super().__new__(cls, tuple(tuple(row) for row in rows))
        pattern.names, pattern.notes = tuple(names), tuple(notes)
        return pattern

    def label(self, node: int) -> str:
        """A label of a node: its name, or its number."""
        return f"node {self.names[node] if self.names else node}"

    def one_way(self) -> list[tuple[int, int]]:
        """The links without a reverse link, as (sender, receiver)."""
        S = torch.tensor(self)
        return [(k, i) for i, k in (S & ~S.mT).nonzero().tolist()]

    def alone(self) -> list[int]:
        """The nodes without any link."""
        S = torch.tensor(self)
        return ((S | S.mT).sum(0) <= S.diagonal()).nonzero().flatten().tolist()

    def in_order_of(self, other: Pattern) -> Pattern:
        """The same graph with its nodes in the order of another graph, if both have the same names.

        Raises:
            ValueError: if both have names that differ.
        """
        if not (self.names and other.names) or self.names == other.names:
            return self
        odd = sorted(set(self.names) ^ set(other.names))
        if odd:
            raise ValueError(f"both graphs name their nodes, but only one of them has a node {odd[0]}.")
        at = {name: i for i, name in enumerate(self.names)}
        order = [at[name] for name in other.names]
        return Pattern(([self[i][k] for k in order] for i in order), other.names, self.notes)


def as_pattern(matrix: Tensor, names: Sequence[str] = (), notes: Sequence[str] = ()) -> Pattern:
    """A boolean matrix as a `Pattern`."""
    return Pattern(matrix.tolist(), names, notes)


def linked(
    names: Sequence[str],
    links: Iterable[tuple[int, int]],
    *,
    order: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> Pattern:
    """The graph of named nodes with ``links``, (sender, receiver) by position.

    Nodes named 0 ... M - 1 or 1 ... M are sorted by these numbers, others keep their order. If the names give no order,
    ``order``, other names of the same nodes, may.
    """
    require_size(len(names))
    rank = next((ranks for ranks in map(_ranks, (order, names)) if ranks), list(range(len(names))))
    matrix = torch.eye(len(names), dtype=torch.bool)
    for sender, receiver in links:
        matrix[rank[receiver], rank[sender]] = True
    placed = [name for _, name in sorted(zip(rank, map(_plain, names), strict=True))]
    silent = placed == [str(i) for i in range(len(placed))] or len(set(placed)) < len(placed)
    return as_pattern(matrix, () if silent else placed, notes)


def numbered(links: Sequence[tuple[int, int]], notes: Sequence[str] = ()) -> Pattern:
    """The graph of links between numbers, each from the first to the second: nodes 0 ... highest, or, if the numbers
    are exactly 1 ... M, M nodes with these names.

    Raises:
        ValueError: for a number below 0 or above 4095.
    """
    nodes = {node for link in links for node in link}
    low, high = min(nodes), max(nodes)
    if low < 0 or high > LARGEST:
        odd = low if low < 0 else min(high, 10**12)
        raise ValueError(
            f"the nodes of a link are numbered 0 to {LARGEST - 1}, got {odd}; give other nodes names, not numbers."
        )
    if low == 1 and len(nodes) == high > 1:
        names, links = [str(i) for i in range(1, high + 1)], [(i - 1, k - 1) for i, k in links]
        return linked(names, links, notes=(*notes, f"its nodes are numbered from 1, 1 to {high}"))
    return linked([str(i) for i in range(high + 1)], links, notes=notes)


def require_size(nodes: int) -> None:
    """Raise a `ValueError` unless a graph may have this number of nodes."""
    if not 0 < nodes <= LARGEST:
        raise ValueError(f"a graph has 1 to {LARGEST} nodes, got {nodes}.")


def _ranks(names: Sequence[str]) -> list[int]:
    """The position of each node, if the names are 0 ... M - 1 or 1 ... M in any order."""
    if not names or not all(re.fullmatch("[0-9]{1,9}", name) for name in names):
        return []
    numbers = [int(name) for name in names]
    first = min(numbers)
    return [n - first for n in numbers] if first < 2 and sorted(numbers) == _range(first, len(numbers)) else []


def _range(first: int, size: int) -> list[int]:
    return list(range(first, first + size))


def _plain(name: str) -> str:
    """A name on one line."""
    return " ".join("".join(c if c.isprintable() else " " for c in name).split()) or repr(name)


def distances(pattern: Any) -> Tensor:
    """Hops from node k to node i, `[i][k]`, along the links; -1 without a path.

    Examples:
        >>> from liouville.graphs import adjacency
        >>> distances(adjacency([(0, 1), (1, 2)]))[0].tolist()
        [0, 1, 2]
    """
    S = torch.as_tensor(pattern, dtype=torch.float64)
    reached = torch.eye(len(S), dtype=torch.float64)
    hops = torch.where(reached > 0, 0, -1)
    for hop in range(1, len(S)):
        reached = ((S @ reached) > 0).to(S)
        hops[(hops < 0) & (reached > 0)] = hop
    return hops
