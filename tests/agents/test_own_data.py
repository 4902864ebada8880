"""``liouville agents`` on a table of one's own: which column is whose, and the run folder that it leaves."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import liouville as lv
from liouville.__main__ import main
from liouville.agents import Simulation, check, spread
from liouville.graphs import adjacency
from liouville.runs import Run
from liouville.runs.mapping import node_of_column

pytest.importorskip("click")
pandas = pytest.importorskip("pandas")
pytest.importorskip("sklearn")

NODES = [f"tank {i}" for i in range(4)]
LINE = "source,target\n" + "\n".join(f"{a},{b}" for a, b in itertools.pairwise(NODES)) + "\n"
WORDS = ("--layers", "1", "--epochs", "2", "--batch-size", "20", "--no-figures")


def frame(rows=60, seed=0):
    """level and flow at each tank; u is made of its own and its neighbour's level."""
    g = torch.Generator().manual_seed(seed)
    level, flow = torch.randn(2, rows, 4, generator=g, dtype=torch.float64)
    u = torch.tanh(level) + 0.3 * level.roll(1, 1)
    parts = {f"{n}.{what}": v[:, i].tolist() for what, v in (("level", level), ("flow", flow), ("u", u)) for i, n in
             enumerate(NODES)}  # fmt: skip
    return pandas.DataFrame(parts)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("tanks.csv").write_text(LINE)
    frame().to_csv("data.csv", index=False)
    return tmp_path


@pytest.fixture
def call(here, capsys):
    def run(*words):
        code = main([*map(str, words)])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def agents(call, *words, data="data.csv", graph="tanks.csv"):
    return call("agents", "--graph", graph, "--data", data, *WORDS, *words)


def test_a_run_is_a_run_like_any_other(call, here):
    code, said, _ = agents(call, "--target", "u", "--out", "runs/one")
    assert code == 0 and "outputs of nodes, which take no message" in said and "tank 3.u" in said
    names = {path.name for path in Path("runs/one").iterdir() if path.is_file() and not path.name.startswith("node-")}
    assert names == {
        "config.json", "history.jsonl", "metrics.json", "model.safetensors", "certificate.json", "locality.json"
    }  # fmt: skip
    assert len(list(Path("runs/one").glob("node-*"))) == 8
    run = Run.open("runs/one")
    assert run.finished and [r["epoch"] for r in run.history()] == [1, 2] and run.metrics["test_r2"] <= 1
    assert json.loads(Path("runs/one/certificate.json").read_text())["holds"]
    local = json.loads(Path("runs/one/locality.json").read_text())
    assert local["exchanges"] == 4 and local["nodes"][0]["outputs"] == ["tank 0.u"]
    assert local["nodes"][1]["hears"] == ["tank 0", "tank 2"]
    assert call("check", "runs/one")[0] == 0
    assert "h2, 4 nodes" in call("list", "runs", "runs")[1]

    network = lv.load("runs/one/model.safetensors")
    assert network.placement.graph.names == tuple(NODES) and network.body.field.operator.links.names == tuple(NODES)
    assert network.head.outputs == (0, 1, 2, 3) and network.lift.place == (0, 2, 4, 6, 1, 3, 5, 7)
    x = torch.randn(5, 8)
    assert torch.allclose(spread(network)(x), network(x), atol=1e-5)


def test_predict_finds_columns_by_their_names(call, here):
    assert agents(call, "--target", "u", "--out", "one")[0] == 0
    plain = call("predict", "one", "data.csv")[1]
    shuffled = frame()[list(reversed(frame().columns))]
    shuffled.insert(0, "id", range(60))
    shuffled.to_csv("shuffled.csv", index=False)
    code, said, _ = call("predict", "one", "shuffled.csv")
    assert code == 0 and said == plain and plain.startswith("prediction_tank 0.u,prediction_tank 1.u,")
    frame().drop(columns="tank 2.flow").to_csv("lacking.csv", index=False)
    code, _, err = call("predict", "one", "lacking.csv")
    assert code == 2 and "lacks tank 2.flow" in err


def test_one_node_is_exported_by_its_name(call, here):
    pytest.importorskip("onnx")
    assert agents(call, "--target", "u", "--out", "one")[0] == 0
    code, said, _ = call("agents", "--export-node", "tank 1", "one")
    assert code == 0 and "hears tank 0, tank 2" in said
    table = json.loads(Path("one/nodes/node-1/node.json").read_text())
    assert [each["name"] for each in table["about"]["inputs"]] == ["tank 1.level", "tank 1.flow"]
    assert table["about"]["outputs"][0]["name"] == "tank 1.u"
    assert (Path("one/nodes/node-1") / "force-0.onnx").is_file()
    for words, message in (
        (("--export-node", "tank 9", "one"), "the graph has no node 'tank 9'; did you mean 'tank"),
        (("--export-node", "tank 1"), "liouville agents --export-node NAME RUN"),
        (("one",), "liouville agents --export-node NAME RUN"),
        (("--export-node", "tank 1", "nowhere"), "there is no run folder or model file nowhere"),
    ):
        code, _, err = call("agents", *words)
        assert code == 2 and message in err and err.count("\n") == 1


def test_a_map_says_which_column_is_whose(call, here):
    plain = frame().rename(columns=lambda name: name.replace("tank ", "t").replace(".", ""))
    plain.to_csv("plain.csv", index=False)
    rows = [f"{name},{NODES[int(name[1])]}" for name in plain.columns]
    Path("map.csv").write_text("column,node\n" + "\n".join(rows) + "\n")
    words = ("--target", "t0u", "--target", "t2u", "--id", "t1u", "--id", "t3u", "--map", "map.csv", "--out", "one")
    assert agents(call, *words, data="plain.csv")[0] == 0
    network = Run.open("one").network()
    assert network.head.outputs == (0, 2) and network.facts.targets == ("t0u", "t2u")

    for content, message in (
        ("column,node\nt0u,tank 7\n", "map.csv, line 2: the graph has no node 'tank 7'; did you mean"),
        ("column,node\nt9u,tank 1\n", "data.csv has no column 't9u'"),
        ("column,node\nt0u,tank 1\nt0u,tank 2\n", "'t0u' stands here twice"),
        ("name,node\nt0u,tank 1\n", "needs the columns 'column' and 'node'"),
        ("\n".join(("column,node", *rows[1:])), "t0level belongs to no node of the graph; add it to map.csv"),
    ):
        Path("map.csv").write_text(content)
        code, _, err = agents(call, *words[:-2], data="plain.csv")
        assert code == 2 and message.replace("data.csv", "plain.csv") in err and err.count("\n") == 1


def test_classes_at_one_node_and_targets_that_all_nodes_know(call, here):
    table = frame()
    table["tank 2.alarm"] = ["high" if v > 0 else "low" for v in table["tank 0.level"]]
    table["leak"] = ["yes" if v > 0 else "no" for v in table["tank 1.flow"]]
    ids = [word for n in NODES for word in ("--id", f"{n}.u")]
    table.drop(columns="leak").to_csv("local.csv", index=False)
    assert agents(call, "--target", "tank 2.alarm", *ids, "--out", "local", data="local.csv")[0] == 0
    network = Run.open("local").network()
    assert network.head.outputs == (2,) and network.facts.label_names == ("high", "low")
    assert set(call("predict", "local", "local.csv")[1].split()) == {"prediction", "high", "low"}
    table.drop(columns="tank 2.alarm").to_csv("all.csv", index=False)
    code, said, _ = agents(call, "--target", "leak", *ids, "--out", "all", data="all.csv")
    assert code == 0 and "rounds for the head's sum (gossip)" in said and "test accuracy" in said
    assert isinstance(Run.open("all").network().head, torch.nn.Linear)
    code, _, err = agents(call, "--target", "leak", "--target", "tank 1.u", *ids[:2], *ids[4:], data="all.csv")
    assert code == 2 and "'tank 1.u' belongs to a node and 'leak' to none" in err


def spoiled(**columns):
    return frame().assign(**columns)


@pytest.mark.parametrize(
    "data, words, message",
    [
        (lambda: frame(), (), "say what of data.csv to predict: --target COLUMN"),
        (lambda: frame(), ("--target", "v"), "and none is called NODE.v after a node of the graph, tank 0"),
        (lambda: frame().assign(weather=1.5), ("--target", "u"), "weather belongs to no node of the graph; call"),
        (lambda: frame().assign(**{"tank 0.u": float("nan")}), ("--target", "u"), "'tank 0.u' is empty in every row"),
        (lambda: frame().assign(**{"tank 0.u": ["a", "b"] * 30}), ("--target", "u"), "targets are all of one kind"),
        (lambda: frame(), ("--target", "u", "--sizes", "1", "--layers", "0"), "--layers must be positive"),
        (lambda: frame().assign(**{f"tank 1.{k}": frame(seed=k)["tank 0.u"] for k in (1, 2)}),
         ("--target", "u", "--sizes", "1"),
         "node tank 1 has 4 inputs and 2 features; give it more, --sizes 2 or above."),
        (lambda: frame().assign(**{"tank 1.level": float("inf")}), ("--target", "u"), "infinite"),
        (lambda: frame(), ("--target", "u", "--map", "nowhere.csv"), "there is no file nowhere.csv"),
        (lambda: frame(), ("--target", "u", "--target", "tank 0.u", "--id", "tank 0.u"), "--id leaves it out"),
    ],
)  # fmt: skip
def test_what_cannot_be_learned_is_refused_in_a_sentence(data, words, message, call):
    data().to_csv("data.csv", index=False)
    code, _, err = agents(call, *words)
    assert code == 2 and message in err and err.count("\n") == 1, err


def test_missing_values_are_filled_and_a_node_may_have_no_column(call, here):
    table = frame().drop(columns=["tank 3.level", "tank 3.flow", "tank 3.u"])
    table.loc[::7, "tank 1.flow"] = float("nan")
    table.to_csv("data.csv", index=False)
    code, _, err = agents(call, "--target", "u", "--out", "one")
    assert code == 0 and "node tank 3 has no input of its own, and passes on what neighbours send" in err
    network = Run.open("one").network()
    assert network.facts.preprocessing.features()[4:6] == ["tank 1.flow", "tank 1.flow is missing"]
    assert network.body.field.operator.sizes == (2, 3, 2, 2)


def test_outputs_of_nodes_need_no_connected_graph_and_one_node_is_a_graph(call, here):
    Path("apart.csv").write_text("source,target\ntank 0,tank 1\ntank 2,tank 3\n")
    assert agents(call, "--target", "u", "--out", "apart", graph="apart.csv")[0] == 0
    assert call("check", "apart")[0] == 0
    assert spread(Run.open("apart").network())(torch.randn(2, 8)).shape == (2, 4)
    Path("one.graphml").write_text('<graphml><graph edgedefault="undirected"><node id="tank 0"/></graph></graphml>')
    frame()[["tank 0.level", "tank 0.flow", "tank 0.u"]].to_csv("data.csv", index=False)
    code, said, err = agents(call, "--target", "u", "--out", "single", graph="one.graphml")
    assert code == 0, err
    assert "0 messages, 0 numbers" in said and call("check", "single")[0] == 0


def test_regression_of_a_known_data_set(call, here):
    Path("ring.txt").write_text("0 1\n1 2\n2 3\n3 0\n")
    code, said, _ = call("agents", "--graph", "ring.txt", "--data", "diabetes", "--sizes", 2, *WORDS, "--out", "one")
    assert code == 0 and "test r2 " in said and "head's sum" in said
    assert call("check", "one")[0] == 0


def test_a_run_goes_on_to_the_history_and_the_network_of_one_in_one_go(call, here):
    for name in ("whole", "parts"):
        assert agents(call, "--target", "u", "--out", name, "--dtype", "float64")[0] == 0
    for path in Path("parts").glob("*"):  # as if it had been killed after its first epoch
        if "epoch-2" in path.name or path.name in ("model.safetensors", "metrics.json", "certificate.json"):
            path.unlink()
    assert "interrupted" in call("list", "runs", ".")[1]
    code, _, err = call("check", "parts")
    assert code == 2 and "did not come to an end" in err
    Path("data.csv").rename("moved.csv")
    code, _, err = call("agents", "--resume", "parts")
    assert code == 2 and "is not there; move it back, or say where it is with --data FILE" in err
    code, _, err = call("agents", "--resume", "parts", "--lr", "1")
    assert code == 2 and "leave --lr out" in err
    assert call("agents", "--resume", "parts", "--data", "moved.csv", "--no-figures", "--quiet")[0] == 0
    whole, parts = Run.open("whole"), Run.open("parts")
    assert [{k: v for k, v in r.items() if k != "seconds"} for r in whole.history()] == [
        {k: v for k, v in r.items() if k != "seconds"} for r in parts.history()
    ]
    for one, other in zip(whole.network().parameters(), parts.network().parameters(), strict=True):
        assert torch.equal(one, other)
    for words in (("--resume", "whole"), ("--like", "whole")):
        code, _, err = call("train", *words)
        assert code == 2 and "is a run of agents" in err


def test_a_folder_of_something_else_is_left_alone(call, here):
    Path("mine").mkdir()
    Path("mine/notes.txt").write_text("mine")
    code, _, err = agents(call, "--target", "u", "--out", "mine")
    assert code == 2 and "mine exists already, and holds no training of agents" in err
    assert [path.name for path in Path("mine").iterdir()] == ["notes.txt"]


def test_an_edited_graph_is_noticed(call, here):
    assert agents(call, "--target", "u", "--out", "one")[0] == 0
    config = json.loads(Path("one/config.json").read_text())
    config["agents"]["graph"]["links"].append([0, 3])
    Path("one/config.json").write_text(json.dumps(config))
    code, said, _ = call("check", "one")
    assert code == 1 and "network.placement.graph[0][3]" in said
    config["agents"]["graph"]["nodes"] = "many"
    Path("one/config.json").write_text(json.dumps(config))
    code, _, err = call("agents", "--resume", "one")
    assert code == 2 and "graph.nodes must be" in err and err.count("\n") == 1


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="needs signals")
def test_a_run_that_is_killed_goes_on(call, here):
    words = ["agents", "--graph", "tanks.csv", "--data", "data.csv", "--target", "u", *WORDS, "--epochs", "300"]
    start = [sys.executable, "-m", "liouville", *words, "--out", "killed"]
    with subprocess.Popen(start, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as running:
        deadline = time.monotonic() + 120
        while not list(Path("killed").glob("node-3.epoch-1?.*")):
            assert time.monotonic() < deadline and running.poll() is None
            time.sleep(0.01)
        os.kill(running.pid, signal.SIGKILL)
    assert call("agents", "--resume", "killed", "--quiet", "--no-figures")[0] == 0
    assert agents(call, "--target", "u", "--epochs", "300", "--out", "whole")[0] == 0
    whole, killed = Run.open("whole"), Run.open("killed")
    assert len(killed.history()) == 300
    for one, other in zip(whole.network().parameters(), killed.network().parameters(), strict=True):
        assert torch.equal(one, other)


def test_names_of_columns_belong_to_the_longest_name_of_a_node():
    graph = adjacency([("a", "a b"), ("a b", "a.b")])
    assert node_of_column("a b level", graph) == (1, "level") and node_of_column("a.b.level", graph) == (2, "level")
    assert node_of_column("A_x", graph) == (0, "x") and node_of_column("ab", graph) is None


def test_more_hops_than_the_graph_has_reach_all(here):
    network = lv.zoo.h2(8, 3, 1.0, operator=lv.Graph(adjacency("tanks.csv")))
    found = check("tanks.csv", network, "owner-computes")
    assert found.spans == (0, 3, 3, 3) and "depends on nodes up to 3 hops away" in found.decision
    assert Simulation("tanks.csv").graph == network.field.operator.links


def test_links_of_a_drawing_that_go_one_way_are_not_passed_over(call, here):
    nodes = "".join(f'<node id="{name}"/>' for name in NODES)
    edges = "".join(f'<edge source="{a}" target="{b}"/>' for a, b in itertools.pairwise(NODES))
    back = '<edge source="tank 1" target="tank 0"/>'
    form = '<graphml><graph edgedefault="directed">{}</graph></graphml>'
    Path("drawn.graphml").write_text(form.format(nodes + edges))
    code, _, err = agents(call, "--target", "u", graph="drawn.graphml")
    assert code == 2 and "no link goes both ways, node tank 0 -> node tank 1" in err and "--undirected" in err
    assert agents(call, "--target", "u", "--undirected", graph="drawn.graphml")[0] == 0
    Path("drawn.graphml").write_text(form.format(nodes + edges + back))
    code, _, err = agents(call, "--target", "u", graph="drawn.graphml")
    assert code == 0 and "2 of 4 links go one way, node tank 1 -> node tank 2 for example" in err
