"""The ring of eight: the paper's graph and places, and a table that counts what it says."""

import pytest

from liouville.experiments.p2.ring_of_eight import Config, cases, network, render, run
from liouville.experiments.records import Record


def made(data, graph, layers, seed, accuracy):
    return Record(Config(data, graph, layers, 40, seed), {"accuracy": accuracy}, 1.0, {})


def test_the_ring_has_24_of_64_entries_and_the_full_network_all():
    for graph, entries in (("ring", 24), ("full", 64)):
        theta = network(Config("swiss-roll", graph, 2, 1, 0)).body.field.theta()
        assert [int((K[0] != 0).sum()) for K in (theta.K_p, theta.K_q)] == [entries, entries]


def test_inputs_enter_at_p1_and_q5():
    import torch

    y = network(Config("swiss-roll", "ring", 1, 1, 0)).lift(torch.tensor([[2.0, 3.0]]))
    assert y.nonzero()[:, 1].tolist() == [0, 8 + 4] and y[0, [0, 12]].tolist() == [2.0, 3.0]


def test_the_table_and_its_words_count_the_runs(tmp_path):
    records = [made("swiss-roll", "ring", N, s, a) for N, s, a in ((4, 0, 0.995), (4, 1, 0.9), (8, 0, 1.0))]
    rendering = render([*records, made("double-circles", "full", 8, 0, 1.0)], tmp_path)
    (table,) = rendering.tables
    assert [row[0] for row in table.rows] == ["4", "8"]
    assert table.rows[0][1:] == ("94.75 (90.00–99.50)", "—", "—", "—") and table.rows[1][4] == "100.00"
    assert "1 of 2 with 4, 1 of 1 with 8 layers" in rendering.text and "in 1 of 1" in rendering.text
    rendering.pictures["accuracy"].draw()


def test_a_run_of_the_ring_leaves_the_model_that_is_drawn(tmp_path):
    case = next(case for case in cases(1, True) if case.graph == "ring")
    record = Record(case, run(case, tmp_path), 1.0, {})
    assert (tmp_path / record.values["model"]).exists()
    rendering = render([record], tmp_path)
    rendering.pictures[f"{case.data}-features"].draw()


@pytest.mark.parametrize("seeds", [1, 5])
def test_depths_graphs_and_data_are_crossed(seeds):
    assert len(cases(seeds, False)) == 2 * 2 * 4 * seeds
