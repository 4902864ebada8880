"""The recurrent networks of the experiment are what their equations say, and the data what their names say."""

import pytest
import torch

from liouville.experiments import EXPERIMENTS, load
from liouville.experiments.beyond.baselines import parameters
from liouville.experiments.beyond.sequence_data import TASKS, Task, _read, adding
from liouville.experiments.beyond.sequence_networks import LEFT_OUT, NETWORKS, CoRNN, Oscillators, build
from liouville.experiments.beyond.sequences import TIMES, Config, cases, render, run
from measure import near


def test_the_scan_of_linoss_is_its_recurrence():
    torch.manual_seed(0)
    block, u = Oscillators(5).double(), torch.randn(3, 13, 5).double()
    A, dt, force = block.A.relu(), block.dt.sigmoid(), block.B(u)
    z = y = torch.zeros(3, 5).double()
    for t in range(13):
        z = (z - dt * A * y + dt * force[:, t]) / (1 + dt.square() * A)
        y = y + dt * z
        x = block.C(y) + block.D * u[:, t]
        expected = torch.nn.functional.glu(block.gate(torch.nn.functional.gelu(x)), -1) + u[:, t]
        near(block(u)[:, t], expected, 1e-12)


def test_cornn_is_its_equations():
    torch.manual_seed(0)
    net, u = CoRNN(2, 4, dt=0.1, gamma=1.5, epsilon=0.5).double(), torch.randn(3, 6, 2).double()
    W, V = net.W.weight.split(4, dim=1)
    y = z = torch.zeros(3, 4).double()
    for t in range(6):
        y, z = (
            y + 0.1 * (new := z + 0.1 * ((y @ W.T + z @ V.T + net.U(u[:, t])).tanh() - 1.5 * y - 0.5 * z)),
            new,
        )
    near(net(u, None), y, 1e-12)
    near(net(u, torch.tensor([6, 6, 6])), y, 1e-12)


@pytest.mark.parametrize("name", NETWORKS)
def test_padding_changes_no_score_and_weights_are_about_as_asked(name):
    task = Task(20, 3, 4, 2000, epochs=1, batch=5, rates=(0.01,), seeds=1)
    network = build(name, task, seed=0)
    assert abs(parameters(network) - 2000) < 200
    x, lengths = torch.randn(5, 20, 3), torch.tensor([20, 3, 11, 1, 20])
    with torch.no_grad():
        scores = network(x, lengths)
        changed = x.clone()
        changed[1, 3:], changed[3, 1:] = 5.0, -5.0
        near(network(changed, lengths), scores, 1e-5)
        near(network(x[1:2, :3]), scores[1:2], 1e-5)


def test_an_archive_file(tmp_path):
    (tmp_path / "X.ts").write_text(
        "#c\n@dimensions 2\n@classLabel true a b\n@data\n1,2,3:4,5,6:b\n7:8:a\n", encoding="utf-8"
    )
    rows, classes = _read(tmp_path / "X.ts")
    assert classes == ["a", "b"] and [label for _, label in rows] == ["b", "a"]
    assert rows[0][0].tolist() == [[1, 4], [2, 5], [3, 6]] and rows[1][0].shape == (1, 2)


def test_the_marks_of_the_adding_problem_are_one_in_each_half():
    x, y = adding(11, 200, torch.Generator().manual_seed(0))
    assert (x[:, :5, 1].sum(1) == 1).all() and (x[:, 5:, 1].sum(1) == 1).all()
    assert abs(float((y - 1).square().mean()) - 1 / 6) < 0.05


def test_cases_and_rendering():
    assert EXPERIMENTS["sequences"] == "beyond.sequences"
    all_cases = cases(5, False)
    assert len(set(all_cases)) == len(all_cases) and set(LEFT_OUT) <= set(TASKS)
    assert not any(c.network in LEFT_OUT.get(c.task, ()) for c in all_cases)
    experiment = load("sequences")
    from liouville.experiments.records import Record

    records = [Record(c, run(c, None), 1.0, {}) for c in (Config("digits", n, 1, 50, 0) for n in ("h2", "GRU"))]
    assert records[0].values["least"] >= 1 - 1e-9
    page = experiment.render(records, None)
    assert [t.title for t in page.tables] == ["digits", "Sensitivities over time"]
    assert list(page.pictures) == ["singular-values"]
    assert render([], None).tables == [] and not render([], None).pictures


def test_the_recorded_singular_values_are_pairs_for_a_symplectic_cell_and_all_are_1_at_the_end():
    for name in ("h2", "second order"):
        values = torch.tensor(run(Config("digits", name, 1, 50, 0), None)["singular"])
        assert values.shape[0] == TIMES and (values.diff(dim=1) <= 0).all()
        near(values[-1], torch.ones_like(values[-1]), 1e-3)
        near(values.log().sum(1), torch.zeros(TIMES), 1e-3 * values.shape[1])  # the volume; four digits are recorded
        if name == "h2":
            near(values * values.flip(1), torch.ones_like(values), 2e-3)
