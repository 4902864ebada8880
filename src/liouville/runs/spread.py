"""A plan whose network lies on the nodes of a graph: what `liouville agents` trains."""

from __future__ import annotations

__all__ = ["AGENTS", "MODELS", "Spread"]

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, TypedDict

from torch import nn

from liouville.agents.checkpoints import Checkpoints, record_of
from liouville.agents.exchange import ALL_REDUCE, Consensus
from liouville.agents.patterns import PROTOCOLS, Protocol
from liouville.data import Split
from liouville.documents import Count, Name, Rule, conform, read
from liouville.facts import Facts
from liouville.files import atomic
from liouville.flow import Flow
from liouville.graphs import Pattern
from liouville.names import lookup
from liouville.network import Lift, Network
from liouville.operators import Graph
from liouville.randomness import seeded
from liouville.runs.choices import DTYPES
from liouville.runs.plan import Plan
from liouville.task import scores_for
from liouville.train import Settings
from liouville.zoo import h1, h2

AGENTS = "agents.json"  # in a folder of checkpoints: what is trained there

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
        inputs: the feature of y_0 that each input goes to; evenly apart if None.

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

    def __post_init__(self) -> None:
        lookup(dict.fromkeys(PROTOCOLS), self.protocol, "protocol")
        lookup(dict.fromkeys(("gossip", ALL_REDUCE)), self.consensus, "consensus")
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
    ) -> Spread:
        """As the class, for a plan whose features are as many as the nodes have together."""
        features = 2 * Graph(mask, sizes).total
        return cls(replace(plan, features=features), graph, mask, protocol, consensus, sizes, inputs)

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
            ValueError: the data are not vectors with classes, or have more inputs than there are features.
        """
        plan, width = self.plan, facts.shape[0]
        n = 2 * self.operator.total
        if len(facts.shape) != 1 or not facts.classes or width > n:
            raise ValueError(
                f"agents need vectors of at most {n} inputs and classes; {facts.name} has inputs of shape "
                f"{facts.shape} and {facts.classes} classes."
            )
        places = (self.inputs,) if isinstance(self.inputs, int) else self.inputs
        places = places or tuple(k * n // width for k in range(width))
        with seeded(plan.seed):
            flow = MODELS[plan.model](n, plan.layers, plan.T, operator=self.operator, init=plan.init, **plan.options)
            head = nn.Linear(n, scores_for(facts.classes))
        network = Network(Lift(n, width, place=places), flow, head).to(DTYPES[plan.dtype])
        network.facts = facts
        return network

    def checkpoints(self, folder: Path, network: Network, split: Split) -> Checkpoints:
        """Those of this training in a folder; ``network`` is the central one, ``split`` the data as loaded."""
        options = {"batch": self.settings.batch_size, "lr": self.settings.lr, "seed": self.plan.seed}
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
        }

    @classmethod
    def from_dict(cls, value: Any, file: object = None) -> Spread:
        """What `as_dict` wrote; ``file`` is what an error calls it.

        Raises:
            ValueError: it is damaged.
        """
        conform(value, _Written, file=file)
        try:
            graph, mask = _as_pattern(value["graph"]), _as_pattern(value["mask"])
            sizes, inputs = (tuple(v) if isinstance(v := value[name], list) else v for name in ("sizes", "inputs"))
            plan = Plan.from_dict(value["plan"])
            return cls(plan, graph, mask, value["protocol"], value["consensus"], sizes, inputs)
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from error

    @classmethod
    def open(cls, folder: Path) -> Spread:
        """What was trained in a folder.

        Raises:
            FileNotFoundError: it is no folder of `liouville agents`, or one of an earlier version.
            ValueError: its description is damaged.
        """
        file = folder / AGENTS
        if not file.is_file():
            raise FileNotFoundError(
                f"{folder} has no {AGENTS}: give a folder that `liouville agents --out` wrote; one of an earlier "
                "version goes on with the options that it was trained with, and --out."
            )
        return cls.from_dict(read(file), file)

    def write(self, folder: Path) -> None:
        """Let `open` know what is trained in a folder."""
        with atomic(folder / AGENTS) as path:
            path.write_text(json.dumps(self.as_dict()) + "\n")

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
