"""Several targets of classes, each at its node with as many classes as it has: one loss, whoever computes it."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import liouville as lv
from agents.test_own_data import LINE, NODES, WORDS, frame
from liouville.agents import Placement, export_node, read_part, spread, together
from liouville.agents.network import to_central
from liouville.agents.training import _loss, train
from liouville.report.page.answers import _by_target
from liouville.task import Task, scores_for
from liouville.train import GaussNewton, Settings, fit
from measure import EPS, near, randn, rounding

CLASSES = (2, 3, 4, 2)  # at nodes 0, 1, 1 and 3
WHOSE = (0, 1, 1, 1, 1, 1, 1, 1, 3)  # of each score
LABELS = ("low", "ok", "high")


def labels(rows, seed=5):
    return torch.stack([randn(rows, seed=seed + k).mul(3).abs().long() % c for k, c in enumerate(CLASSES)], 1)


def network():
    line = lv.Graph([(0, 1), (1, 2), (2, 3)], sizes=2)
    torch.manual_seed(0)
    made = lv.Network(lv.Lift(16, 8), lv.zoo.h2(16, 2, 1.0, operator=line), lv.NodeHead(line, 16, WHOSE)).double()
    made.placement = Placement(line.links)
    return made


def by_hand(scores, y):
    first, total = 0, 0.0
    for k, c in enumerate(CLASSES):
        own = scores[:, first : first + scores_for(c)]
        first += own.shape[1]
        if c == 2:
            own = torch.cat((torch.zeros_like(own), own), 1)
        total = total + F.cross_entropy(own, y[:, k])
    return total / len(CLASSES)


def test_the_loss_is_the_mean_of_the_cross_entropies_and_its_derivatives_are_its_own():
    task, scores, y = Task.of(CLASSES, 9), randn(20, 9).requires_grad_(), labels(20)
    loss = task.loss(scores, y)
    near(loss, by_hand(scores, y), 10 * EPS)
    near(task.loss(scores, y, torch.ones(20)), loss, 100 * EPS)
    (gradient,) = torch.autograd.grad(loss, scores, create_graph=True)
    near(task.gradient(scores, y), gradient, 10 * EPS)
    v = randn(20, 9, seed=1)
    near(task.curvature(scores, v), torch.autograd.grad(gradient, scores, v)[0], 10 * EPS)
    p = task.probabilities(scores)
    guess = torch.stack([part.argmax(1) for part in p.split(CLASSES, 1)], 1)
    assert p.shape == (20, sum(CLASSES)) and torch.equal(task.labels(scores), guess)
    assert task.score(scores, y) == pytest.approx(float((guess == y).double().mean()))
    with pytest.raises(ValueError, match="targets of 2, 3, 4 and 2 classes, but a network of 8 output"):
        Task.of(CLASSES, 8)


def test_nodes_together_have_the_loss_and_the_gradient_of_the_central_network():
    central, x, y = network(), randn(12, 8), labels(12)
    task, local = Task.of(CLASSES, 9), spread(central)
    parts, whole = _loss(local, task, local(x), y), by_hand(central(x), y)
    near(parts, whole, 100 * EPS)
    parts.backward()
    whole.backward()
    found = local.central()
    for p in found.parameters():
        p.grad = torch.zeros_like(p)
    to_central(local, found, gradients=True)
    for a, b in zip(found.parameters(), central.parameters(), strict=True):
        near(a.grad, b.grad, rounding(b.grad, terms=64))


def split(rows=40):
    x, y = randn(rows, 8), labels(rows)
    names = tuple(tuple("abcd"[:c]) for c in CLASSES)
    targets = ("pump", "valve", "mode", "light")
    return lv.data.Split(x, y, x, y, "plant", CLASSES, label_names=names, targets=targets)


def test_all_trainings_take_it_and_lower_its_loss():
    data = split()
    how = {"epochs": 4, "batch_size": 10, "validation": 0.0}
    local = spread(network())
    losses = train(local, local.exchange, data, Task.of(CLASSES, 9), Settings(**how))
    assert losses[-1] < losses[0]
    assert fit(network(), data, Settings(**how)).metrics["train_loss"] < losses[0]
    newton = lv.train.gauss_newton(network(), data, GaussNewton(head="joint", iterations=2, validation=0.0))
    assert newton.metrics["train_loss"] < losses[0]


def test_a_network_and_its_parts_name_each_answer(tmp_path):
    made, data = network(), split()
    made.facts = data.facts()
    loaded = lv.load(lv.save(made, tmp_path / "plant.safetensors"))
    assert loaded.facts == made.facts and made.facts.classes == CLASSES
    x = data.x_test[:6]
    expected = [tuple("abcd"[k] for k in row) for row in Task.of(CLASSES, 9).labels(made(x)).tolist()]
    assert loaded.predict(x) == expected
    parts = []
    for k in range(4):
        export_node(made, k, tmp_path / str(k), onnx=False)
        parts.append(read_part(tmp_path / str(k)))
    near(together(parts, x), made(x), 1e-12)
    told = [part.about["targets"] for part in parts]
    assert [[target["name"] for target in node] for node in told] == [["pump"], ["valve", "mode"], [], ["light"]]
    assert told[1][1] == {"name": "mode", "labels": ["a", "b", "c", "d"], "outputs": 4}
    radius = next(c for c in lv.analysis.certify(made, x).claims if c.name == "robustness radius")
    assert radius.status == "not applicable" and "several" in radius.note


def test_a_report_says_how_often_each_target_is_right():
    data = split()
    wrong = data.y_test.clone()
    wrong[:10, 1] = (wrong[:10, 1] + 1) % 3
    section = _by_target(SimpleNamespace(facts=data.facts()), data.y_test, wrong)
    (table,) = section.blocks
    assert [row[0] for row in table.rows] == list(data.targets)
    assert [row[2] for row in table.rows] == ["100 %", "75.00 %", "100 %", "100 %"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"classes": (2, 3, 4)}, r"y_train must have shape \(samples, 3\), got \(40, 4\)"),
        ({"classes": (2, 3, 4, 0), "label_names": None}, "classes must be at least 2"),
        ({"classes": (2, 3, 3, 2), "label_names": None}, r"labels from 0 to 3, expected 0 to 2 \(classes=3\)"),
        ({"label_names": (("a", "b"),)}, "one name for each of 2, 3, 4 and 2 classes"),
    ],
)
def test_what_does_not_fit_is_said_in_one_sentence(change, sentence):
    data = split()
    given = {"classes": CLASSES, "label_names": data.label_names} | change
    if change.get("classes") == (2, 3, 4):
        given["label_names"] = None
    with pytest.raises(ValueError, match=sentence):
        lv.data.Split(data.x_train, data.y_train, data.x_test, data.y_test, "plant", **given)
    wrong = lv.Network(lv.Lift(16, 8), lv.zoo.h2(16, 2, 1.0), nn.Linear(16, 4)).double()
    with pytest.raises(ValueError, match=r"2, 3, 4 and 2 classes, but the network puts out 4 .*with 9 outputs"):
        fit(wrong, data)


def classes_of(u, tank):
    return ("off", "on")[int(u > 0)] if tank % 2 else LABELS[int(u > -0.5) + int(u > 0.5)]


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    from liouville.__main__ import main

    monkeypatch.chdir(tmp_path)
    Path("tanks.csv").write_text(LINE)
    data = frame()
    for i, name in enumerate(NODES):
        data[f"{name}.u"] = [classes_of(u, i) for u in data[f"{name}.u"]]
    data.to_csv("data.csv", index=False)
    data.assign(**{"tank 0.u": range(60)}).to_csv("mixed.csv", index=False)
    data.assign(**{f"{name}.u": [k % (2 + i) for k in range(60)] for i, name in enumerate(NODES)}).to_csv("n.csv")

    def run(*words):
        code = main([*map(str, words)])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def test_the_command_trains_resumes_predicts_and_exports(call):
    given = ("agents", "--graph", "tanks.csv", "--data", "data.csv", "--target", "u", *WORDS)
    code, said, _ = call(*given, "--out", "one")
    assert code == 0 and "test accuracy" in said and "tank 3.u" in said
    metrics = json.loads(Path("one/metrics.json").read_text())
    by_output = metrics["test_accuracy_by_output"]
    assert [(f["node"], f["output"]) for f in by_output] == [(n, f"{n}.u") for n in NODES]
    mean = sum(f["accuracy"] for f in by_output) / 4
    assert metrics["test_accuracy"] == pytest.approx(mean)
    local = json.loads(Path("one/locality.json").read_text())
    assert [node["outputs"] for node in local["nodes"]] == [[f"{n}.u"] for n in NODES]
    code, said, _ = call("check", "one")
    assert code == 0 and "locality" in said
    code, said, _ = call("predict", "one", "data.csv", "--probabilities")
    header, first = (line.split(",") for line in said.splitlines()[:2])
    assert code == 0 and header[:5] == ["prediction_tank 0.u", *(f"p(tank 0.u={n})" for n in sorted(LABELS)),
                                        "prediction_tank 1.u"]  # fmt: skip
    assert (
        first[0] in LABELS and first[4] in ("off", "on") and sum(map(float, first[1:4])) == pytest.approx(1, abs=1e-5)
    )
    code, said, _ = call("agents", "--export-node", "tank 2", "one")
    assert code == 0
    table = json.loads(Path("one/nodes/node-2/node.json").read_text())
    assert table["about"]["targets"] == [{"name": "tank 2.u", "labels": sorted(LABELS), "outputs": 3}]
    code, said, _ = call("agents", "--resume", "one")
    assert code == 0 and "nothing is left to train" in said
    code, said, _ = call("report", "one")
    assert code == 0 and "3, 2, 3 and 2 classes" in Path("one/report.html").read_text()


def test_numbers_are_classes_where_that_is_said_for_all_nodes_and_kinds_are_not_mixed(call):
    given = ("agents", "--graph", "tanks.csv", "--target", "u", *WORDS, "--quiet")
    code, said, _ = call(*given, "--data", "n.csv", "--id", "1", "--category", "u")
    assert code == 0 and "test accuracy" in said
    code, _, error = call(*given, "--data", "mixed.csv")
    assert code == 2 and "'tank 1.u' has classes and 'tank 0.u' has numbers; targets are all of one kind" in error
    assert len(error.strip().splitlines()) == 1
