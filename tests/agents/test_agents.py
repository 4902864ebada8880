"""Agents compute what the masked central network computes: values and gradients, in one process and in several."""

import pytest
import torch
from torch import nn

import liouville as lv
from agents import processes, worker
from liouville.agents import Simulation, derived_mask, spread, to_central
from liouville.agents.exchange import Route, Stamp, spanning_tree
from liouville.agents.transport import hosts_of
from liouville.graphs import adjacency

LAYERS = 32
TOLERANCE = 1e-12  # what is asked for; the rounding of 32 layers of sums of at most 10 products is a thousandth of it

GRAPHS = {
    "ring": [(i, (i + 1) % 8) for i in range(8)],
    "star": [(0, i) for i in range(1, 8)],
    "tree": [(i, (i - 1) // 2) for i in range(1, 8)],
    "random": [(0, 3), (3, 5), (5, 1), (1, 7), (7, 2), (2, 4), (4, 6), (0, 6), (3, 7), (1, 4), (5, 6)],
}
SIZES = (1, 2, 1, 1, 3, 1, 1, 2)


def with_two_hops(graph):
    """The graph of all that are two links apart at most."""
    S = torch.tensor(adjacency(graph)).double()
    return (S @ S > 0).tolist()


def case(graph, model, protocol, consensus="gossip", layers=LAYERS, sizes=SIZES):
    """K on the graph itself; the replicated protocol is given the links that it needs."""
    R = GRAPHS[graph] if isinstance(graph, str) else graph
    S = R if protocol == "owner-computes" else with_two_hops(R)
    keys = {"R": R, "S": S, "model": model, "protocol": protocol, "consensus": consensus}
    return keys | {"layers": layers, "sizes": sizes}


CASES = [case(g, m, p) for g in GRAPHS for m in ("h1", "h2") for p in ("owner-computes", "replicated")]
NAMES = ["-".join((g, m, p)) for g in GRAPHS for m in ("h1", "h2") for p in ("owner-computes", "replicated")]


def central(of):
    network, x = worker.network(of["R"], of["model"], of["layers"], of["sizes"], outputs=of.get("outputs"))
    scores = network(x)
    worker.loss_of(scores, of.get("outputs") is None).backward()
    return scores.detach(), {name: w.grad for name, w in network.named_parameters()}


def require_equal(of, scores, shares):
    """Every process's scores, and its gradients put together, against the central network's."""
    expected, gradients = central(of)
    for each in scores:
        assert (each - expected).abs().max() <= TOLERANCE * expected.abs().max()
    for name, expected in gradients.items():
        found = torch.full_like(expected, torch.nan)
        for share in shares:
            held = ~share[name].isnan()
            both = held & ~found.isnan()
            # a replicated bias of the head is the only thing that two processes hold
            assert not both.any() or name == "head.bias"
            found = torch.where(held, share[name], found)
        assert (expected[found.isnan()] == 0).all()  # nobody owns what lies outside the mask
        assert (found.nan_to_num() - expected).abs().max() <= TOLERANCE * expected.abs().max()


def simulated(of):
    network, x = worker.network(of["R"], of["model"], of["layers"], of["sizes"])
    exchange = Simulation(adjacency(of["S"]))
    local = spread(network, exchange, of["protocol"], of["consensus"])
    scores = local(x)
    worker.loss_of(scores).backward()
    return scores.detach(), worker.central_gradients(network, local, scores), exchange


@pytest.mark.parametrize("of", CASES, ids=NAMES)
def test_the_simulation_is_the_masked_central_network(of):
    scores, gradients, _ = simulated(of)
    require_equal(of, [scores], [gradients])


def test_the_comparison_notices_a_node_that_forgets_a_neighbour(monkeypatch):
    """Without the messages of one link the scores and gradients are others: the law can fail."""
    of = case("ring", "h2", "owner-computes")
    swap = Simulation.swap

    def forgetful(self, stamp, route, parts, like):
        return {pair: x * (pair != (3, 4)) for pair, x in swap(self, stamp, route, parts, like).items()}

    monkeypatch.setattr(Simulation, "swap", forgetful)
    scores, gradients, _ = simulated(of)
    with pytest.raises(AssertionError):
        require_equal(of, [scores], [gradients])


def in_processes(cases, number, tmp_path):
    codes, logs = processes.run({"cases": cases}, number, tmp_path)
    assert codes == [0] * number, logs
    return [torch.load(tmp_path / f"{rank}.pt") for rank in range(number)]


REDUCED = [case("ring", "h2", "owner-computes", "all-reduce"), case("random", "h1", "replicated", "all-reduce")]


@pytest.mark.parametrize(
    "number, cases",
    [
        (2, [CASES[0], REDUCED[0]]),
        *(pytest.param(number, [*CASES, *REDUCED], marks=pytest.mark.slow) for number in (2, 3, 8)),
    ],
    ids=lambda value: str(value) if isinstance(value, int) else f"{len(value)}-cases",
)
def test_processes_are_the_masked_central_network(number, cases, tmp_path):
    """Forward Euler and symplectic Euler, 32 layers, four graphs, both protocols, both ways to add the head up."""
    ranks = in_processes(cases, number, tmp_path)
    for i, of in enumerate(cases):
        require_equal(of, [r[i]["scores"] for r in ranks], [r[i]["gradients"] for r in ranks])
        for r in ranks[1:]:  # every node knows the same scores, to the last bit
            assert torch.equal(r[i]["scores"], ranks[0][i]["scores"])


def test_eight_processes_on_the_ring(tmp_path):
    of = case("ring", "h2", "owner-computes")
    ranks = in_processes([of], 8, tmp_path)
    require_equal(of, [r[0]["scores"] for r in ranks], [r[0]["gradients"] for r in ranks])


def test_a_node_computes_the_same_to_the_last_bit_wherever_it_runs(tmp_path):
    of = case("random", "h2", "owner-computes")
    _, alone, _ = simulated(of)
    for r in in_processes([of], 3, tmp_path):
        for name, gradient in r[0]["gradients"].items():
            held = ~gradient.isnan()
            assert torch.equal(gradient[held], alone[name][held])


# --- messages and bytes


def ring(M, degree=2):
    return [(i, (i + d) % M) for i in range(M) for d in range(1, degree // 2 + 1)]


@pytest.mark.parametrize("protocol", ["owner-computes", "replicated"])
@pytest.mark.parametrize("model", ["h1", "h2"])
def test_bytes_per_node_do_not_depend_on_the_number_of_nodes(model, protocol):
    """A ring of 4 under "replicated" would have all nodes two links apart: there the number starts at 8."""
    counts = set()
    for M in (4, 8, 16) if protocol == "owner-computes" else (8, 16, 32):
        _, _, exchange = simulated(case(ring(M), model, protocol, layers=3, sizes=1))
        nodes = {
            tuple(exchange.traffic.of(i, j, phase) for j in range(3) for phase in ("forward", "backward"))
            for i in range(M)
        }
        assert len(nodes) == 1  # every node of a ring is like every other
        counts |= nodes
    assert len(counts) == 1
    forward, backward = counts.pop()[:2]
    features = {"h1": 2, "h2": 2}[model]  # p and q of every node cross each link once
    links, rounds = (2, 2) if protocol == "owner-computes" else (4, 1)
    assert forward.bytes == backward.bytes == 8 * 6 * features * links * rounds
    assert forward.messages == links * rounds * (1 if model == "h1" else 2)


def test_bytes_are_the_same_in_real_processes(tmp_path):
    seen = []
    for M in (4, 8, 16):
        out = tmp_path / str(M)
        out.mkdir()
        of = case(ring(M), "h2", "owner-computes", layers=2, sizes=1)
        for r in in_processes([of], M, out):
            (node,) = r[0]["hosted"]
            seen.append({key[1:]: count for key, count in r[0]["counts"].items() if key[1] >= 0})
            assert {key[0] for key in r[0]["counts"]} == {node}
    assert all(counts == seen[0] for counts in seen)
    _, _, exchange = simulated(case(ring(8), "h2", "owner-computes", layers=2, sizes=1))
    assert seen[0] == {key[1:]: count for key, count in exchange.traffic.counts.items() if key[0] == 3 and key[1] >= 0}


# --- the head, the hosts, errors


@pytest.mark.parametrize("seed", range(20))
def test_a_spanning_tree_reaches_everybody_both_ways(seed):
    g = torch.Generator().manual_seed(seed)
    M = 1 + seed % 9
    S = adjacency(torch.rand(M, M, generator=g) < 0.4)
    up, down = spanning_tree(S)
    both = torch.tensor(S) & torch.tensor(S).mT
    connected = bool(torch.linalg.matrix_power(both.double(), M).gt(0).all())
    assert bool(up) == connected
    if connected:
        parts = {i: torch.randn(2, 3, generator=g, dtype=torch.float64) for i in range(M)}
        total = Simulation(S).total(parts, "gossip")
        assert (total - sum(parts.values())).abs().max() < 1e-14 * M
        assert sum(map(len, up)) == sum(map(len, down)) == M - 1


def test_every_process_hosts_its_share():
    for nodes in range(1, 12):
        for number in range(1, nodes + 1):
            hosts = hosts_of(nodes, number)
            shares = [hosts.count(rank) for rank in range(number)]
            assert max(shares) - min(shares) <= 1 and min(shares) >= 1 and list(hosts) == sorted(hosts)


def test_weights_go_out_and_come_back():
    of = case("tree", "h2", "replicated", layers=2)
    network, _ = worker.network(of["R"], of["model"], of["layers"], of["sizes"])
    other, _ = worker.network(of["R"], of["model"], of["layers"], of["sizes"])
    local = spread(network, Simulation(adjacency(of["S"])), "replicated")
    with torch.no_grad():
        for w in other.parameters():
            w.zero_()
    to_central(local, other)
    for mine, theirs in zip(network.parameters(), other.parameters(), strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("engine", [lv.Checkpointed(), lv.Reversible()])
def test_other_engines_run_agents_too(engine):
    """What is recomputed is exchanged again; the gradient stays the same."""
    of = case("ring", "h2", "owner-computes", layers=8)
    network, x = worker.network(of["R"], of["model"], of["layers"], of["sizes"])
    network.body = network.body.with_backprop(engine)
    exchange = Simulation(adjacency(of["S"]))
    local = spread(network, exchange, of["protocol"])
    scores = local(x)
    worker.loss_of(scores).backward()
    gradients = worker.central_gradients(network, local, scores)
    network.body = network.body.with_backprop(lv.Stored())
    require_equal(of, [scores.detach()], [gradients])


def test_second_derivatives_of_messages_raise():
    network = network_of(lv.zoo.h2(8, 2, 1.0, operator=lv.Graph(RING))).double()
    local, x = spread(network, Simulation(adjacency(RING))), torch.ones(3, 2).double().requires_grad_()
    (grad,) = torch.autograd.grad(local(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivatives"):
        torch.autograd.grad(grad.sum(), x)


def network_of(flow, head=None, lift=None):
    n = flow.field.features
    return lv.Network(lift or lv.Lift(n, 2), flow, head or nn.Linear(n, 1))


RING = ring(4)
ONE_WAY = torch.tensor([[1, 0, 0, 1], [1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1]])


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: spread(network_of(lv.zoo.h2(8, 2, 1.0)), Simulation(adjacency(RING))), "a Graph as operator"),
        (
            lambda: spread(
                network_of(lv.zoo.h2(8, 2, 1.0, operator=lv.Graph(ring(4, 4)))), Simulation(adjacency(RING))
            ),
            "does not fit the communication graph: node 0 needs the state of node 2, which is 2 hops away.*1 more.",
        ),
        (
            lambda: spread(
                network_of(lv.zoo.h2(16, 2, 1.0, operator=lv.Graph(ring(8)))),
                Simulation(adjacency(ring(8))),
                "replicated",
            ),
            "owner-computes needs fewer links",
        ),
        (
            lambda: spread(
                network_of(lv.zoo.h1(8, 2, 1.0, train_J=True, operator=lv.Graph(RING))), Simulation(adjacency(RING))
            ),
            "one constant J",
        ),
        (
            lambda: spread(
                network_of(lv.zoo.h1(8, 2, 1.0, J="full", operator=lv.Graph(RING, structure=torch.ones(4, 4)))),
                Simulation(adjacency(torch.ones(4, 4))),
            ),
            "J couples no two nodes, but it couples node 0 with node 1",
        ),
        (
            lambda: spread(
                network_of(lv.zoo.h2(8, 2, 1.0, operator=lv.Graph(RING)), lift=nn.Linear(2, 8)),
                Simulation(adjacency(RING)),
            ),
            "a Lift or nn.Identity, one Flow, and a head .* got Linear, Flow and Linear",
        ),
        (
            lambda: Simulation(adjacency(ONE_WAY)).total({i: torch.ones(1, 1) for i in range(4)}, "gossip"),
            'consensus="all-reduce"',
        ),
        (
            lambda: Simulation(adjacency(RING)).swap(
                Stamp(0, "forward", 0), Route({(0, 2): 1}), {(0, 2): torch.ones(1, 1)}, torch.ones(1, 1)
            ),
            "node 0 may not receive from node 2",
        ),
        (lambda: hosts_of(3, 4), "3 nodes run in 1 to 3 processes, got 4"),
    ],
)
def test_errors_say_what_to_do(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_one_way_ring_trains_with_all_reduce():
    """A directed graph: replicated, K on what hears each other, here every node alone; the head still adds all up."""
    R = derived_mask(ONE_WAY)
    assert adjacency(torch.eye(4)) == R
    of = {"R": torch.eye(4), "S": ONE_WAY, "model": "h2", "protocol": "replicated", "consensus": "all-reduce"}
    of |= {"layers": 3, "sizes": 1}
    scores, gradients, _ = simulated(of)
    require_equal(of, [scores], [gradients])


@pytest.mark.slow
@pytest.mark.parametrize("data", ["swiss-roll", "double-circles"])
def test_the_paper_s_ring_of_eight_reaches_99_percent_at_eight_layers(data):
    """24 of 64 entries of each K; inputs at p[1] and q[5], counted from 1."""
    torch.manual_seed(0)
    operator = lv.Graph(GRAPHS["ring"])
    assert int(operator.constrain(torch.ones(8, 8)).sum()) == 24
    network = lv.Network(lv.Lift(16, 2, place=(0, 12)), lv.zoo.h2(16, 8, 4.0, operator=operator), nn.Linear(16, 1))
    history = lv.train.fit(network, lv.data.load(data), lv.train.Settings(epochs=40))
    assert history.metrics["test_accuracy"] >= 0.99
    local = spread(network, Simulation(operator.links))
    x = lv.data.load(data).x_test[:500]
    with torch.no_grad():  # float32 sums in another order, 8 layers
        assert (local(x) - network(x)).abs().max() <= 1e-3 * network(x).abs().max()
