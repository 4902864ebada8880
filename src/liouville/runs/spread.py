"""A plan whose network lies on the nodes of a graph: what `liouville agents` trains."""

from __future__ import annotations

__all__ = ["MODELS", "Spread"]

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from liouville.agents.checkpoints import Checkpoints, record_of
from liouville.agents.exchange import ALL_REDUCE, Consensus
from liouville.agents.patterns import PROTOCOLS, Protocol
from liouville.data import Split
from liouville.facts import Facts
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

    def in_words(self) -> str:
        """What processes that exchange messages must have been told alike."""
        plan = self.plan
        how = (self.protocol, self.consensus, plan.model, self.sizes, plan.layers, self.settings.batch_size)
        return " ".join(map(str, how))
