"""Outputs that belong to nodes: what they depend on, exactly; and spread networks as files."""

import pytest
import torch
from torch import nn

import liouville as lv
from agents import processes
from agents.test_agents import TOLERANCE, central, with_two_hops
from liouville.agents import Placement, Simulation, check, node_part, spread, to_central, together

LINE = [(i, i + 1) for i in range(11)]


def line(layers, protocol="owner-computes", dtype=torch.float64, model="h2"):
    """12 nodes in a line, each with 2 inputs, to p and to q, and an output of its own."""
    operator = lv.Graph(LINE, 2)
    g = torch.Generator().manual_seed(layers)
    flow = getattr(lv.zoo, model)(48, layers, 0.5 * layers, operator=operator, generator=g)
    places = tuple(2 * i + k for i in range(12) for k in (0, 24))
    network = lv.Network(lv.Lift(48, 24, place=places), flow, lv.NodeHead(operator, 48)).to(dtype)
    network.placement = Placement(LINE if protocol == "owner-computes" else with_two_hops(LINE), protocol)
    return network, torch.randn(7, 24, generator=g, dtype=dtype)


@pytest.mark.parametrize("model", ["h1", "h2"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("protocol", ["owner-computes", "replicated"])
def test_an_output_depends_on_no_input_beyond_its_hops_bit_for_bit(model, dtype, protocol):
    """And on every one within them, so that the bound is exact. To a spread network a far input may even be NaN."""
    network, x = line(2, protocol, dtype, model)
    found = check(network.placement.graph, network.body, protocol)
    near = found.receptive[-1]
    assert not near.all() and near.sum() > 12
    local, parts = spread(network), [node_part(network, i) for i in range(12)]
    for k in range(12):
        moved, lost = x.clone(), x.clone()
        moved[:, 2 * k : 2 * k + 2] += 1
        lost[:, 2 * k : 2 * k + 2] = torch.nan
        for run in (network, local, lambda x: together(parts, x)):
            before, after = run(x), run(moved)
            changed = (before != after).any(0)
            assert changed[k] and not changed[~near[:, k]].any()
        for run in (local, lambda x: together(parts, x)):
            before, after = run(x), run(lost)
            assert torch.equal(before[:, ~near[:, k]], after[:, ~near[:, k]])
            assert after[:, near[:, k]].isnan().all()


def test_a_head_that_mixes_nodes_breaks_the_law():
    """The test above can fail."""
    network, x = line(1)
    network.head = nn.Linear(48, 12).double()
    moved = x.clone()
    moved[:, -1] += 1
    assert (network(x) != network(moved)).all()


def test_the_mask_of_the_head_keeps_its_zeros_in_training():
    network, x = line(1)
    outside = ~network.head.mask
    assert (network.head.weight[outside] == 0).all()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.1)
    network(x).square().mean().backward()
    assert (network.head.weight.grad[outside] == 0).all()
    optimizer.step()
    assert (network.head.weight[outside] == 0).all()


def test_a_spread_network_with_outputs_of_nodes_learns_what_the_central_one_learns():
    network, x = line(2)
    local = spread(network)
    for of in (network, local):
        of(x).sin().sum().backward()
    twin, _ = line(2)
    for w in twin.parameters():
        w.grad = torch.zeros_like(w)
    to_central(local, twin, gradients=True)
    for one, other in zip(network.parameters(), twin.parameters(), strict=True):
        assert (one.grad - other.grad).abs().max() <= TOLERANCE * one.grad.abs().max()


@pytest.mark.parametrize("number", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_processes_have_the_outputs_of_their_nodes(number, tmp_path):
    of = {"R": "line", "S": LINE[:5], "model": "h2", "protocol": "owner-computes", "consensus": "gossip"}
    of |= {"R": LINE[:5], "layers": 3, "sizes": 1, "outputs": (4, 0, 4, 1)}
    codes, logs = processes.run({"cases": [of]}, number, tmp_path)
    assert codes == [0] * number, logs
    ranks = [torch.load(tmp_path / f"{rank}.pt")[0] for rank in range(number)]
    expected, gradients = central(of)
    found = torch.full_like(expected, torch.nan)
    for rank in ranks:
        found[:, rank["outputs"]] = rank["scores"]
    assert (found - expected).abs().max() <= TOLERANCE * expected.abs().max()
    for name, whole in gradients.items():
        shares = torch.stack([rank["gradients"][name] for rank in ranks])
        assert (shares.nan_to_num().sum(0) - whole).abs().max() <= TOLERANCE * whole.abs().max()


def test_hosted_nodes_take_their_own_inputs():
    network, x = line(1)
    exchange = Simulation(LINE)
    exchange.hosted = (3, 4)  # what another process would have; it cannot run, but it can lift
    local = spread(network, exchange)
    assert local.lift.inputs.tolist() == [6, 7, 8, 9]
    assert torch.equal(local.lift(x[:, 6:10]), local.lift(x))
    with pytest.raises(ValueError, match="2 of 12 nodes, and a file holds them all"):
        lv.save(local, "nowhere.safetensors")


@pytest.mark.parametrize("head", ["nodes", "sum", "features"])
def test_a_spread_network_is_a_file_and_back_in_another_process(head, tmp_path):
    network, x = line(2)
    made = {"nodes": network.head, "sum": nn.Linear(48, 3).double(), "features": nn.Identity()}[head]
    network.head = made
    named = [(f"tank {i}", f"tank {k}") for i, k in LINE]
    network.placement = Placement(named)
    network.body.field.operator = lv.Graph(named, 2)
    if head == "nodes":
        network.head.operator = network.body.field.operator
    local = spread(network)
    path = lv.save(local, tmp_path / "local.safetensors")
    again = lv.load(path)
    assert torch.equal(again(x), local(x)) and again.placement.graph.names == tuple(f"tank {i}" for i in range(12))
    assert torch.equal(again.central()(x), network(x))
    loaded = lv.load(lv.save(network, tmp_path / "central.safetensors"))
    assert loaded.placement == network.placement and loaded.body.field.operator.links.names[1] == "tank 1"
    assert torch.equal(spread(loaded)(x), local(x))


def test_a_flow_by_itself_is_spread_saved_and_loaded(tmp_path):
    flow = line(2)[0].body
    y = torch.randn(3, 48, dtype=torch.float64)
    local = spread(flow, Simulation(LINE))
    assert (local(y) - flow(y)).abs().max() <= TOLERANCE
    assert torch.equal(lv.load(lv.save(local, tmp_path / "flow.safetensors"))(y), local(y))
    with pytest.raises(ValueError, match="does not say who talks to whom: give an exchange"):
        spread(flow)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda of: lv.NodeHead(of.body.field.operator, 48, outputs=()), "a head needs an output"),
        (lambda of: lv.NodeHead(of.body.field.operator, 48, outputs=(12,)), "no node 12; its nodes are numbered 0"),
        (lambda of: lv.NodeHead(of.body.field.operator, 47), "every width is a multiple of 24"),
        (lambda of: lv.NodeHead(lv.Graph([("tank", "pump")]), 4, ("tnk",)), "did you mean 'tank'"),
        (lambda of: spread(nn.Linear(2, 2), Simulation(LINE)), "got Linear; put its parts into a Network"),
        (lambda of: Placement(LINE, "everybody"), "unknown protocol 'everybody'"),
    ],
)
def test_errors_say_what_to_do(make, message):
    with pytest.raises(ValueError, match=message):
        make(line(1)[0])


def test_a_head_of_another_graph_is_refused():
    network, _ = line(1)
    network.head = lv.NodeHead(lv.Graph([(0, 1)], 12), 48)
    with pytest.raises(ValueError, match="the head is for 48 features on"):
        spread(network)
