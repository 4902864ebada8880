"""The boolean products are the sparsity patterns of autograd, and the verdict is the one of brute force."""

import pytest
import torch

import liouville as lv
from liouville.agents import GeneralPattern, SeparablePattern, check, derived_mask
from liouville.agents.patterns import needs
from liouville.graphs import adjacency, distances
from measure import generator, randn

RING = [(i, (i + 1) % 8) for i in range(8)]
TWO_HOPS = [(i, (i + d) % 8) for i in range(8) for d in (1, 2)]


def case(seed):
    """Random directed patterns of K_p, K_q and X (or R and T), block sizes 1 and 2, a random graph; half have unit
    diagonals and a symmetric graph."""
    g = generator(seed)
    M = int(torch.randint(2, 6, (), generator=g))
    proper = seed % 2 == 0

    def pattern(density):
        P = torch.rand(M, M, generator=g) < density
        return P | torch.eye(M, dtype=torch.bool) if proper else P

    S = pattern(0.6) | torch.eye(M, dtype=torch.bool)
    sizes = torch.randint(1, 3, (M,), generator=g)
    owners = torch.arange(M).repeat_interleave(sizes)
    return [pattern(0.3 if proper else 0.5) for _ in range(3)], S | S.mT if proper else S, owners, proper


def blocks(matrix, rows, columns, M):
    """Which blocks of a matrix have an entry that is not exactly zero."""
    found = torch.zeros(M, M, dtype=torch.bool)
    for r, c in (matrix != 0).nonzero().tolist():
        found[rows[r], columns[c]] = True
    return found


def masked(pattern, owners, seed):
    return randn(len(owners), len(owners), seed=seed) * pattern[owners][:, owners]


def jacobian_blocks(f, x, owners, M, rows=None):
    rows = owners if rows is None else rows
    if not len(rows):  # a K of zeros has no gradient to look at
        return torch.zeros(M, M, dtype=torch.bool)
    return blocks(torch.autograd.functional.jacobian(f, x), rows, owners, M)


def autograd_needs(A, R, owners, protocol, seed):
    """What one update s -> A K^T tanh(K s + b) and its reverse need, block by block, from autograd alone."""
    M, n = len(R), len(owners)
    K, b, A = masked(R, owners, seed), randn(n, seed=seed + 1), masked(A, owners, seed + 2)
    s, costate = randn(n, seed=seed + 3), randn(n, seed=seed + 4)

    def update(s, K=K):
        return A @ (K.mT @ torch.tanh(K @ s + b))

    def back(s, costate):
        s = s if s.requires_grad else s.detach().requires_grad_()
        return torch.autograd.grad(update(s) @ costate, s, create_graph=True)[0]

    def weight_gradient(s, costate):
        """One number per entry of K that the mask keeps, by row: the gradient at the owner of the row."""
        raw = K.clone().requires_grad_()
        return torch.autograd.grad(update(s, raw) @ costate, raw, create_graph=True)[0][kept]

    kept = K != 0
    rows = owners[kept.nonzero()[:, 0]]

    def of(f, x, rows=None):
        return jacobian_blocks(f, x, owners, M, rows)

    if protocol == "replicated":
        gradient = [
            of(lambda c: weight_gradient(s, c), costate, rows),
            of(lambda x: weight_gradient(x, costate), s, rows),
        ]
        return [of(update, s), of(lambda c: back(s, c), costate), of(lambda x: back(x, costate), s), *gradient]
    hidden, force, slope = randn(n, seed=seed + 5), randn(n, seed=seed + 6), 1 - torch.tanh(K @ s + b).square()
    return [
        of(lambda x: torch.tanh(K @ x + b), s),  # the state at the owner of a hidden unit
        of(lambda a: K.mT @ a, hidden),  # and what it computes, back
        of(lambda f: A @ f, force),
        of(lambda c: A.mT @ c, costate),
        of(lambda v: slope * (K @ v), force),
        of(lambda w: K.mT @ w, hidden),
    ]


def expected(pattern, protocol):
    """(A, R) and the needs of each update, in the order of `autograd_needs`."""
    found = needs(pattern, protocol)
    forward = [n.pattern for n in found if n.phase == "forward"]
    backward = [n.pattern for n in found if n.phase == "backward"]
    updates = 1 if isinstance(pattern, GeneralPattern) else 2
    f, b = len(forward) // updates, len(backward) // updates
    return [forward[u * f : (u + 1) * f] + backward[u * b : (u + 1) * b] for u in range(updates)]


def updates(pattern):
    if isinstance(pattern, GeneralPattern):
        return [(pattern.T, pattern.R)]
    return [(pattern.X.mT, pattern.R_q), (pattern.X, pattern.R_p)]


@pytest.mark.parametrize("protocol", ["replicated", "owner-computes"])
@pytest.mark.parametrize("graphs", [40, pytest.param(200, marks=pytest.mark.slow)])
def test_needs_and_verdicts_are_autograds_on_random_graphs(graphs, protocol):
    implied, compared = {True: 0, False: 0}, {True: 0, False: 0}
    for seed in range(graphs):
        (P, Q, X), S, owners, proper = case(seed)
        for pattern in (GeneralPattern(P, X), SeparablePattern(P, Q, X)):
            measured = [autograd_needs(A, R, owners, protocol, 10 * seed) for A, R in updates(pattern)]
            dead = False
            for (A, R), ours, theirs in zip(updates(pattern), expected(pattern, protocol), measured, strict=True):
                # a hidden unit that no costate reaches has no gradient, and nothing is really needed for it
                alive = (R.double() @ A.mT.double()).any(1)
                dead |= bool((R.any(1) & ~alive).any())
                if protocol == "replicated":
                    assert all((a | ~b).all() for a, b in zip(ours, theirs, strict=True))
                    live = R & alive[:, None]
                    ours = [*ours[:2], live.mT.double() @ live.double() > 0, ours[3], live]
                for a, b in zip(ours, theirs, strict=True):
                    assert torch.equal(a, b)
            missing = {(i, k) for each in measured for need in each for i, k in (need & ~S).nonzero().tolist()}
            result = check(S, pattern, protocol)
            asked = {(v.node, v.other) for v in result.violations}
            assert asked == missing or (dead and asked >= missing)
            compared[proper] += asked == missing
            forward_only = not [v for v in result.violations if v.phase == "forward"]
            if forward_only and not result.holds:
                implied[proper] += 1
    # forward implies backward where S is symmetric and the diagonals are 1, and not always elsewhere
    assert implied[True] == 0
    assert implied[False] > 0
    assert compared[True] == graphs  # two patterns for each of half of the graphs
    assert compared[False] > graphs / 2


def layer_blocks(flow, owners, M):
    y = randn(flow.field.features, seed=3)
    full = torch.autograd.functional.jacobian(flow, y)
    return blocks(full, owners, owners, M)


def flows(seed, layers):
    g = generator(seed)
    M = int(torch.randint(3, 7, (), generator=g))
    links = torch.rand(M, M, generator=g) < 0.2
    sizes = tuple(torch.randint(1, 3, (M,), generator=g).tolist())
    graph = lv.Graph(links, sizes, structure=torch.rand(M, M, generator=g) < 0.1)
    X = graph.constrain_structure(randn(sum(sizes), sum(sizes), seed=seed)).float()
    more = {"operator": graph, "init": lv.Normal(0.7), "generator": g}
    return [
        lv.zoo.h1(2 * sum(sizes), layers, 1.0, **more).double(),
        lv.zoo.h2(2 * sum(sizes), layers, 1.0, **more).double(),
        lv.zoo.h2(2 * sum(sizes), layers, 1.0, X=X, **more).double(),
        lv.Flow(lv.zoo.h2(2 * sum(sizes), layers, 1.0, **more).double().field, lv.Verlet(), 1.0),
    ]


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("seed", range(10))
def test_the_receptive_field_of_a_network_is_its_jacobians(seed, layers):
    for flow in flows(seed, layers):
        graph = flow.field.operator
        result = check(torch.ones(graph.nodes, graph.nodes), flow)
        owners = graph.owners(flow.field.features)
        assert torch.equal(result.receptive[-1], layer_blocks(flow, owners, graph.nodes))
        assert len(result.receptive) == layers + 1
        assert torch.equal(result.receptive[0], torch.eye(graph.nodes, dtype=torch.bool))


def test_a_structure_per_layer_is_checked_layer_by_layer():
    graph = lv.Graph([(0, 1), (1, 2)], structure=torch.ones(3, 3))
    J = torch.zeros(3, 6, 6)
    J[:, 0, 3], J[:, 3, 0] = -1, 1
    J[1, 0, 5], J[1, 5, 0] = 1, -1  # layer 1 alone couples nodes 0 and 2
    flow = lv.zoo.h1(6, 3, 1.0, J=J, operator=graph)
    layers = {v.layer for v in check([(0, 1), (1, 2)], flow, "owner-computes").violations}
    assert layers == {1}
    trained = lv.zoo.h1(6, 3, 1.0, J=J, train_J=True, operator=graph)  # whose J may become anything within T
    assert {v.layer for v in check([(0, 1), (1, 2)], trained, "owner-computes").violations} == {None}


def test_the_ring_of_eight_needs_two_hops_replicated_and_itself_with_owners():
    flow = lv.zoo.h2(16, 4, 2.0, operator=lv.Graph(RING))
    assert check(RING, flow, "owner-computes").holds
    assert check(TWO_HOPS, flow, "replicated").holds
    result = check(RING, flow, "replicated")
    assert not result.holds
    assert str(result.violations[0]) == (
        "node 0 needs the state of node 2, which is 2 hops away, in every layer's forward pass"
    )
    assert check(RING, flow, "owner-computes").exchanges == (4,) * 4
    assert check(TWO_HOPS, flow, "replicated").exchanges == (2,) * 4
    # one half-step reaches 2 hops, one layer 4: the whole ring
    assert result.hops == (4,) * 4
    assert result.everywhere == 1
    assert check(TWO_HOPS, flow).hops == (2,) * 4


def test_the_sentence_of_a_violation():
    R = torch.tensor(adjacency([(i, i + 1) for i in range(8)]))
    one_way = torch.eye(9, dtype=torch.bool)
    far = torch.eye(9, dtype=torch.bool)
    far[3, 7] = True
    layers = [GeneralPattern(one_way, one_way)] * 4 + [GeneralPattern(far, one_way)]
    sentences = [str(v) for v in check(R, layers).violations]
    assert "node 3 needs the state of node 7, which is 4 hops away, in layer 4's backward pass" in sentences
    two = adjacency([(0, 1), (2, 3), *((i, i + 1) for i in range(3, 8))])
    cut = check(two, [*layers, GeneralPattern(torch.ones(9, 9), one_way)]).violations
    assert any("node 0 needs the state of node 8, which no path of the graph reaches" in str(v) for v in cut)


@pytest.mark.parametrize("protocol", ["replicated", "owner-computes"])
@pytest.mark.parametrize("seed", range(40))
def test_a_derived_mask_fits_its_graph(seed, protocol):
    g = generator(seed)
    M = int(torch.randint(1, 10, (), generator=g))
    S = torch.rand(M, M, generator=g) < 0.5
    S = S | S.mT if seed % 2 else S
    R = torch.tensor(derived_mask(S, protocol))
    eye = torch.eye(M, dtype=torch.bool)
    assert check(S, SeparablePattern(R, R, eye), protocol).holds
    assert check(S, GeneralPattern(R, eye), protocol).holds
    assert R.diagonal().all()
    for i, k in (S & S.mT & ~R).nonzero().tolist():  # it is as large as it can be, link by link
        more = R.clone()
        more[i, k] = True
        assert not check(S, GeneralPattern(more, eye), protocol).holds


def test_derived_masks_of_the_paper_s_ring():
    ring = adjacency(RING)
    assert derived_mask(RING, "owner-computes") == ring
    assert derived_mask(TWO_HOPS, "replicated") == ring


def test_hops_of_a_layer_are_distances_in_the_communication_graph():
    path = [(i, i + 1) for i in range(6)]
    flow = lv.zoo.h1(14, 2, 1.0, operator=lv.Graph(path))
    result = check(path, flow, "owner-computes")
    assert result.hops == (2, 2)
    assert [int(f[0].sum()) for f in result.receptive] == [1, 3, 5]
    assert result.everywhere is None
    assert int(distances(adjacency(path))[0, 6]) == 6
    assert "nodes that a node depends on, by depth: 1, 3-5, 5-7" in str(result)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: check(RING, GeneralPattern(torch.eye(3), torch.eye(3))), "8 x 8 matrix; got shape .3, 3."),
        (lambda: check(RING, lv.zoo.h2(16, 2, 1.0)), "Graph as operator, got SeparableHamiltonianField with Dense"),
        (lambda: check(RING, lv.zoo.ms2(8, 2, 1.0, operator=lv.Graph(RING))), "got AntisymmetricField"),
        (lambda: check(RING, []), "expected a Flow"),
        (lambda: check(RING, GeneralPattern(torch.eye(8), torch.eye(8)), "owner"), "did you mean 'owner-computes'"),
        (lambda: derived_mask(RING, "x"), "unknown protocol"),
        (
            lambda: check(RING, lv.Flow(lv.HamiltonianField(16, 2, operator=lv.Graph(RING)), lv.RK4(), 1.0)),
            "RK4 on HamiltonianField has no exchange pattern",
        ),
    ],
)
def test_errors_say_what_to_give(call, message):
    with pytest.raises(ValueError, match=message):
        call()
