"""Messages that fail: none is the network itself, stale ones are what is written out, and the bound holds for all."""

import pytest
import torch
from torch import nn

import liouville as lv
import samples
from liouville.agents import Failures, Simulation, log_failing_bound, spread, unreliable
from measure import EPS, far, generator, near, randn, rounding

M, N = 6, 5
RING = [(i, (i + 1) % M) for i in range(M)]
FAR = [(i, (i + d) % M) for i in range(M) for d in (1, 2)]
SIZES = (1, 2, 1, 1, 2, 1)
WIDTH = 2 * sum(SIZES)


def network(model="h2", scheme=None, seed=0, layers=N):
    graph = lv.Graph(RING, SIZES)
    kind = lv.SeparableHamiltonianField if model == "h2" else lv.HamiltonianField
    field = kind(WIDTH, layers, operator=graph, init=samples.RANDOM, generator=generator(seed))
    flow = lv.Flow(field, scheme or (lv.SymplecticEuler() if model == "h2" else lv.ForwardEuler()), T=0.2 * layers)
    return lv.Network(nn.Identity(), flow, lv.NodeHead(graph, WIDTH)).double()


def failing(of, failures, protocol="owner-computes"):
    return unreliable(of, failures, FAR, protocol)


CASES = [(m, p) for m in ("h1", "h2") for p in ("owner-computes", "replicated")]


@pytest.mark.parametrize("model, protocol", CASES)
@torch.no_grad()
def test_without_failures_it_is_the_network_bit_for_bit(model, protocol):
    of, x = network(model), randn(4, WIDTH)
    agents = spread(of, Simulation(FAR), protocol)
    for failures in (Failures(), Failures(outages=[(0, N, N + 3)], seed=3)):
        assert torch.equal(failing(of, failures, protocol)(x), agents(x))


@pytest.mark.parametrize("failures", [Failures(loss=1.0), Failures(late=1.0, delay=1), Failures(late=1.0, delay=2)])
@torch.no_grad()
def test_it_computes_what_is_written_out(failures):
    """h1 under "replicated": node i moves by K^T tanh(K s + b) with its own features new, the others' as last heard."""
    of, x = network("h1"), randn(4, WIDTH)
    field, h = of.body.field, of.body.h
    own = field.operator.owners(WIDTH)
    theta, y, past = field.theta(), x, []
    for j in range(N):
        past.append(y)
        moved = torch.empty_like(y)
        for i in range(M):
            if failures.loss == 1.0:
                heard = torch.zeros_like(y)
            elif failures.delay == 1:
                heard = past[j - 1] if j else torch.zeros_like(y)
            else:
                continue
            s = torch.where(own == i, y, heard)
            moved[:, own == i] = (torch.tanh(s @ theta.K[j].mT + theta.b[j]) @ theta.K[j] @ field.J.mT)[:, own == i]
        y = y + h * moved
    found = failing(of, failures, "replicated").body(x)
    if failures.delay == 2:  # by 1 or 2 layers: between the two, and neither
        far(found, failing(of, Failures(late=1.0, delay=1), "replicated").body(x), 1e-6)
    else:
        near(found, y, 100 * EPS * N * float(y.abs().max()))
    far(found, of.body(x), 1e-3)


@torch.no_grad()
def test_a_part_of_a_sum_that_comes_late_is_that_of_the_layer_before():
    """Owner-computes, one layer late in both rounds: hidden units with old states, and old parts with old weights."""
    of, x = network("h1"), randn(4, WIDTH)
    field, h = of.body.field, of.body.h
    columns, rows = field.operator.owners(WIDTH), field.operator.owners(field.hidden)
    theta, y, past, parts = field.theta(), x, [], []
    for j in range(N):
        past.append(y)
        heard = past[j - 1] if j else torch.zeros_like(y)
        here = {}
        for o in range(M):
            s = torch.where(columns == o, y, heard)
            here[o] = torch.tanh(s @ theta.K[j].mT + theta.b[j])[:, rows == o] @ theta.K[j][rows == o]
        parts.append(here)
        gradient = torch.zeros_like(y)
        for i in range(M):
            for o in range(M):
                source = here if o == i else parts[j - 1] if j else None
                if source is not None:
                    gradient[:, columns == i] += source[o][:, columns == i]
        y = y + h * gradient @ field.J.mT
    found = failing(of, Failures(late=1.0), "owner-computes").body(x)
    near(found, y, 100 * EPS * N * float(y.abs().max()))


@torch.no_grad()
def test_a_node_that_is_down_keeps_its_features_and_is_not_heard():
    of, x = network("h2"), randn(4, WIDTH)
    own = of.body.field.operator.owners(WIDTH)
    states = list(failing(of, Failures(outages=[(2, 1, 3)])).body.states(x))
    before, after = (torch.cat(states[j], 1) for j in (1, 4))
    assert torch.equal(before[:, own == 2], after[:, own == 2])
    assert not torch.equal(before[:, own == 3], after[:, own == 3])
    other = x.clone()
    other[:, own == 2] += 1.0
    down = failing(of, Failures(outages=[(2, 0, N)])).body
    assert torch.equal(down(x)[:, own != 2], down(other)[:, own != 2])


@torch.no_grad()
def test_failures_come_from_the_seed_and_differ_by_run_and_sample():
    of, x = network(), randn(4, WIDTH)
    failures = Failures(loss=0.3, late=0.3, delay=2, seed=5)
    one, two = failing(of, failures), failing(of, failures)
    first, second = one(x), one(x)
    assert torch.equal(first, two(x)) and torch.equal(second, two(x)) and not torch.equal(first, second)
    one.body.field.exchange.restart()
    assert torch.equal(first, one(x))
    assert not torch.equal(first, failing(of, Failures(loss=0.3, late=0.3, delay=2, seed=6))(x))
    same = one(x[:1].expand(4, -1))
    assert not torch.equal(same[0], same[1])
    # sample 0's fate is not its batch's, though a product may round by its batch
    near(two(x[:2])[:1], failing_run(of, failures, 2, x)[:1], rounding(x, terms=N * WIDTH))


def failing_run(of, failures, run, x):
    net = failing(of, failures)
    for _ in range(run):
        net(x)
    return net(x)


@torch.no_grad()
def test_the_fates_are_as_frequent_as_stated():
    net = failing(network(), Failures(loss=0.1, late=0.25))
    net(randn(200, WIDTH))
    sent, lost, late = net.body.field.exchange.fates
    for count, p in ((lost, 0.1), (late, 0.25)):
        assert abs(count / sent - p) < 5 * (p * (1 - p) / sent) ** 0.5


@pytest.mark.parametrize(
    "model, protocol, scheme", [*((*case, None) for case in CASES), ("h2", "owner-computes", lv.Verlet())]
)
@torch.no_grad()
def test_the_bound_holds_over_random_failures(model, protocol, scheme):
    worst = 0.0
    for seed in range(3):
        flow = network(model, scheme, seed=seed).body
        C = log_failing_bound(flow, protocol)
        assert float(lv.analysis.log_upper_bound(flow)) <= C  # no failures are failures, too
        p = (seed % 3) / 3
        failures = Failures(loss=p * 0.6, late=0.3, delay=3, outages=[(seed % M, 1, 2)], seed=seed)
        x, d = randn(8, WIDTH, seed=seed), 1e-4 * randn(8, WIDTH, seed=seed + 50)
        ends = []
        for start in (x, x + d):
            ends.append(failing(flow, failures, protocol)(start))
        gain = (ends[1] - ends[0]).norm(dim=1) / d.norm(dim=1)
        worst = max(worst, float(gain.max().log()) - C)
    assert -12 < worst <= 0


@torch.no_grad()
def test_the_bound_is_attained_by_one_linear_layer():
    """One node pair, slopes of 1 at 0 and positive weights: nothing cancels, and the failing network is the network."""
    graph = lv.Graph([(0, 1)])
    field = lv.HamiltonianField(2, 1, J=torch.zeros(2, 2), operator=graph).double()
    assert log_failing_bound(lv.Flow(field, lv.ForwardEuler(), 1.0)) == 0.0
    field = lv.SeparableHamiltonianField(4, 1, operator=graph).double()
    field.K_p.copy_(torch.tensor([[[1.0, 0.5], [0.5, 2.0]]])), field.K_q.zero_()
    flow = lv.Flow(field, lv.SymplecticEuler(), 1.0)
    A = lv.analysis.backward_sensitivity(flow, torch.zeros(1, 4, dtype=torch.float64))[0, 0]
    assert abs(float(torch.linalg.matrix_norm(A, ord=2).log()) - log_failing_bound(flow)) < 1e-12


def test_it_is_not_trained_and_says_why():
    of, x = network(), randn(4, WIDTH)
    with pytest.raises(NotImplementedError, match=r"run, not trained.*no_grad"):
        failing(of, Failures(loss=0.1))(x).sum().backward()
    assert all(w.grad is None for w in of.parameters())


@torch.no_grad()
def test_a_shared_heads_sums_arrive():
    of = network()
    of.head = nn.Linear(WIDTH, 3).double()
    x = randn(4, WIDTH)
    everywhere = failing(of, Failures(loss=1.0))
    near(everywhere(x), of.head(everywhere.body(x)), 1e3 * EPS)


def test_wrong_failures_are_refused_in_a_sentence():
    for wrong, why in (
        ({"loss": 1.2}, "probabilities"),
        ({"loss": 0.7, "late": 0.7}, "at most 1"),
        ({"late": float("nan")}, "probabilities"),
        ({"delay": 0}, "delay"),
        ({"seed": 1.5}, "seed"),
        ({"outages": [(1, 3, 2)]}, "first <= last"),
    ):
        with pytest.raises(ValueError, match=why):
            Failures(**wrong)
    with pytest.raises(ValueError, match="no node"):
        failing(network(), Failures(outages=[(9, 0, 1)]))
    with pytest.raises(ValueError, match="give the graph"):
        unreliable(network(), Failures())
    with pytest.raises(ValueError, match="on a Graph"):
        log_failing_bound(lv.zoo.h2(4, 2, 1.0))
