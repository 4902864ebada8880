"""Graphs in many forms, read as a `Pattern`: Python objects here, files in `text` and `graphml`."""

from __future__ import annotations

__all__ = ["adjacency"]

import os
from collections.abc import Iterable, Mapping, Set
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from liouville.graphs.pattern import Pattern, as_pattern, linked, numbered, require_size
from liouville.graphs.tables import Edge, Fault, ends_of, of_edges, same_names, two_by_two

_ACCEPTED = "a networkx graph, a square matrix, a list of links (i, k), or a file of one of these"
_INTEGERS = {torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64}


def adjacency(source: Any, *, undirected: bool = False) -> Pattern:
    r"""Which node may receive from which: `S[i][k]`, i from k, with ones on the diagonal.

    The type, the shape and the entries of a source decide its reading, in this order:

    ======================================================  ===========================================================
    networkx or igraph graph                                an edge u -> v of a directed one lets v receive from u
    pandas DataFrame                                        links if columns are called source and target (from and to,
                                                            u and v, ...), else a matrix, whose names are kept
    SciPy or torch sparse matrix, square array or tensor,   a matrix: an entry other than 0 at `[i][k]` lets i receive
    nested lists of that shape                              from k
    whole numbers of shape (m, 2), or (2, m) as             links, which carry messages both ways
    torch_geometric's `edge_index`
    pairs (i, k) of whole numbers or of names, also         links, both ways
    NumPy's or torch's integers
    path of a file                                          see "Which graphs are read" in the documentation
    ======================================================  ===========================================================

    Two links have the shape of a 2 x 2 matrix. A list of *tuples* is links, an array of 0 and 1 or of fractions is a
    matrix, and whole numbers with one above 1 are links; if two different readings remain, it is refused.

    Numbers count nodes 0 ... highest, so a number without a link is a node without links; but links between exactly
    1 ... M are M nodes. Named nodes keep their names (`Pattern.names`), in the order of first appearance.

    Args:
        source: the graph.
        undirected: let every link carry messages both ways.

    Raises:
        ValueError: if it is none of these, ambiguous, not square, empty, of more than 4096 nodes, or has NaN, infinite
            or non-numerical entries; for a file, the line is named.
        FileNotFoundError: if there is no such file.

    Examples:
        >>> adjacency([(0, 1), (1, 2)])
        ((True, True, False), (True, True, True), (False, True, True))
        >>> adjacency(torch.tensor([[0, 1], [1, 2]])) == adjacency([(0, 1), (1, 2)])
        True
        >>> adjacency([("tank", "pump"), ("pump", "valve")]).names
        ('tank', 'pump', 'valve')
    """
    try:
        pattern = _read(source)
    except Fault as fault:
        raise ValueError(f"the graph's {fault.place or 'table'}: {fault.what}.") from None
    require_size(len(pattern))
    S = torch.tensor(pattern) | torch.eye(len(pattern), dtype=torch.bool)
    return as_pattern(S | S.mT if undirected else S, pattern.names, pattern.notes)


def _read(source: Any) -> Pattern:
    if isinstance(source, Pattern):
        return source
    if isinstance(source, (str, os.PathLike)):
        return _of_file(Path(source))
    if all(hasattr(source, name) for name in ("is_directed", "edges", "nodes")):
        return _of_networkx(source)
    if hasattr(source, "get_edgelist") and hasattr(source, "vs"):
        return _of_igraph(source)
    if all(hasattr(source, name) for name in ("columns", "index", "iloc")):
        return _of_frame(source)
    if hasattr(source, "tocoo"):
        return _of_scipy(source)
    if isinstance(source, Tensor):
        return _of_tensor(source)
    if isinstance(source, memoryview):
        return _of_rows(source.tolist())
    if hasattr(source, "__array__"):
        return _of_array(source)
    if isinstance(source, Set) or (
        isinstance(source, Iterable) and not isinstance(source, (Mapping, bytes, bytearray))
    ):
        return _of_rows(source)  # networkx's views of edges are sets and mappings
    return _of_numbers(source)


def _of_file(path: Path) -> Pattern:
    from liouville.graphs import graphml, text  # readers that are rarely needed

    if path.is_dir():
        raise ValueError(f"{path} is a folder; expected a graph file in it.")
    if not path.exists():
        raise FileNotFoundError(f"there is no graph file {path}.")
    try:
        with path.open("rb") as file:
            start = file.read(200)
    except OSError as error:
        raise OSError(f"cannot read {path}: {error.strerror}.") from error
    plain = start.replace(b"\0", b"").lstrip(b"\xef\xbb\xbf\xff\xfe\t\r\n ")
    if not start.startswith(text.PACKED) and (path.suffix.lower() == ".graphml" or plain.startswith(b"<")):
        return graphml.read(path)
    return text.read(path)


# --- graphs of other libraries


def _of_networkx(graph: Any) -> Pattern:
    names = list(graph.nodes)
    require_size(len(names))
    index = {name: i for i, name in enumerate(names)}
    links = [(index[u], index[v]) for u, v in graph.edges()]
    return linked([str(name) for name in names], links if graph.is_directed() else _both(links))


def _of_igraph(graph: Any) -> Pattern:
    require_size(graph.vcount())
    names = graph.vs["name"] if "name" in graph.vs.attributes() else range(graph.vcount())
    links = graph.get_edgelist()
    return linked([str(name) for name in names], links if graph.is_directed() else _both(links))


def _of_scipy(matrix: Any) -> Pattern:
    _require_square(matrix.shape)
    entries = matrix.tocoo(copy=True)
    if entries.dtype.kind in "iu":
        entries = entries.astype("float64")  # sums of small integers may wrap to 0
    entries.sum_duplicates()
    values = _tensor(entries.data)
    _require_finite(values)
    found = [(int(i), int(k)) for i, k, v in zip(entries.row, entries.col, values.tolist(), strict=True) if v != 0]
    return linked([str(i) for i in range(matrix.shape[0])], [(k, i) for i, k in found])


def _of_frame(frame: Any) -> Pattern:
    columns, index = [str(name) for name in frame.columns], [str(name) for name in frame.index]
    ends = None if columns == index else ends_of(columns)
    if ends:
        cells = [[str(_plain(cell)) for cell in frame.iloc[:, at].tolist()] for at in ends]
        return of_edges([Edge(row, *pair) for row, pair in zip(index, zip(*cells, strict=True), strict=True)], "row")
    values = frame.to_numpy()
    numbers = [str(i) for i in range(len(index))]
    if columns == index == numbers and values.shape == (2, 2):
        return _of_array(values)
    if values.ndim != 2 or values.shape[0] != values.shape[1]:
        raise ValueError(
            f"a table of links has columns called source and target, and a table that is a matrix is square; got shape "
            f"{tuple(values.shape)} and columns {', '.join(columns[:4])}."
        )
    names = index if columns == numbers else same_names(columns, columns if index == numbers else index)
    return _of_matrix(_tensor(values), names)


# --- arrays and lists


def _of_array(source: Any) -> Pattern:
    import numpy

    array = source.filled(0) if hasattr(source, "filled") else numpy.asarray(source)
    return _of_rows(array.tolist()) if array.dtype.kind not in "biufc" else _of_tensor(_tensor(array))


def _of_tensor(tensor: Tensor) -> Pattern:
    if tensor.is_nested or tensor.is_quantized or tensor.is_meta:
        raise ValueError("a nested, quantized or meta tensor is not a graph; give its matrix as an ordinary tensor.")
    if tensor.layout != torch.strided:
        _require_square(tensor.shape)
        wide = torch.complex128 if tensor.is_complex() else torch.float64  # sums of small integers may wrap to 0
        return _of_matrix(tensor.to(wide).to_dense())
    if tensor.shape == (2, 2):
        return _of_four(tensor)
    if tensor.dim() == 2 and tensor.dtype in _INTEGERS and 2 in tensor.shape:
        rows = tensor.tolist()
        return _of_pairs(rows if tensor.shape[1] == 2 else zip(*rows, strict=True))
    return _of_matrix(tensor)


def _of_four(tensor: Tensor) -> Pattern:
    """A 2 x 2 array: a matrix, unless whole numbers above 1 show that it is two links."""
    if tensor.is_complex() or not bool(tensor.isfinite().all()):
        return _of_matrix(tensor)
    rows = tensor.tolist()
    cells = [cell for row in rows for cell in row]
    if max(cells) <= 1 or min(cells) < 0 or any(cell != int(cell) for cell in cells):
        return _of_matrix(tensor)
    if tensor.dtype in _INTEGERS:
        return two_by_two(rows, rows_only=False)
    if rows[0][0] == rows[1][1] == 0 and rows[0][1] == rows[1][0]:
        return _of_matrix(tensor)
    raise ValueError(
        f"{rows} may be two links or a 2 x 2 matrix of weights; give links as a list of tuples, a matrix as 0 and 1 "
        "or as booleans."
    )


def _of_rows(source: Iterable[Any]) -> Pattern:
    """Links, where the rows are pairs of whole numbers or of names; else the rows of a matrix."""
    rows = [tuple(row[:2]) if _has_data(row) else _plain(row) for row in source]
    pairs = bool(rows) and all(isinstance(row, (list, tuple)) and len(row) == 2 for row in rows)
    kinds = {type(cell) for row in rows for cell in row} if pairs else set()
    tuples = not isinstance(source, tuple) and all(
        isinstance(row, tuple) for row in rows
    )  # nested ones may be a matrix
    if tuples and kinds and kinds <= {int, float} and all(cell == cell // 1 for row in rows for cell in row):
        rows, kinds = [tuple(map(int, row)) for row in rows], {int}
    if kinds == {str} and len(rows) == 2 and not tuples and all(cell.isdecimal() for row in rows for cell in row):
        return two_by_two([[int(cell) for cell in row] for row in rows], rows_only=True)
    if kinds == {str} or (kinds == {int} and (len(rows) != 2 or tuples)):
        return _of_pairs(rows)
    if kinds == {int}:
        return two_by_two(rows, rows_only=True)
    if len(rows) == 3 and tuples and any(len(row) == 3 and max(row) > 1 for row in rows):
        raise ValueError(
            "three tuples of three numbers may be links with weights or a matrix; give links as pairs (i, k)."
        )
    return _of_numbers(rows)


def _of_pairs(pairs: Iterable[Any]) -> Pattern:
    links = [(i, k) for i, k in pairs]
    if not links:
        raise ValueError("a list without links does not say how many nodes there are; give a matrix.")
    if isinstance(links[0][0], str):
        return of_edges([Edge(str(number), *link) for number, link in enumerate(links)], "link")
    return numbered(_both(links))


def _of_numbers(rows: Any) -> Pattern:
    return _of_tensor(_numbers(rows))


def _numbers(rows: Any) -> Tensor:
    try:
        return torch.as_tensor(rows)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise ValueError(f"cannot read a graph from a {type(rows).__name__}; expected {_ACCEPTED}.") from None


def _of_matrix(matrix: Tensor, names: Iterable[str] = ()) -> Pattern:
    _require_square(matrix.shape)
    _require_finite(matrix)
    used = (matrix != 0).cpu()
    return linked(list(names), [(k, i) for i, k in used.nonzero().tolist()]) if names else as_pattern(used)


def _tensor(array: Any) -> Tensor:
    """NumPy's numbers, in any memory order, type and byte order."""
    import numpy

    kinds = {"b": numpy.bool_, "i": numpy.int64, "u": numpy.int64, "f": numpy.float64, "c": numpy.complex128}
    array = numpy.asarray(array)
    if array.dtype.kind not in kinds:
        return _numbers(array.tolist())
    if array.dtype.kind == "u":
        array = numpy.minimum(array.astype(numpy.uint64), numpy.uint64(2**62))  # beyond int64: not a node, and not 0
    return torch.from_numpy(numpy.array(array, dtype=kinds[array.dtype.kind], order="C"))


def _plain(row: Any) -> Any:
    """A row with numbers and strings of Python instead of NumPy or torch."""
    if isinstance(row, (list, tuple)):
        cells = [cell.tolist() if hasattr(cell, "tolist") else cell for cell in row]
        return tuple(cells) if isinstance(row, tuple) else cells
    return row.tolist() if hasattr(row, "tolist") else row


def _has_data(row: Any) -> bool:
    """(u, v, {...}), as networkx lists its edges with their data."""
    return isinstance(row, tuple) and len(row) == 3 and isinstance(row[2], Mapping)


def _both(links: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    links = list(links)
    return links + [(k, i) for i, k in links]


def _require_square(shape: Iterable[int]) -> None:
    shape = tuple(shape)
    if len(shape) != 2 or shape[0] != shape[1]:
        raise ValueError(
            f"an adjacency matrix is square, got shape {shape}; links are pairs (i, k), or an array of integers of "
            "shape (m, 2) or (2, m)."
        )
    require_size(shape[0])


def _require_finite(matrix: Tensor) -> None:
    if not matrix.isfinite().all():
        kind = "nan" if matrix.isnan().any() else "inf"
        raise ValueError(f"an adjacency matrix has numbers as entries, got {kind}; write 0 where there is no link.")
