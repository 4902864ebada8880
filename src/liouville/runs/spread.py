"""A plan whose network lies on the nodes of a graph: what `liouville agents` trains."""

from __future__ import annotations

__all__ = ["MODELS", "Spread", "sizes_for"]

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, NotRequired, TypedDict

from torch import nn

from liouville.agents.checkpoints import Checkpoints, record_of
from liouville.data import Split
from liouville.documents import Count, Name, Rule, conform, read
from liouville.facts import Facts
from liouville.flow import Flow
from liouville.graphs import Pattern
from liouville.names import lookup
from liouville.network import Lift, Network
from liouville.nodes import Consensus, NodeHead, Placement, Protocol
from liouville.operators import Graph
from liouville.randomness import seeded
from liouville.runs.choices import DTYPES
from liouville.runs.files import AGENTS, CONFIG
from liouville.runs.plan import Plan
from liouville.task import scores_for
from liouville.train import Settings
from liouville.version import __version__
from liouville.zoo import h1, h2

MODELS: dict[str, Callable[..., Flow]] = {"h1": h1, "h2": h2}
"""The models that agents run: one constant J, or X, that couples no two nodes."""


@dataclass(frozen=True)
class Spread:
    """A plan, and where each part of its network lives.

    Args:
        plan: data, model, layers, T, settings, float32 or float64, seed; its ``features`` are 2 for each of the sizes.
        graph: who may receive from whom.
        mask: the graph of the blocks of K.
        protocol, consensus: as for `liouville.agents.spread`.
        sizes: features of p, and of q, at each node; one number, or one each.
        inputs: the feature of y_0 that each input goes to; evenly apart if None, or, with ``columns``, to the features
            of its node, p first.
        columns: of a table of one's own, the node of each column: inputs, and targets that belong to nodes.

    Raises:
        ValueError: an unknown name, a model, dtype or optimizer that agents do not run, or sizes that do not fit.

    Examples:
        >>> from liouville.graphs import adjacency
        >>> ring = adjacency([(0, 1), (1, 2), (2, 3), (3, 0)])
        >>> asked = Spread.of(Plan(data_options={"points": 80}, layers=2, T=1.0), ring, ring)
        >>> asked.network(asked.load().facts()).lift.place
        (0, 4)
    """

    plan: Plan
    graph: Pattern
    mask: Pattern
    protocol: Protocol = "owner-computes"
    consensus: Consensus = "gossip"
    sizes: int | tuple[int, ...] = 1
    inputs: int | tuple[int, ...] | None = None
    columns: Mapping[str, int] | None = None

    def __post_init__(self) -> None:
        Placement(self.graph, self.protocol, self.consensus)
        lookup(MODELS, self.plan.model, "model")
        lookup(dict.fromkeys(("float32", "float64")), self.plan.dtype, "dtype")
        if not isinstance(self.plan.settings, Settings):
            raise ValueError(f"agents train with Adam, got the optimizer {self.plan.settings.optimizer!r}.")
        if self.plan.features != 2 * self.operator.total:
            raise ValueError(f"features must be 2 for each of the sizes {self.sizes}, got {self.plan.features}.")

    @classmethod
    def of(
        cls,
        plan: Plan,
        graph: Pattern,
        mask: Pattern,
        protocol: Protocol = "owner-computes",
        consensus: Consensus = "gossip",
        sizes: int | tuple[int, ...] = 1,
        inputs: int | tuple[int, ...] | None = None,
        columns: Mapping[str, int] | None = None,
    ) -> Spread:
        """As the class, for a plan whose features are as many as the nodes have together."""
        features = 2 * Graph(mask, sizes).total
        return cls(replace(plan, features=features), graph, mask, protocol, consensus, sizes, inputs, columns)

    @functools.cached_property
    def operator(self) -> Graph:
        """K's mask, and who owns which feature."""
        return Graph(self.mask, self.sizes)

    @property
    def settings(self) -> Settings:
        """How the plan trains."""
        settings = self.plan.fit_settings()
        assert isinstance(settings, Settings)
        return settings

    def load(self) -> Split:
        """The data in float32, whatever the plan's type: checkpoints of float64 runs know them by these bits."""
        return replace(self.plan, dtype="float32").load()

    def network(self, facts: Facts) -> Network:
        """The central network with its initial weights, which is then spread; the same in every process.

        Raises:
            ValueError: the data are not vectors, or have more inputs than there are features, at a node or at all.
        """
        plan, n = self.plan, 2 * self.operator.total
        if len(facts.shape) != 1 or (self.columns is None and facts.shape[0] > n):
            raise ValueError(
                f"agents need vectors of at most {n} inputs; {facts.name} has inputs of shape {facts.shape}. More "
                "features per node, --sizes, have room for more."
            )
        outputs = scores_for(facts.classes) if facts.classes else facts.outputs
        owners = self._owners_of(facts, outputs)
        with seeded(plan.seed):
            flow = MODELS[plan.model](n, plan.layers, plan.T, operator=self.operator, init=plan.init, **plan.options)
            head = nn.Linear(n, outputs) if owners is None else NodeHead(self.operator, n, owners)
        lift = Lift(n, facts.shape[0], place=self._places(facts))
        network = Network(lift, flow, head).to(DTYPES[plan.dtype])
        network.facts, network.placement = facts, Placement(self.graph, self.protocol, self.consensus)
        return network

    def _places(self, facts: Facts) -> tuple[int, ...]:
        """The feature of y_0 for each input."""
        n, width = 2 * self.operator.total, facts.shape[0]
        if self.inputs is not None:
            return (self.inputs,) if isinstance(self.inputs, int) else self.inputs
        if self.columns is None:
            return tuple(k * n // width for k in range(width))
        owners = self.operator.owners(n)
        own = [(owners == node).nonzero().flatten().tolist() for node in range(self.operator.nodes)]  # p first
        nodes = list(_inputs_of(facts, self.columns))
        for node, features in enumerate(own):
            if nodes.count(node) > len(features):
                raise ValueError(
                    f"{self.graph.label(node)} has {nodes.count(node)} inputs and {len(features)} features; give it "
                    f"more, --sizes {-(-nodes.count(node) // 2)} or above."
                )
        return tuple(own[node].pop(0) for node in nodes)

    def _owners_of(self, facts: Facts, outputs: int) -> list[int] | None:
        """The node of each output; None where all nodes share them."""
        targets = facts.targets or (facts.target,)
        if self.columns is None or not all(name in self.columns for name in targets):
            return None
        owners = [self.columns[name] for name in targets if name is not None]
        if isinstance(facts.classes, tuple):
            scores = map(scores_for, facts.classes)
            return [node for node, count in zip(owners, scores, strict=True) for _ in range(count)]
        return owners * outputs if facts.classes else owners

    def checkpoints(self, folder: Path, network: Network, split: Split) -> Checkpoints:
        """Those of this training in a folder; ``network`` is the central one, ``split`` the data as loaded."""
        options: dict[str, Any] = {"batch": self.settings.batch_size, "lr": self.settings.lr, "seed": self.plan.seed}
        if isinstance(network.head, NodeHead):
            options["target"] = f"at nodes {','.join(map(str, network.head.outputs))}"
        record = record_of(network, self.graph, split, self.protocol, self.consensus, **options)
        return Checkpoints(folder, record, self.settings.epochs)

    def as_dict(self) -> dict[str, Any]:
        """A JSON value that `from_dict` turns into an equal one."""
        return {
            "plan": self.plan.as_dict(),
            "graph": _as_links(self.graph),
            "mask": _as_links(self.mask),
            "protocol": self.protocol,
            "consensus": self.consensus,
            "sizes": self.sizes,
            "inputs": self.inputs,
            "columns": None if self.columns is None else dict(self.columns),
        }

    @classmethod
    def from_dict(cls, value: Any, file: object = None, version: str = __version__) -> Spread:
        """What `as_dict` wrote; ``file`` is what an error calls it, ``version`` that of liouville that wrote it.

        Raises:
            ValueError: it is damaged.
        """
        conform(value, _Written, file=file)
        try:
            graph, mask = _as_pattern(value["graph"]), _as_pattern(value["mask"])
            sizes, inputs = (tuple(v) if isinstance(v := value[name], list) else v for name in ("sizes", "inputs"))
            plan, columns = Plan.from_dict(value["plan"], version), value.get("columns")
            if columns is not None and not all(node < len(graph) for node in columns.values()):
                raise ValueError(f"a column of node {max(columns.values())}, and there are {len(graph)} nodes.")
            return cls(plan, graph, mask, value["protocol"], value["consensus"], sizes, inputs, columns)
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from error

    @classmethod
    def of_config(cls, config: Mapping[str, Any], file: object, version: str = __version__) -> Spread:
        """What the ``config.json`` of a run of agents says; the arguments are those of `from_dict`.

        Raises:
            ValueError: it is damaged.
        """
        conform(config["agents"], dict[str, Any], "agents", file)
        return cls.from_dict({**config["agents"], "plan": config["plan"]}, file, version)

    @classmethod
    def open(cls, folder: Path) -> Spread:
        """What is trained in a folder.

        Raises:
            FileNotFoundError: it is no folder of `liouville agents`, or one of an earlier version.
            ValueError: its description is damaged.
        """
        if (file := folder / CONFIG).is_file():
            config = read(file)
            conform(config, dict[str, Any], file=file)
            if "agents" not in config or "plan" not in config:
                raise FileNotFoundError(
                    f"{folder} is a run of one network without a graph; `liouville train --resume {folder}` goes on."
                )
            return cls.of_config(config, file)
        if (file := folder / AGENTS).is_file():
            return cls.from_dict(read(file), file)
        raise FileNotFoundError(
            f"{folder} has no {CONFIG}: give a folder that `liouville agents --out` wrote; one of an earlier "
            "version goes on with the options that it was trained with, and --out."
        )

    def in_words(self) -> str:
        """What processes that exchange messages must have been told alike."""
        plan = self.plan
        how = (self.protocol, self.consensus, plan.model, self.sizes, plan.layers, self.settings.batch_size)
        return " ".join(map(str, how))


class _Links(TypedDict):
    """A pattern: the links (receiver, sender) that there are."""

    nodes: Annotated[int, Rule("a number of nodes, 1 to 4096", lambda n: 1 <= n <= 4096)]
    names: list[Name]
    links: list[tuple[Count, Count]]


class _Written(TypedDict):
    plan: dict[str, Any]
    graph: _Links
    mask: _Links
    protocol: Name
    consensus: Name
    sizes: int | list[int]
    inputs: int | list[int] | None
    columns: NotRequired[dict[str, Count] | None]


def sizes_for(facts: Facts, columns: Mapping[str, int], nodes: int, least: int = 2) -> tuple[int, ...]:
    """Features of p at each node, that its inputs fit in, and ``least`` at least."""
    counts = [0] * nodes
    for node in _inputs_of(facts, columns):
        counts[node] += 1
    return tuple(max(least, count) for count in counts)


def _inputs_of(facts: Facts, columns: Mapping[str, int]) -> Iterator[int]:
    """The node of each input of a table."""
    assert facts.preprocessing is not None
    for column in facts.preprocessing.columns:
        for _ in column.features():
            yield columns[column.name]


def _as_links(pattern: Pattern) -> dict[str, Any]:
    links = [(i, k) for i, row in enumerate(pattern) for k, there in enumerate(row) if there]
    return {"nodes": len(pattern), "names": list(pattern.names), "links": links}


def _as_pattern(value: _Links) -> Pattern:
    n = value["nodes"]
    rows = [[False] * n for _ in range(n)]
    for i, k in value["links"]:
        if max(i, k) >= n:
            raise ValueError(f"a link of node {max(i, k)}, and there are {n} nodes.")
        rows[i][k] = True
    if value["names"] and len(value["names"]) != n:
        raise ValueError(f"{len(value['names'])} names for {n} nodes.")
    return Pattern(rows, value["names"])
