r"""Messages between processes by torch.distributed, and what happens when a node dies, stalls or sends nonsense.

A round is two batches of point-to-point calls: a header of fixed size from every peer, which says what follows, then
the payloads. A header that announces something else than is expected is a fault, found before its payload is read.
Whoever finds a fault writes one sentence into the rendezvous store, the first one wins, and everybody stops with that
sentence. A node that stalls is told from those that merely wait for it by asking who waits: every process that times
out says so in the store, and who has said nothing after a grace is the one.
"""

from __future__ import annotations

__all__ = ["AgentFault", "Distributed", "hosts_of"]

import hashlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import Any, NoReturn, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from liouville.agents.exchange import Exchange, Pair, Route, Stamp
from liouville.graphs import adjacency

T = TypeVar("T")
_FAULT = "agents/fault"
_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
_FIELDS = ("graph", "layer", "pass", "round", "dtype", "batch", "features", "message")


class AgentFault(RuntimeError):
    """A node failed, and this process stopped because of it; the message names the node."""


def hosts_of(nodes: int, processes: int) -> tuple[int, ...]:
    """The process that hosts each node: consecutive nodes, as evenly as possible.

    Raises:
        ValueError: if there are more processes than nodes.

    Examples:
        >>> hosts_of(5, 2)
        (0, 0, 0, 1, 1)
    """
    if not 1 <= processes <= nodes:
        raise ValueError(
            f"{nodes} nodes run in 1 to {nodes} processes, got {processes}; give --nproc {nodes} or fewer."
        )
    return tuple(node * processes // nodes for node in range(nodes))


class Distributed(Exchange):
    """The hosted nodes' side of a run over several processes; the process group must be initialised.

    Args:
        graph: who may receive from whom.
        store: the rendezvous store, in which faults are agreed on.
        timeout: seconds that a node may take to answer; every process stops within ``timeout + 2 * grace`` of a fault.
        device: where messages live; the CPU for gloo, a GPU for nccl.
        description: what else all processes must agree on, such as the protocol; part of the graph's fingerprint.
    """

    def __init__(
        self,
        graph: Any,
        store: dist.Store,
        timeout: float = 30.0,
        device: torch.device | str = "cpu",
        description: str = "",
    ) -> None:
        self.rank, self.processes = dist.get_rank(), dist.get_world_size()
        graph = adjacency(graph)
        self.hosts = hosts_of(len(graph), self.processes)
        super().__init__(graph, tuple(i for i, host in enumerate(self.hosts) if host == self.rank))
        self.store, self.timeout, self.device = store, timeout, torch.device(device)
        self.grace = max(1.0, timeout / 4)
        digest = hashlib.sha256(f"{graph} {self.hosts} {description}".encode()).digest()
        self._fingerprint = int.from_bytes(digest[:7], "big")
        self._messages = 0

    def _carry(self, stamp: Stamp, route: Route, parts: Mapping[Pair, Tensor], like: Tensor) -> dict[Pair, Tensor]:
        out, into = self._by_peer(route)
        sent = {peer: torch.cat([parts[pair].reshape(-1) for pair in pairs]) for peer, pairs in out.items()}
        widths = {peer: sum(route.widths[pair] for pair in pairs) for peer, pairs in into.items()}
        self._messages += 1
        headers = {peer: self._header(stamp, like, payload.numel() // len(like)) for peer, payload in sent.items()}
        arrived_headers = {peer: self._empty(len(_FIELDS), torch.int64) for peer in into}
        self._batch(stamp, headers, arrived_headers)
        expected = {peer: self._header(stamp, like, width) for peer, width in widths.items()}
        complaints = {peer: _complaint(header, expected[peer]) for peer, header in arrived_headers.items()}
        if any(complaints.values()):
            self._accuse({peer: what for peer, what in complaints.items() if what}, stamp)
        payloads = {peer: self._empty(len(like) * width, like.dtype) for peer, width in widths.items()}
        self._batch(stamp, sent, payloads)
        received: dict[Pair, Tensor] = {}
        for peer, pairs in into.items():
            pieces = payloads[peer].split([len(like) * route.widths[pair] for pair in pairs])
            received |= {pair: x.view(len(like), -1) for pair, x in zip(pairs, pieces, strict=True)}
        return received

    def _reduce(self, total: Tensor) -> Tensor:
        return self.summed(total, Stamp(-1, "forward", 0))

    def summed(self, total: Tensor, place: Stamp | str) -> Tensor:
        """The sum over all processes of tensors of one size, made in place; ``place`` is where, for an error."""
        try:
            work = dist.all_reduce(total, async_op=True)
            self._wait(work)
        except RuntimeError as error:
            self._stop(None, place, error)
        return total

    def _by_peer(self, route: Route) -> tuple[dict[int, list[Pair]], dict[int, list[Pair]]]:
        """The pairs that leave for each other process, and those that come from it, both in the same order."""
        out: dict[int, list[Pair]] = {}
        into: dict[int, list[Pair]] = {}
        for receiver, sender in sorted(route.widths):
            here, there = self.hosts[receiver] == self.rank, self.hosts[sender] == self.rank
            if there and not here:
                out.setdefault(self.hosts[receiver], []).append((receiver, sender))
            if here and not there:
                into.setdefault(self.hosts[sender], []).append((receiver, sender))
        return out, into

    def _header(self, stamp: Stamp, like: Tensor, width: int) -> Tensor:
        phase = ("forward", "backward").index(stamp.phase)
        dtype = _DTYPES.index(like.dtype)
        fields = (self._fingerprint, stamp.layer, phase, stamp.round, dtype, len(like), width, self._messages)
        return torch.tensor(fields, device=self.device)

    def _empty(self, size: int, dtype: torch.dtype) -> Tensor:
        return torch.empty(size, dtype=dtype, device=self.device)

    def _batch(self, stamp: Stamp, out: Mapping[int, Tensor], into: Mapping[int, Tensor]) -> None:
        """One batch of sends and receives, waited for one by one, so that an error has a peer."""
        receives = [dist.P2POp(dist.irecv, buffer, peer) for peer, buffer in into.items()]
        sends = [dist.P2POp(dist.isend, buffer.contiguous(), peer) for peer, buffer in out.items()]
        operations, peers = receives + sends, [*into, *out]
        if not operations:
            return
        try:
            works = dist.batch_isend_irecv(operations)
        except RuntimeError as error:  # a connection that is known to be closed
            self._stop(peers[0] if len(set(peers)) == 1 else None, stamp, error)
        # nccl makes one work of a batch
        for work, peer in zip(works, peers if len(works) == len(peers) else [None], strict=True):
            try:
                self._wait(work)
            except RuntimeError as error:
                self._stop(peer, stamp, error)

    def _wait(self, work: dist.Work) -> None:
        work.wait(timedelta(seconds=self.timeout))

    # --- faults

    def _names(self, rank: int) -> str:
        nodes = [i for i, host in enumerate(self.hosts) if host == rank]
        first, last = (self.graph.label(nodes[i]).removeprefix("node ") for i in (0, -1))
        return self.graph.label(nodes[0]) if len(nodes) == 1 else f"the process of nodes {first} to {last}"

    def _accuse(self, complaints: dict[int, str], stamp: Stamp) -> NoReturn:
        """Name the process that most of its neighbours complain about: one that is wrong itself complains of others."""
        mine = ",".join(map(str, complaints))
        self._ask(lambda: self.store.set(f"agents/accuses/{self.rank}", mine))
        time.sleep(self.grace / 2)
        votes = Counter(complaints.keys())
        for r in set(range(self.processes)) - {self.rank}:
            key = f"agents/accuses/{r}"
            if self._ask(partial(self.store.check, [key])):
                said = self._ask(partial(self.store.get, key)) or b""
                votes.update(int(word) for word in said.decode().split(",") if word)
        first, what = next(iter(complaints.items()))
        worst = [r for r, n in votes.items() if n == max(votes.values())]
        if worst == [self.rank]:
            self._publish(
                f"{self._names(self.rank)} runs something else than its neighbours: it got {what}, in {stamp}"
            )
        if len(worst) == 1:
            what = complaints.get(worst[0], "something that its neighbours did not expect")
            self._publish(f"{self._names(worst[0])} answered with {what}, in {stamp}")
        both = f"{self._names(first)} and {self._names(self.rank)}"
        self._publish(f"{both} disagree: the first answered with {what}, in {stamp}")

    def _stop(self, peer: int | None, stamp: Stamp | str, error: Exception) -> NoReturn:
        """Find out who failed, agree on it with the others, and raise."""
        self._ask(lambda: self.store.set(f"agents/waits/{self.rank}", "1"))
        closed = peer is not None and "imed out" not in str(error)
        deadline = time.monotonic() + self.grace
        while time.monotonic() < deadline:
            if self._ask(lambda: self.store.check([_FAULT])):
                self._publish("")
            # gloo closes the connections of a process that gives up, too; but such a process has said that it waits
            if peer is not None and closed and time.monotonic() > deadline - self.grace / 2 and not self._waits(peer):
                self._publish(f"{self._names(peer)} died (its connection closed), in {stamp}")
            time.sleep(0.05)
        silent = [rank for rank in range(self.processes) if not self._waits(rank)]
        if 0 < len(silent) < self.processes:
            who = " and ".join(self._names(rank) for rank in silent)
            self._publish(f"{who} did not answer within {self.timeout:g} s, in {stamp}")
        if peer is not None:
            how = "closed its connection" if closed else f"did not answer within {self.timeout:g} s"
            self._publish(f"{self._names(peer)} {how}, and the rendezvous does not say why, in {stamp}")
        self._publish(f"a node failed ({str(error).splitlines()[0][:200]}), in {stamp}")

    def _waits(self, rank: int | None) -> bool:
        """Whether a process has said that it found a fault."""
        return bool(self._ask(lambda: self.store.check([f"agents/waits/{rank}"])))

    def _publish(self, sentence: str) -> NoReturn:
        """Raise the first fault that anybody published, which may be this one."""
        agreed = self._ask(lambda: self.store.compare_set(_FAULT, "", sentence))
        raise AgentFault((agreed.decode() if agreed else "") or sentence or "a node failed")

    def _ask(self, question: Callable[[], T]) -> T | None:
        """The store's answer, or None where it is gone or does not answer: nothing here may hang."""
        answer: list[T] = []

        def ask() -> None:
            try:
                answer.append(question())
            except Exception:  # the store's host may be the node that failed
                return

        thread = threading.Thread(target=ask, daemon=True)
        thread.start()
        thread.join(self.grace)
        return answer[0] if answer else None


def _complaint(header: Tensor, expected: Tensor) -> str:
    """What is wrong with a header, or nothing."""
    for name, got, wanted in zip(_FIELDS, header.tolist(), expected.tolist(), strict=True):
        if got == wanted:
            continue
        if name == "graph":
            return "a message of another graph, protocol or distribution of nodes"
        if name == "dtype":
            known = str(_DTYPES[got]) if 0 <= got < len(_DTYPES) else f"type {got}"
            return f"{known}, expected {_DTYPES[wanted]}"
        if name == "pass":
            return f"a message of the {'backward' if got else 'forward'} pass"
        return f"{name} {got}, expected {wanted}"
    return ""


def gathered(mine: Mapping[int, Sequence[int]], width: int, exchange: Exchange) -> dict[int, list[int]]:
    """Whole numbers of every node, of all processes: what each knows of the nodes that it hosts.

    They travel as one sum over a table of fixed size, nodes x width, of which each process fills its own rows, never
    as objects: whoever joins as a peer can send wrong numbers and nothing else.

    Args:
        mine: node -> at most ``width`` numbers from 0 to 2^62, for the nodes that this process hosts.
        width: how many there are at most, the same in every process.
        exchange: whose nodes.

    Raises:
        AgentFault: if another process does not answer.
    """
    if not isinstance(exchange, Distributed):
        return {node: list(numbers) for node, numbers in mine.items()}
    table = torch.zeros(len(exchange.graph), width, dtype=torch.int64)
    for node, numbers in mine.items():
        table[node, : len(numbers)] = 1 + torch.tensor(list(numbers), dtype=torch.int64)  # 0 is no number
    table = exchange.summed(table.to(exchange.device), "the exchange of what each process knows")
    return {node: [number - 1 for number in row if number > 0] for node, row in enumerate(table.tolist())}
