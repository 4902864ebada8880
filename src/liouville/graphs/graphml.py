"""Graphs in GraphML, as written by yEd, Gephi and networkx.

They are read in one pass with the XML parser of the standard library, with memory only for the graph. A file of several
graphs, of graphs within nodes, or with hyperedges is refused, since it has no unique pattern.
"""

from __future__ import annotations

__all__ = ["read"]

from pathlib import Path
from typing import Any, NoReturn
from xml.parsers import expat

from liouville.graphs.pattern import LARGEST, Pattern, linked
from liouville.graphs.tables import Fault

_LABELS = ("label", "name")
_CURE = "; export it as GraphML, or write a text with two nodes a line"
_CURES = {
    "gexf": "; Gephi exports GraphML as well",
    "mxfile": "; draw.io exports no GraphML, so write a text with two nodes a line, or draw it in yEd",
    "mxGraphModel": "; draw.io exports no GraphML, so write a text with two nodes a line, or draw it in yEd",
}


def read(path: Path) -> Pattern:
    """The graph in a GraphML file; nodes are named by their labels if every node has a different one.

    Raises:
        ValueError: if it is not well-formed, not GraphML, or not one graph of declared nodes; the line is named.
        OSError: if it cannot be read.
    """
    reader = _Reader()
    with path.open("rb") as file:
        try:
            reader.parser.ParseFile(file)
            return reader.pattern()
        except Fault as fault:
            where = f"{path}, {fault.place}:" if fault.place else path
            raise ValueError(f"{where} {fault.what}.") from None
        except (expat.ExpatError, LookupError, ValueError) as error:  # an encoding that the parser does not support
            raise ValueError(f"{path} is not a GraphML file: it is not well-formed XML ({error}).") from None


class _Reader:
    """The elements that the parser has read so far."""

    def __init__(self) -> None:
        self.open = list[str]()
        self.directed, self.graphs = False, 0
        self.nodes: dict[str, int] = {}
        self.labels: dict[str, str] = {}
        self.links: dict[tuple[str, str], int] = {}  # (sender, receiver) -> line
        self._once: dict[str, str] = {}
        self._keys, self._node, self._text = set[str](), "", list[str]()
        self._reading = False
        self.parser = expat.ParserCreate(namespace_separator=" ")
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._characters
        self.parser.EntityDeclHandler = self._entity

    def pattern(self) -> Pattern:
        """The graph, after the whole file is read."""
        if not self.nodes:
            self._refuse("has no graph with nodes", line=False)
        for (u, v), line in self.links.items():
            if u not in self.nodes or v not in self.nodes:
                odd = v if u in self.nodes else u
                raise Fault(f"line {line}", f"an edge ends at {odd!r}, which is not a node of the file")
        ids = list(self.nodes)
        labels = [self.labels.get(name, "") for name in ids]
        names = labels if all(labels) and len(set(labels)) == len(labels) else ids
        return linked(names, [(self.nodes[u], self.nodes[v]) for u, v in self.links], order=ids)

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        space, _, name = tag.rpartition(" ")
        if not self.open and name != "graphml":
            self._refuse(f"is XML, but not GraphML: it begins with <{name}>{_CURES.get(name, _CURE)}", line=False)
        if space and "graphdrawing.org" not in space and name != "NodeLabel":
            name = ""
        handler = {"graph": self._graph, "node": self._a_node, "edge": self._edge, "key": self._key}.get(name)
        if name == "hyperedge":
            self._refuse("a hyperedge links more than two nodes; write edges instead")
        if handler:
            handler(attributes)
        label = name == "data" and attributes.get("key") in self._keys
        if self.open and (label or name == "NodeLabel") and "node" in self.open and self._node not in self.labels:
            self._reading, self._text = True, []
        self.open.append(name)

    def _end(self, tag: str) -> None:
        name = self.open.pop()
        if self._reading and name in ("data", "NodeLabel"):
            self._reading = False
            if word := " ".join("".join(self._text).split()):
                self.labels[self._node] = word

    def _characters(self, text: str) -> None:
        if self._reading and self.open[-1] in ("data", "NodeLabel"):
            self._text.append(text)

    def _entity(self, *declaration: Any) -> None:
        self._refuse("declares an entity, which is not read; remove the declaration")

    def _key(self, attributes: dict[str, str]) -> None:
        if attributes.get("attr.name", "").lower() in _LABELS and attributes.get("for", "node") in ("node", "all"):
            self._keys.add(attributes.get("id", ""))

    def _graph(self, attributes: dict[str, str]) -> None:
        if "graph" in self.open:
            self._refuse("a graph lies within a node (a group); ungroup it")
        self.graphs += 1
        if self.graphs > 1:
            self._refuse("a second graph begins; expected one graph in a file")
        self.directed = self._yes(attributes, "edgedefault", "directed", "undirected", default=False)

    def _a_node(self, attributes: dict[str, str]) -> None:
        name = self._of(attributes, "id", "a node")
        if name in self.nodes:
            self._refuse(f"a second node has the id {name!r}")
        if len(self.nodes) >= LARGEST:
            self._refuse(f"a graph has 1 to {LARGEST} nodes, and more follow")
        self._node, self.nodes[name] = name, len(self.nodes)

    def _edge(self, attributes: dict[str, str]) -> None:
        ends = (self._of(attributes, end, "an edge") for end in ("source", "target"))
        u, v = (self._once.setdefault(end, end) for end in ends)  # each name is kept once
        line = self.parser.CurrentLineNumber
        self.links.setdefault((u, v), line)
        if not self._yes(attributes, "directed", "true", "false", default=self.directed):
            self.links.setdefault((v, u), line)

    def _of(self, attributes: dict[str, str], name: str, what: str) -> str:
        if name not in attributes:
            self._refuse(f"{what} has no {name}")
        return attributes[name]

    def _yes(self, attributes: dict[str, str], name: str, yes: str, no: str, *, default: bool) -> bool:
        value = attributes.get(name)
        if value is not None and value not in (yes, no):
            self._refuse(f"{name} is {yes!r} or {no!r}, got {value!r}")
        return default if value is None else value == yes

    def _refuse(self, what: str, *, line: bool = True) -> NoReturn:
        raise Fault(f"line {self.parser.CurrentLineNumber}" if line else "", what)
