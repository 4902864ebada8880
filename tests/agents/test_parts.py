"""One node's part of a network: all of them together are the network, also from their files and by onnxruntime."""

import json
import math

import pytest
import torch
from torch import nn

import liouville as lv
from agents.test_agents import GRAPHS, SIZES, with_two_hops
from liouville.agents import Placement, export_node, node_part, read_part, spread, together

NODES, N = 8, 5


def network(model="h2", protocol="owner-computes", head="nodes", scheme=None, dtype=torch.float64, graph="random"):
    g = torch.Generator().manual_seed(3)
    operator = lv.Graph(GRAPHS[graph], SIZES)
    n = 2 * operator.total
    flow = getattr(lv.zoo, model)(n, N, 1.0, operator=operator, init=lv.Smooth(bias_scale=0.3), generator=g)
    if scheme is not None:
        flow = lv.Flow(flow.field, scheme, 1.0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        heads = {
            "nodes": lambda: lv.NodeHead(operator, n, outputs=(3, 0, 7, 3, 5)),
            "one": lambda: lv.NodeHead(operator, n, outputs=(2,), bias=False),
            "sum": lambda: nn.Linear(n, 3),
            "features": nn.Identity,
        }
        made = lv.Network(lv.Lift(n, 5, place=(0, 3, 10, n - 1, 4), scale=0.7), flow, heads[head]()).to(dtype)
    graph = GRAPHS[graph]
    made.placement = Placement(graph if protocol == "owner-computes" else with_two_hops(graph), protocol)
    return made, torch.randn(6, 5, generator=g, dtype=dtype)


CASES = [
    *((m, p, h, None) for m in ("h1", "h2") for p in ("owner-computes", "replicated") for h in ("nodes", "sum")),
    ("h2", "owner-computes", "features", None),
    ("h2", "owner-computes", "one", lv.Verlet()),
]


def rounding(of):
    """Of a state after N layers of sums of at most all features: eps times their number, and what a norm can grow."""
    return torch.finfo(torch.float64).eps * N * of.body.field.features * 10


@pytest.mark.parametrize("case", CASES, ids=str)
def test_all_parts_from_their_files_are_the_central_network(case, tmp_path):
    of, x = network(*case)
    for i in range(NODES):
        export_node(of, i, tmp_path / str(i), onnx=False)
    parts = [read_part(tmp_path / str(i)) for i in reversed(range(NODES))]
    expected = of(x)
    assert (together(parts, x) - expected).abs().max() <= rounding(of) * expected.abs().max()
    weight = parts[3].rounds[0].weight  # the comparison can fail
    setattr(parts[3], weight, 1.01 * getattr(parts[3], weight))
    assert (together(parts, x) - expected).abs().max() > 1e-6 * expected.abs().max()


class ByOnnx:
    """A part that computes by its ONNX files, and knows of its node what the table says."""

    def __init__(self, folder):
        onnxruntime = pytest.importorskip("onnxruntime")
        table = json.loads((folder / "node.json").read_text())
        part = read_part(folder)
        self.node, self.rounds, self.layers = table["node"], part.rounds, table["layers"]
        self.inputs, self.outputs, self.message, self.bias = part.inputs, part.outputs, part.message, part.bias
        self._sessions = {
            path.stem: onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
            for path in folder.glob("*.onnx")
        }

    def _run(self, name, *inputs):
        session = self._sessions[name]
        given = {known.name: value.numpy() for known, value in zip(session.get_inputs(), inputs, strict=True)}
        return torch.from_numpy(session.run(None, given)[0])

    def start(self, x):
        return self._run("start", x)

    def force(self, k, layer, received):
        return self._run(f"force-{k}", layer, received)

    def move(self, k, y, shares):
        return self._run(f"move-{k}", y, shares)

    def readout(self, y):
        return self._run("readout", y)


@pytest.mark.parametrize(
    "case", [("h2", "owner-computes", "nodes"), *(pytest.param(c[:3], marks=pytest.mark.slow) for c in CASES[:8])]
)
def test_onnxruntime_computes_what_the_network_does(case, tmp_path):
    pytest.importorskip("onnx")
    of, x = network(*case, dtype=torch.float32, graph="ring")
    for i in range(NODES):
        export_node(of, i, tmp_path / str(i))
    parts = [ByOnnx(tmp_path / str(i)) for i in range(NODES)]
    with torch.no_grad():
        for batch in (x, x[:1]):
            expected = of(batch)
            assert (together(parts, batch) - expected).abs().max() <= 1e-6 * max(1, float(expected.abs().max()))


def test_the_table_tells_names_neighbours_and_scaling(tmp_path):
    line = [("tank", "pump"), ("pump", "valve")]
    operator = lv.Graph(line, 2)
    of = lv.Network(
        lv.Lift(12, 3, place=(0, 2, 1)), lv.zoo.h2(12, 2, 1.0, operator=operator), lv.NodeHead(operator, 12)
    )
    of.placement = Placement(line)
    of.facts = lv.facts.Facts(
        "tanks", (3,), 0, 3, column_names=("level", "flow", "heat"), offset=(1.0, 2.0, 3.0), scale=2.0,
        target_offset=(0.5, 1.5, 2.5), target_scale=4.0, targets=("u", "v", "w"),
    )  # fmt: skip
    part = export_node(of, "tank", tmp_path, onnx=False)
    table = json.loads((tmp_path / "node.json").read_text())
    assert (table["name"], table["inputs"], table["outputs"]) == ("tank", [0, 2], [0])
    assert table["about"]["inputs"][1] == {"name": "heat", "offset": 3.0, "scale": 2.0}
    assert table["about"]["outputs"] == [{"name": "u", "offset": 0.5, "scale": 4.0}]
    first = table["rounds"][0]
    assert (first["moves"], first["send"], first["receive"]) == ("p", [1], [[0, 2], [1, 2]])
    assert math.isclose(first["step"], 0.5) and part.rounds[1].collect == (0, 1)
    assert node_part(spread(of), 0).rounds == part.rounds


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda f: (f / "node.json").unlink(), "has no node.json"),
        (lambda f: (f / "node.json").write_text("{}"), "node.json is damaged"),
        (lambda f: (f / "weights.safetensors").write_bytes(b"x"), "cannot be read"),
    ],
)
def test_damaged_exports_are_refused_in_a_sentence(spoil, message, tmp_path):
    of, _ = network()
    export_node(of, 1, tmp_path, onnx=False)
    spoil(tmp_path)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        read_part(tmp_path)


def test_what_cannot_be_cut_is_refused_in_a_sentence():
    of, x = network()
    with pytest.raises(ValueError, match=r"the graph has no node 9; its nodes are numbered 0 to 7"):
        node_part(of, 9)
    with pytest.raises(ValueError, match="the part of node 1 is missing"):
        together([node_part(of, i) for i in (0, 2, 3, 4, 5, 6, 7)], x)
    of.lift = lv.Lift(of.body.field.features)
    with pytest.raises(ValueError, match="the lift takes any number of inputs"):
        node_part(of, 0)
    of.placement = None
    with pytest.raises(ValueError, match="does not say who talks to whom"):
        node_part(of, 0)
