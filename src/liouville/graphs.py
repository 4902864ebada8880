"""Graphs as boolean matrices: `S[i][k]` says whether node i may receive from node k.

A graph comes from networkx, from a file, from a matrix or from a list of links; everything above sees one square
pattern of booleans with ones on the diagonal, since a node always knows itself.
"""

from __future__ import annotations

__all__ = ["Pattern", "adjacency", "as_pattern", "distances"]

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

Pattern = tuple[tuple[bool, ...], ...]
_ACCEPTED = "a networkx graph, a square matrix, a list of links (i, k), or a file (.graphml, or an edge list as text)"
_LARGEST = 4096  # nodes: beyond it the matrix of a typing error would fill the memory


def adjacency(source: Any) -> Pattern:
    """Who may receive from whom: `S[i][k]`, i from k, with ones on the diagonal.

    Args:
        source: a networkx graph (an edge u -> v of a directed one lets v receive from u); a square matrix, tensor,
            array or nested list (an entry other than 0 at `[i][k]` lets i receive from k); a list of pairs (i, k) or an
            edge list as text, one pair a line, which link both ways; or the path of a GraphML file. Nodes are numbered
            as their names say if these are 0 ... M - 1, else in the order in which they come.

    Raises:
        ValueError: if it is none of these, not square, empty, or has other entries than numbers.
        FileNotFoundError: there is no such file.
        ImportError: networkx is not installed, which reads GraphML.

    Examples:
        >>> adjacency([(0, 1), (1, 2)])
        ((True, True, False), (True, True, True), (False, True, True))
    """
    if isinstance(source, (str, os.PathLike)):
        source = _read(Path(source))
    if hasattr(source, "is_directed") and hasattr(source, "edges"):
        matrix = _of_networkx(source)
    elif _is_links(source):
        matrix = _of_links(source)
    else:
        matrix = _of_matrix(source)
    if not 0 < len(matrix) <= _LARGEST:
        raise ValueError(f"a graph has 1 to {_LARGEST} nodes, got {len(matrix)}.")
    return as_pattern(matrix | torch.eye(len(matrix), dtype=torch.bool))


def as_pattern(matrix: Tensor) -> Pattern:
    """A boolean matrix as nested tuples, which compare and hash."""
    return tuple(tuple(row) for row in matrix.tolist())


def distances(pattern: Any) -> Tensor:
    """Hops from node k to node i, `[i][k]`, along links that carry messages; -1 where no path leads.

    Examples:
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


def _read(path: Path) -> Any:
    if not path.is_file():
        raise FileNotFoundError(f"there is no graph file {path}; expected {_ACCEPTED}.")
    if path.suffix.lower() == ".graphml":
        try:
            import networkx
        except ImportError as error:
            raise ImportError(
                "GraphML files need networkx; install it: pip install 'liouville[agents]', or give an edge list."
            ) from error
        try:
            return networkx.read_graphml(path)
        except Exception as error:  # the XML parser's errors and networkx's have no common base
            raise ValueError(f"{path} is not a GraphML file: {error}.") from error
    try:
        lines = [line.split("#")[0].replace(",", " ").split() for line in path.read_text(encoding="utf-8").splitlines()]
        return [(int(a), int(b)) for a, b in (words for words in lines if words)]
    except ValueError:
        raise ValueError(f"{path} is not an edge list; expected two node numbers a line, or a .graphml file.") from None


def _of_networkx(graph: Any) -> Tensor:
    names = list(graph.nodes)
    numbers = [str(name) for name in range(len(names))]
    if sorted(map(str, names)) == sorted(numbers):
        names.sort(key=lambda name: int(str(name)))
    index = {name: i for i, name in enumerate(names)}
    matrix = torch.zeros(len(names), len(names), dtype=torch.bool)
    for u, v in graph.edges():
        matrix[index[v], index[u]] = True
        if not graph.is_directed():
            matrix[index[u], index[v]] = True
    return matrix


def _is_links(source: Any) -> bool:
    """Pairs of whole numbers; booleans, or three and more in a row, are a matrix."""
    if not isinstance(source, (list, tuple, set, frozenset)) or not source:
        return False
    return all(
        isinstance(pair, Sequence) and len(pair) == 2 and all(type(node) is int for node in pair) for pair in source
    )


def _of_links(links: Iterable[Sequence[int]]) -> Tensor:
    links = list(links)
    nodes = [node for link in links for node in link]
    if min(nodes) < 0 or max(nodes) >= _LARGEST:
        raise ValueError(f"the nodes of a link are numbered 0 to {_LARGEST - 1}, got {min(nodes)} and {max(nodes)}.")
    matrix = torch.zeros(max(nodes) + 1, max(nodes) + 1, dtype=torch.bool)
    for i, k in links:
        matrix[i, k] = matrix[k, i] = True
    return matrix


def _of_matrix(source: Any) -> Tensor:
    try:
        matrix = torch.as_tensor(source)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"cannot read a graph from a {type(source).__name__}; expected {_ACCEPTED}.") from None
    if matrix.dim() != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"an adjacency matrix is square, got shape {tuple(matrix.shape)}; expected {_ACCEPTED}.")
    if matrix.isnan().any():
        raise ValueError("an adjacency matrix has numbers as entries, got nan; write 0 where there is no link.")
    return matrix != 0
