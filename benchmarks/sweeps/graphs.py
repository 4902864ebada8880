"""Random graphs in random forms, as files and as Python objects, some with a defect: what does the library read?

    python benchmarks/sweeps/graphs.py --count 500

The oracle is the links that the generator drew. A graph without a defect must be read as drawn, by name; one with a
defect, or one that may be two things, must be refused in one sentence.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from xml.sax.saxutils import escape, quoteattr

import networkx
import numpy
import pandas
import scipy.sparse
import torch
from sweep import Outcome, run

from liouville.graphs import adjacency

Links = set[tuple[str, str]]  # (sender, receiver), by name


class Drawn(NamedTuple):
    """A graph: its nodes in order, and who sends to whom."""

    nodes: list[str]
    links: Links

    @property
    def symmetric(self) -> bool:
        return all((v, u) in self.links for u, v in self.links)

    @property
    def numbered(self) -> bool:
        return self.nodes == [str(i) for i in range(len(self.nodes))]

    def matrix(self) -> numpy.ndarray:
        return numpy.array([[(k, i) in self.links for k in self.nodes] for i in self.nodes], dtype=float)


def draw(r: random.Random, *, symmetric: bool | None = None, connected: bool = False) -> Drawn:
    size = r.randint(3, 9)
    kinds: list[Callable[[], list[str]]] = [
        lambda: [str(i) for i in range(size)],
        lambda: [str(i) for i in range(size)],
        lambda: [str(i) for i in range(1, size + 1)],
        lambda: [f"n{i}" for i in range(size)],
        lambda: r.sample(["Zürich", "pump", "tank", "valve", "東京", "a_b", "x-1", "K9", "hub", "Q"], size),
    ]
    nodes = r.choice(kinds)()
    pairs = [(u, v) for a, u in enumerate(nodes) for v in nodes[:a]]
    links = {pair for pair in pairs if r.random() < 0.4}
    if connected:  # every node appears in a link
        links |= {(nodes[i], nodes[i - 1]) for i in range(1, size)}
    two_way = r.random() < 0.6 if symmetric is None else symmetric
    if two_way:
        links |= {(v, u) for u, v in links}
    else:
        links = {(v, u) if r.random() < 0.5 else (u, v) for u, v in links}
        links |= {(v, u) for u, v in links if r.random() < 0.2}
    return Drawn(nodes, links)


def read_as(pattern: Any, fallback: list[str]) -> tuple[set[str], Links]:
    """Names and links of what was read."""
    names = list(getattr(pattern, "names", ())) or [str(i) for i in range(len(pattern))]
    if len(names) != len(set(names)):
        names = fallback
    found = {(names[k], names[i]) for i, row in enumerate(pattern) for k, link in enumerate(row) if link and i != k}
    return set(names), found


# --- files


def edges_of(r: random.Random, graph: Drawn) -> list[tuple[str, str]]:
    """Each pair once or twice, in any order."""
    one_each = sorted({tuple(sorted(link)) for link in graph.links})
    edges = [(u, v) if r.random() < 0.5 else (v, u) for u, v in one_each]
    edges += [(v, u) for u, v in edges if r.random() < 0.2]
    r.shuffle(edges)
    return edges


def table_of_links(r: random.Random, folder: Path) -> tuple[Drawn, Path, str]:
    graph = draw(r, symmetric=True, connected=True)
    separator = r.choice([" ", ",", ";", "\t", ", ", "  "])
    extra = r.choice(["", "", "weight", "dict", "gephi"])
    header = {"": ["source", "target"], "dict": [], "weight": ["from", "to", "weight"]}.get(
        extra, ["Source", "Target", "Type", "Weight"]
    )
    rows = []
    for u, v in edges_of(r, graph):
        tail = {"weight": [f"{r.uniform(0.1, 9):.3f}"], "gephi": ["Undirected", "1.0"]}.get(extra, [])
        line = separator.join([u, v, *tail])
        rows.append(line + (" " + r.choice(["{}", "{'weight': 1.5}"]) if extra == "dict" and separator == " " else ""))
    # three lines of weights may be a matrix, two lines as well: a header says what they are
    if extra == "gephi" or (extra != "dict" and (r.random() < 0.4 or len(rows) < 4)):
        rows.insert(0, separator.join(header))
    return graph, write(r, folder, rows, r.choice([".txt", ".csv", ".edges", ""])), f"links, {extra or 'plain'}"


def table_of_entries(r: random.Random, folder: Path) -> tuple[Drawn, Path, str]:
    graph = draw(r)
    separator = r.choice([",", ";", "\t", " "])
    form = r.choice(["{:.0f}", "{:.2f}", "{:.18e}", "weights"])
    named = r.choice(["both", "columns", "rows", "none"])
    if not graph.numbered and named == "none":
        graph = Drawn(
            [str(i) for i in range(len(graph.nodes))],
            {(str(graph.nodes.index(u)), str(graph.nodes.index(v))) for u, v in graph.links},
        )
    if named == "rows" and graph.nodes[0] in "01":
        named = "both"
    small = len(graph.nodes) == 3
    if small and named != "both":
        form = "{:.0f}"
    entry = (lambda x: f"{x * r.uniform(-2, 2) or x:.3f}") if form == "weights" else form.format
    lines = [[entry(float(x)) for x in row] for row in graph.matrix()]
    if named in ("both", "rows"):
        lines = [[name, *line] for name, line in zip(graph.nodes, lines, strict=True)]
    if named in ("both", "columns"):
        corner = ["" if separator != " " else "node"] if named == "both" else []
        lines.insert(0, corner + graph.nodes)
    rows = [separator.join(line) for line in lines]
    return graph, write(r, folder, rows, r.choice([".txt", ".csv", ".tsv"])), f"matrix, names: {named}, {form}"


def write(r: random.Random, folder: Path, rows: list[str], suffix: str) -> Path:
    """Lines with comments, blank lines, a line end and an encoding."""
    if r.random() < 0.3:
        rows = [r.choice(["# a comment", "% a comment", "#"]), *rows]
    if r.random() < 0.2:
        rows.insert(r.randint(0, len(rows)), "")
    end = r.choice(["\n", "\n", "\r\n", "\r"])
    text = end.join(rows) + (end if r.random() < 0.8 else "")
    path = folder / f"graph{suffix}"
    path.write_bytes(text.encode(r.choice(["utf-8", "utf-8", "utf-8-sig", "utf-16"])))
    return path


def graphml(r: random.Random, folder: Path) -> tuple[Drawn, Path, str]:
    graph = draw(r)
    default = r.choice(["directed", "undirected"])
    both = {tuple(sorted((u, v))) for u, v in graph.links if (v, u) in graph.links}
    edges = [(u, v, True) for u, v in graph.links if tuple(sorted((u, v))) not in both]
    for u, v in both:
        edges += [(u, v, True), (v, u, True)] if r.random() < 0.3 else [(u, v, False)]
    r.shuffle(edges)
    labelled = r.choice(["", "key", "yed"])
    ids = {name: (f"n{at}" if labelled else name) for at, name in enumerate(graph.nodes)}
    out = ['<?xml version="1.0" encoding="UTF-8"?>', '<graphml xmlns="http://graphml.graphdrawing.org/xmlns"']
    out[-1] += ' xmlns:y="http://www.yworks.com/xml/graphml">'
    out += ['<key id="d0" for="node" attr.name="label" attr.type="string"/>', f'<graph edgedefault="{default}">']
    for name in graph.nodes:
        label = {
            "": "",
            "key": f'<data key="d0">{escape(name)}</data>',
            "yed": f'<data key="d6"><y:ShapeNode><y:NodeLabel x="1">{escape(name)}</y:NodeLabel></y:ShapeNode></data>',
        }[labelled]
        out.append(f"<node id={quoteattr(ids[name])}>{label}</node>")
    for u, v, directed in edges:
        way = "" if directed == (default == "directed") else f' directed="{str(directed).lower()}"'
        out.append(f"<edge source={quoteattr(ids[u])} target={quoteattr(ids[v])}{way}/>")
    path = folder / "graph.graphml"
    path.write_text("\n".join([*out, "</graph></graphml>"]), encoding="utf-8")
    return graph, path, f"GraphML, {default}, labels: {labelled or 'none'}"


# --- Python objects


def from_networkx(r: random.Random, folder: Path) -> tuple[Drawn, Any, str]:
    graph = draw(r)
    kind = r.choice([networkx.Graph, networkx.MultiGraph] if graph.symmetric else [networkx.DiGraph])
    name: Callable[[str], Any] = int if graph.nodes[1].isdigit() and r.random() < 0.5 else str
    made = kind()
    made.add_nodes_from(name(node) for node in graph.nodes)
    made.add_edges_from((name(u), name(v)) for u, v in sorted(graph.links))
    if r.random() < 0.3:
        path = folder / "graph.graphml"
        networkx.write_graphml(made, path)
        return graph, path, f"{kind.__name__} written by networkx"
    return graph, made, kind.__name__


def from_matrix(r: random.Random, folder: Path) -> tuple[Drawn, Any, str]:
    graph = draw(r)
    A = graph.matrix()
    forms: dict[str, Callable[[], Any]] = {
        "list": lambda: A.astype(int).tolist(),
        "bool list": lambda: (A > 0).tolist(),
        "NumPy": lambda: A.astype(r.choice(["f4", "f8", ">f8", "i4", "u1", "?", "f2", "c16"])),
        "Fortran order": lambda: numpy.asfortranarray(A)[:, ::-1][:, ::-1],
        "torch": lambda: torch.tensor(A).to(r.choice([torch.float32, torch.int64, torch.bool, torch.bfloat16])),
        "weights": lambda: torch.tensor(A * numpy.random.default_rng(r.randint(0, 99)).uniform(-3, 3, A.shape)),
        "COO": lambda: torch.tensor(A).to_sparse(),
        "CSR": lambda: torch.tensor(A).to_sparse_csr(),
        "SciPy": lambda: r.choice([scipy.sparse.csr_matrix, scipy.sparse.coo_array, scipy.sparse.lil_matrix])(A),
        "DataFrame": lambda: pandas.DataFrame(A, index=graph.nodes, columns=graph.nodes),
    }
    form = r.choice(list(forms))
    if form != "DataFrame":
        graph = Drawn([str(i) for i in range(len(A))], {(str(k), str(i)) for i, k in zip(*A.nonzero(), strict=True)})
    return graph, forms[form](), f"matrix as {form}"


def from_links(r: random.Random, folder: Path) -> tuple[Drawn, Any, str]:
    graph = draw(r, symmetric=True, connected=True)
    edges = edges_of(r, graph)
    frame = pandas.DataFrame(edges, columns=list(r.choice([("source", "target"), ("from", "to"), ("u", "v")])))
    if not graph.nodes[1].isdigit():
        forms: list[Any] = [edges, set(edges), [list(edge) for edge in edges], frame, iter(edges)]
        return graph, r.choice(forms), "links by name"
    links = [(int(u), int(v)) for u, v in edges]
    array = numpy.array(links)
    forms = [
        links,
        set(links),
        [list(link) for link in links] if len(links) != 2 else links,
        [(numpy.int64(u), numpy.int32(v)) for u, v in links],
        [(torch.tensor(u), v) for u, v in links],
        array if len(links) != 2 else links,
        torch.tensor(links).mT.contiguous() if len(links) != 2 else links,
        frame.astype(int),
        iter(links),
    ]
    at = r.randrange(len(forms))
    return graph, forms[at], f"links by number, form {at}"


# --- defects


def defect(r: random.Random, folder: Path) -> tuple[None, Any, str]:
    """Something that no reading makes a graph of, or that has two readings."""
    size = r.randint(4, 8)
    lines = [f"{i} {i + 1}" for i in range(size)]
    at = r.randint(1, size - 1)
    bad = {
        "a line of one": str(at),
        "a line of three": f"{at} {at} 1",
        "a word among numbers": f"{at} x{at}",
        "a negative number": f"-{at} {at}",
        "a fraction": f"{at}.5 {at}",
        "a far number": f"{at} 1000000",
        "an underscore": f"{at} 1_0",
        "another script": f"{at} ٣",
        "an open quote": f'{at} "{at}',
    }
    whole: dict[str, bytes] = {
        "empty": b"",
        "comments only": b"# nothing\n%\n",
        "binary": bytes(r.randrange(256) for _ in range(50)) + b"\0\0\xff",
        "gzip": b"\x1f\x8b\x08\0\0\0\0\0",
        "a picture": b"\x89PNG\r\n\x1a\n\0\0\0",
        "JSON": b'{"nodes": [], "links": []}',
        "DOT": b"graph {\n a -- b;\n}\n",
        "GML": b"graph [\n  node [\n    id 0\n  ]\n]\n",
        "Pajek": b"*Vertices 3\n1\n2\n3\n*Edges\n1 2\n",
        "XML": b"<svg></svg>",
        "cut GraphML": b'<graphml><graph edgedefault="undirected"><node id="a"/>',
        "Latin-1": "Z\xfcrich Bern\nBern Genf\n".encode("latin-1"),
        "two links or a matrix": r.choice([b"1 1\n1 1\n", b"0,1\n0,1\n", b"0 2\n2 0\n"]),
        "two graphs": b'<graphml><graph edgedefault="directed"><node id="a"/></graph><graph/></graphml>',
        "an undefined node": b'<graphml><graph><node id="a"/><edge source="a" target="b"/></graph></graphml>',
        "tuples": b"(0, 1)\n(1, 2)\n",
        "numbered links": b",0,1\n0,0,1\n1,1,2\n",
        "an oblong": b"0,1,0,1\n1,0,1,0\n",
        "decimal commas": b"a;b;c\n0;0,5;1\n1;0;0,5\n0;1;0\n",
    }
    objects: dict[str, Any] = {
        "NaN": numpy.array([[0, numpy.nan], [1, 0]]),
        "infinity": torch.full((3, 3), float("inf")),
        "oblong": torch.ones(r.randint(3, 5), 7),
        "fractions as links": torch.rand(5, 2),
        "None": None,
        "a dict": {0: [1], 1: [0]},
        "no nodes": networkx.Graph(),
        "too many nodes": scipy.sparse.csr_matrix((5000, 5000)),
        "no links": torch.zeros(2, 0, dtype=torch.long),
        "rows or columns": numpy.array([[0, 1], [2, 3]]),
        "two links of fractions": numpy.array([[0.0, 1.0], [1.0, 2.0]]),
        "quantized": torch.quantize_per_tensor(torch.eye(3), 1, 0, torch.qint8),
        "a matrix or links": [[1, 1], [1, 1]],
        "ragged": [[0, 1, 1], [1, 0]],
        "two names": pandas.DataFrame(numpy.eye(2), index=list("ab"), columns=list("ba")),
        "words": "no such file",
        "a folder": folder,
    }
    kind = r.choice(["line", "file", "object"])
    table: dict[str, Any] = {"line": bad, "file": whole, "object": objects}[kind]
    name = r.choice(list(table))
    if kind == "object":
        return None, table[name], f"defect: {name}"
    path = folder / (
        "graph.graphml" if name in ("cut GraphML", "two graphs", "an undefined node", "XML") else "graph.txt"
    )
    path.write_bytes(table[name] if kind == "file" else "\n".join([*lines[:at], table[name], *lines[at:]]).encode())
    return None, path, f"defect: {name}"


FORMS = [table_of_links, table_of_entries, graphml, from_networkx, from_matrix, from_links, defect]


def case(r: random.Random) -> Outcome:
    """One graph in one form."""
    with tempfile.TemporaryDirectory() as folder:
        form = r.choice(FORMS)
        graph, source, words = form(r, Path(folder))
        if isinstance(source, Path) and source.is_file():
            words += f" {source.read_bytes()[:300]!r}"
        try:
            pattern = adjacency(source)
        except (ValueError, OSError) as error:
            sentence = str(error)
            one = "\n" not in sentence.strip() and 10 < len(sentence) < 400
            if graph is None and one:
                return Outcome("refused", words)
            return Outcome("wrong" if one else "defect", f"{words}: refused: {sentence}")
        if graph is None:
            return Outcome("wrong", f"{words}: read as {len(pattern)} nodes")
        names, links = read_as(pattern, graph.nodes)
        right = names == set(graph.nodes) and links == graph.links
        return Outcome("right" if right else "wrong", f"{words}: drawn {graph}, read {sorted(names)} {sorted(links)}")


if __name__ == "__main__":
    raise SystemExit(run("graphs", case, 500))
