"""One graph, whatever it comes from; and block-sparse operators: a masked matrix whose outside is zero and stays so."""

import pytest
import torch

import liouville as lv
import samples
from liouville.graphs import adjacency, distances
from measure import EPS, near, randn

networkx = pytest.importorskip("networkx")

RING = [(i, (i + 1) % 5) for i in range(5)]


def random_matrix(M, seed, density=0.4):
    return torch.rand(M, M, generator=torch.Generator().manual_seed(seed)) < density


def sources(tmp_path):
    """The same ring of five in every way that a graph can be given."""
    ring = networkx.cycle_graph(5)
    networkx.write_graphml(ring, tmp_path / "ring.graphml")
    (tmp_path / "ring.txt").write_text("# a ring\n" + "\n".join(f"{i}, {k}" for i, k in RING))
    matrix = torch.tensor(networkx.to_numpy_array(ring))
    return [
        ring,
        RING,
        set(RING),
        tmp_path / "ring.graphml",
        str(tmp_path / "ring.txt"),
        matrix,
        matrix.numpy(),
        matrix.long().tolist(),
        networkx.relabel_nodes(ring, dict(enumerate("edcba"))),  # nodes in the order in which they come
        networkx.relabel_nodes(ring, {i: str(i) for i in (3, 4, 0, 1, 2)}),
    ]


def test_every_source_of_a_graph_gives_the_same_pattern(tmp_path):
    patterns = [adjacency(source) for source in sources(tmp_path)]
    assert all(p == patterns[0] for p in patterns)
    assert sum(map(sum, patterns[0])) == 5 + 2 * 5
    assert adjacency(patterns[0]) == patterns[0]


def test_names_that_are_numbers_number_the_nodes():
    graph = networkx.Graph([("2", "0"), ("0", "1")])
    assert adjacency(graph) == adjacency([(2, 0), (0, 1)])


def test_an_edge_of_a_directed_graph_carries_messages_one_way():
    S = adjacency(networkx.DiGraph([(0, 1), (1, 2)]))
    assert S == ((True, False, False), (True, True, False), (False, True, True))
    assert adjacency(torch.tensor([[0, 0, 0], [1, 0, 0], [0, 2.5, 0]])) == S


@pytest.mark.parametrize("seed", range(5))
def test_distances_are_networkx_shortest_paths(seed):
    S = random_matrix(9, seed, density=0.15)
    graph = networkx.from_numpy_array(S.mT.numpy(), create_using=networkx.DiGraph)  # k -> i
    lengths = dict(networkx.all_pairs_shortest_path_length(graph))
    hops = distances(adjacency(S))
    assert all(hops[i, k] == lengths[k].get(i, -1) for i in range(9) for k in range(9))
    assert -1 in hops


@pytest.mark.parametrize(
    "source, message",
    [
        (torch.ones(2, 3), "square, got shape .2, 3."),
        (torch.tensor([[0.0, float("nan")], [1.0, 0.0]]), "nan"),
        (3.5, "square"),
        ([], "square"),
        (torch.zeros(0, 0), "1 to 4096 nodes, got 0"),
        ([(0, -1)], "numbered 0 to 4095, got -1"),
        ({"a": 1}, "from a dict"),
        ([[0, 1, 1], [1, 0]], "from a list"),
    ],
)
def test_what_is_no_graph_is_refused_in_one_sentence(source, message):
    with pytest.raises(ValueError, match=message):
        adjacency(source)


def test_files_that_are_no_graphs_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no graph file"):
        adjacency(tmp_path / "none.graphml")
    for name, text, message in (
        ("a.graphml", "<graph", "GraphML"),
        ("a.txt", "0 1\n2\n", "edge list"),
        ("b", "x y", "two"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(ValueError, match=message):
            adjacency(tmp_path / name)


# --- the operator


@pytest.mark.parametrize("seed", range(20))
def test_graph_is_masked_dense(seed):
    """apply, transpose and norm of the constrained weight are those of the matrix masked entry by entry."""
    M = 2 + seed % 4
    links, sizes = random_matrix(M, seed), [1 + (seed + i) % 3 for i in range(M)]
    operator = lv.Graph(links, sizes)
    m, n = sum(sizes), 2 * sum(sizes)
    raw, y, z = randn(4, m, n, seed=seed), randn(3, n, seed=seed + 1), randn(3, m, seed=seed + 2)
    owner = [i for i, s in enumerate(sizes) for _ in range(s)] * 2
    keep = links | torch.eye(M, dtype=torch.bool)
    masked = raw * torch.tensor([[float(keep[owner[r], owner[c]]) for c in range(n)] for r in range(m)])
    K = operator.constrain(raw)
    assert torch.equal(K, masked)
    assert torch.equal(operator.blocks(K), keep)
    assert torch.equal(operator.owners(n), torch.tensor(owner))
    for K_j, masked_j in zip(K, masked, strict=True):
        assert torch.equal(operator.apply(K_j, y), lv.Dense().apply(masked_j, y))
        assert torch.equal(operator.apply_transpose(K_j, z), lv.Dense().apply_transpose(masked_j, z))


GRAPH_FIELDS = [name for name in samples.FIELDS if "graph" in name]


def masks(field):
    """Of every raw weight, which entries the graph keeps."""
    for name, raw in field.named_parameters():
        if name[0] in "KCW":
            yield raw, field.operator.constrain(torch.ones_like(raw)) > 0


@pytest.mark.parametrize("name", GRAPH_FIELDS)
@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW])
def test_what_lies_outside_the_mask_is_zero_and_stays_so(name, optimizer):
    field = samples.field(name)
    flow = lv.Flow(field, lv.SymplecticEuler() if isinstance(field, lv.PartitionedField) else lv.ForwardEuler(), 0.9)
    start = {name: w.detach().clone() for name, w in field.named_parameters()}
    stepper = optimizer(field.parameters(), lr=0.05)
    for step in range(3):
        stepper.zero_grad()
        flow(samples.inputs(field, seed=step)).square().sum().backward()
        for raw, keep in masks(field):
            assert (raw.grad[~keep] == 0).all() and (raw[~keep] == 0).all()
        stepper.step()
    for raw, keep in masks(field):
        assert (raw[~keep] == 0).all()
        assert (~keep).any() and (raw[keep] != 0).all()
    assert all(not torch.equal(w, start[name]) for name, w in field.named_parameters())


@pytest.mark.parametrize("name", GRAPH_FIELDS)
def test_a_number_outside_the_mask_reaches_nothing(name):
    """Not even one that is not finite: a raw weight from elsewhere may have anything there."""
    field, dirty = samples.field(name), samples.field(name)
    with torch.no_grad():
        for raw, keep in masks(dirty):
            raw[~keep] = torch.inf
    for clean, masked in zip(field.theta(), dirty.theta(), strict=True):
        assert torch.equal(clean, masked)


def test_a_trained_structure_stays_between_the_nodes_that_it_may_couple():
    field = lv.HamiltonianField(8, 3, operator=samples.PATH, train_J=True).double()
    with torch.no_grad():
        field.J_raw.copy_(randn(*field.J_raw.shape))
    J = field.theta().J
    assert torch.equal(J, -J.mT)
    assert torch.equal(field.operator.blocks(J), torch.eye(3, dtype=torch.bool))
    everyone = lv.Graph(samples.PATH.links, (1, 2, 1), structure=torch.ones(3, 3))
    wider = lv.HamiltonianField(8, 3, J="full", operator=everyone)
    assert wider.operator.blocks(wider.J).all()


def test_canonical_structure_couples_no_two_nodes():
    field = samples.field("hamiltonian-graph")
    assert torch.equal(field.operator.blocks(lv.HamiltonianField(8, 1).J), torch.eye(3, dtype=torch.bool))


@pytest.mark.parametrize(
    "scheme, name", [("SymplecticEuler", "separable-graph"), ("ForwardEuler", "hamiltonian-graph")]
)
def test_the_native_kernel_runs_a_graph_as_the_masked_matrix(scheme, name):
    flow, x = samples.flow(scheme, name), samples.inputs(samples.field(name))
    with torch.no_grad():  # entries outside the mask must not reach the kernel either
        for raw, keep in masks(flow.field):
            raw[~keep] = 1.0
    results = []
    for engine in (lv.Stored(), lv.Fused()):
        flow.zero_grad()
        out = flow.with_backprop(engine)(x)
        out.square().sum().backward()
        results.append([out.detach(), *(w.grad.clone() for w in flow.parameters())])
    for stored, fused in zip(*results, strict=True):
        # a sum of at most 16 products per layer, forwards and backwards, and growth below 100
        near(fused, stored, 100 * EPS * 16 * 2 * samples.N * float(stored.abs().max() + 1))
    for raw, keep in masks(flow.field):
        assert (raw.grad[~keep] == 0).all()


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: lv.Graph(RING, sizes=(1, 2)), "one for each of the 5 nodes; got .1, 2."),
        (lambda: lv.Graph(RING, sizes=0), "positive"),
        (lambda: lv.Graph(RING, structure=[(0, 1)]), "same 5 nodes as links, got 2"),
        (lambda: lv.zoo.h2(8, 2, 1.0, operator=lv.Graph(RING)), "multiple of 5.*got 4"),
        (lambda: lv.zoo.h1(10, 2, 1.0, J="full", operator=lv.Graph(RING)), "J couples node 0 with node 1"),
        (lambda: lv.zoo.h2(10, 2, 1.0, X=torch.ones(5, 5), operator=lv.Graph(RING)), "X couples node 0 with node 1"),
    ],
)
def test_errors_of_the_operator_say_what_to_do(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_the_description_names_nodes_and_links():
    assert repr(lv.Graph(RING, sizes=2)) == "Graph(5 nodes, 10 links, sizes=2)"
    assert "Graph(5 nodes" in repr(lv.zoo.h2(10, 2, 1.0, operator=lv.Graph(RING)))
