r"""Communication that fails: lost and late packets, and nodes that drop out, simulated from seeds.

A message is the vector that a node sends to a neighbour in one layer's round: its state, or (owner-computes) a part of
K^T sigma. Where none arrives, the receiver goes on with the newest message of this kind that it has from that sender,
and with 0 before the first. So layer j computes

    y_i' = y_i + h J_i sum_k [what i last heard from k, sent in a layer l <= j],

with its own features always new. `liouville.agents.log_failing_bound` bounds the sensitivities of such a network, for
any failures. The sums of a head that all nodes share are not touched: give nodes heads of their own
(`liouville.NodeHead`), which need none.
"""

from __future__ import annotations

__all__ = ["Failures", "Fates", "Unreliable", "unreliable"]

import functools
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, NamedTuple, TypeVar, cast

import torch
from torch import Tensor

from liouville.agents.exchange import Pair, Route, Simulation, Stamp
from liouville.agents.network import spread
from liouville.backprop import Stored
from liouville.fields import PartitionedField, VectorField
from liouville.fields.base import Theta
from liouville.fields.stochastic import scrambled
from liouville.fields.wrapped import Wrapped
from liouville.flow import Flow
from liouville.network import Network
from liouville.nodes import Consensus, Placement, Protocol, node_of

T = TypeVar("T", Network, Flow)


@dataclass(frozen=True)
class Failures:
    """What goes wrong between nodes. Every message of every sample has its own fate: a batch is independent scenarios.

    Args:
        loss: probability that a message never arrives.
        late: probability that it comes late, by 1 to ``delay`` rounds of its kind, all equally likely. A round of a
            kind is a layer for forward and symplectic Euler, a stage of p or of q for other splitting schemes.
        delay: the longest delay.
        outages: (node, first, last), by number or name: from layer ``first`` to ``last``, both included, the node
            neither computes nor sends nor receives; its features stay as they are.
        seed: of all fates. Run r of the network (the passes are counted) draws from (seed, r).

    Raises:
        ValueError: a probability outside [0, 1], or both together above 1; a delay below 1; an outage that ends before
            it begins; a seed that is no whole number.

    Examples:
        >>> Failures(loss=0.1, late=0.2, outages=[(3, 2, 5)]).delay
        1
    """

    loss: float = 0.0
    late: float = 0.0
    delay: int = 1
    outages: Sequence[tuple[int | str, int, int]] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        numbers = isinstance(self.loss, Real) and isinstance(self.late, Real)
        if not (numbers and 0 <= self.loss <= 1 and 0 <= self.late <= 1 and self.loss + self.late <= 1):
            raise ValueError(
                f"loss and late are probabilities whose sum is at most 1, got {self.loss!r} and {self.late!r}."
            )
        if not isinstance(self.delay, Integral) or self.delay < 1:
            raise ValueError(f"delay must be a whole number of at least 1, got {self.delay!r}.")
        if not isinstance(self.seed, Integral):
            raise ValueError(f"seed must be a whole number, got {self.seed!r}.")
        object.__setattr__(self, "outages", tuple(tuple(outage) for outage in self.outages))
        for outage in self.outages:
            if len(outage) != 3 or not 0 <= outage[1] <= outage[2]:
                raise ValueError(f"an outage is (node, first layer, last layer), first <= last, got {outage!r}.")


class Fates(NamedTuple):
    """How many messages were sent to somebody, how many of them never arrived, and how many came late."""

    sent: int = 0
    lost: int = 0
    late: int = 0


class Unreliable(Simulation):
    """All nodes in this process, with messages that fail; `unreliable` builds a network on it.

    Args:
        graph: who may receive from whom.
        failures: what goes wrong.

    Attributes:
        fates: of all messages since the object was made.
    """

    def __init__(self, graph: Any, failures: Failures) -> None:
        super().__init__(graph)
        self.failures, self.fates = failures, Fates()
        self._outages = [(node_of(self.graph, node), first, last) for node, first, last in failures.outages]
        self._run = -1
        self._ticks: dict[tuple[int, Pair], int] = defaultdict(int)
        self._boxes: dict[tuple[int, Pair], _Box] = {}

    def begin(self) -> None:
        """A new run: nobody has heard anything."""
        self._run += 1
        self._ticks.clear()
        self._boxes.clear()

    def restart(self) -> None:
        """Begin again with run 0, so that the same failures come again."""
        self._run = -1

    def down(self, layer: int) -> list[int]:
        """The nodes that do nothing in this layer."""
        return [node for node, first, last in self._outages if first <= layer <= last]

    def swap(self, stamp: Stamp, route: Route, parts: Mapping[Pair, Tensor], like: Tensor) -> dict[Pair, Tensor]:
        """One round, with its failures; a head's sums arrive."""
        if stamp.phase == "backward":
            raise NotImplementedError(
                "a network whose messages fail is run, not trained: its gradient would need messages back along paths "
                "that failed. Train the network itself, and run it with failures under torch.no_grad()."
            )
        arrived = super().swap(stamp, route, parts, like)
        if stamp.layer < 0:
            return arrived
        down = self.down(stamp.layer)
        return {pair: self._heard(stamp, pair, part, bool({*pair} & {*down})) for pair, part in arrived.items()}

    def _heard(self, stamp: Stamp, pair: Pair, part: Tensor, cut: bool) -> Tensor:
        """The newest message of this kind from this sender, for each sample."""
        kind = (stamp.round, pair)
        tick, self._ticks[kind] = self._ticks[kind], self._ticks[kind] + 1
        delay = self._delays(kind, tick, len(part), cut).to(part.device)
        box = self._boxes.setdefault(kind, _Box(part))
        box.post(tick, torch.where(delay < 0, _NEVER, tick + delay), part)
        counts = (len(delay), int((delay < 0).sum()), int((delay > 0).sum()))
        self.fates = Fates(*(a + b for a, b in zip(self.fates, counts, strict=True)))
        return box.newest(tick)

    def _delays(self, kind: tuple[int, Pair], tick: int, samples: int, cut: bool) -> Tensor:
        """How late the message of each sample is; -1 if it never arrives."""
        own = self.failures
        if cut:
            return torch.full((samples,), -1)
        round, (receiver, sender) = kind
        place = functools.reduce(lambda x, y: scrambled(x ^ y), (own.seed, self._run, round, receiver, sender, tick))
        u, v = torch.rand(samples, 2, generator=torch.Generator().manual_seed(place), dtype=torch.float64).unbind(1)
        late = 1 + (v * own.delay).long().clamp(max=own.delay - 1)
        return torch.where(u < own.loss, -1, torch.where(u < own.loss + own.late, late, 0))


_NEVER = 2**31


class _Box:
    """What one node has of another: the newest message of each sample, and the ones on their way."""

    def __init__(self, like: Tensor) -> None:
        self.held = torch.zeros_like(like)
        self.since = torch.full((len(like), 1), -1, device=like.device)
        self.coming: list[tuple[int, Tensor, Tensor]] = []

    def post(self, tick: int, arrival: Tensor, part: Tensor) -> None:
        self.coming.append((tick, arrival[:, None], part))

    def newest(self, tick: int) -> Tensor:
        waiting = []
        for sent, arrival, part in self.coming:
            here = (arrival <= tick) & (sent > self.since)
            self.held = torch.where(here, part, self.held)
            self.since = torch.where(here, sent, self.since)
            if bool(((arrival > tick) & (arrival < _NEVER)).any()):
                waiting.append((sent, arrival, part))
        self.coming = waiting
        return self.held


class _Failing(Wrapped):
    """A local field whose run begins with empty boxes, and in which nodes that are down do not move."""

    def __init__(self, field: VectorField, exchange: Unreliable) -> None:
        super().__init__(field)
        self.exchange = exchange

    @property
    def is_plain(self) -> bool:
        """False: it is no function of the state."""
        return False

    def in_run(self, seed: int | None = None) -> VectorField:
        """A new run."""
        self.exchange.begin()
        return self

    def at_layer(self, j: int) -> VectorField:
        """This layer, with the nodes that are down."""
        return _AtLayer(self.field, self.field.at_layer(j), self.exchange.down(j))  # type: ignore[return-value]


class _FailingHalves(_Failing, PartitionedField):
    """The same around a field of two halves."""


class _AtLayer:
    """A local field at a layer, without the nodes that are down."""

    def __init__(self, field: Any, here: Any, down: list[int]) -> None:
        self._here, self._updates, self._down = here, field.updates, down

    def __getattr__(self, name: str) -> Any:
        return getattr(self._here, name)

    def __call__(self, y: Tensor, theta_j: Theta) -> Tensor:
        return self._moved("K", self._here, y, theta_j)

    def p_dot(self, q: Tensor, theta_j: Theta) -> Tensor:
        return self._moved("K_p", self._here.p_dot, q, theta_j)

    def q_dot(self, p: Tensor, theta_j: Theta) -> Tensor:
        return self._moved("K_q", self._here.q_dot, p, theta_j)

    def _moved(self, half: str, velocity: Callable[[Tensor, Theta], Tensor], x: Tensor, theta_j: Theta) -> Tensor:
        v = velocity(x, theta_j)
        for node in self._down:
            v = v.index_fill(1, self._updates[half].own[node].to(v.device), 0.0)
        return v


def unreliable(
    network: T,
    failures: Failures,
    graph: Any = None,
    protocol: Protocol | None = None,
    consensus: Consensus | None = None,
) -> T:
    """The network at the nodes of a graph, all in this process, with messages that fail. Weights are copied.

    Without failures it computes what `spread` computes on a `Simulation`, bit for bit. Every run of it draws new
    failures: the steps of a closed loop are independent. It cannot be trained (the backward pass raises an error).

    Args:
        network: as for `spread`, a network or a flow.
        failures: what goes wrong.
        graph: who may receive from whom; the graph that the network is placed on if None.
        protocol, consensus: as for `spread`.

    Returns:
        A `Network` (or `Flow`), whose ``body.field.exchange`` is the `Unreliable`, with its ``fates``.

    Raises:
        ValueError: as for `spread`; or an outage of a node that the graph has not.

    Examples:
        >>> import liouville as lv
        >>> ring = lv.Graph([(0, 1), (1, 2), (2, 3), (3, 0)])
        >>> flow = lv.zoo.h2(8, 4, 1.0, operator=ring)
        >>> network = lv.Network(torch.nn.Identity(), flow, lv.NodeHead(ring, 8))
        >>> failing = unreliable(network, Failures(loss=0.2, seed=1), ring.links)
        >>> with torch.no_grad():
        ...     failing(torch.randn(5, 8)).shape
        torch.Size([5, 4])
        >>> failing.body.field.exchange.fates.sent
        640
    """
    if graph is None:
        known: Placement | None = getattr(network, "placement", None)
        if known is None:
            raise ValueError("this network does not say who talks to whom: give the graph.")
        graph = known.graph
    exchange = Unreliable(graph, failures)
    local: Any = spread(network, exchange, protocol, consensus)
    flow = local if isinstance(local, Flow) else cast(Flow, local.body)
    kind = _FailingHalves if isinstance(flow.field, PartitionedField) else _Failing
    failing = Flow(kind(flow.field, exchange), flow.scheme, flow.T, Stored())
    if isinstance(network, Flow):
        return failing.train(network.training)
    return Network(local.lift, failing, local.head).train(network.training)
