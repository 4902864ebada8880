"""Twelve robots: an unstable plant, the right gradient through time and depth, and tables that count their records."""

import pytest
import torch
from torch import nn

import liouville as lv
from liouville.experiments.beyond import closed_loop, controllers, formation
from liouville.experiments.beyond.closed_loop import Config, cases, held, render, run
from liouville.experiments.records import Record
from measure import near


@pytest.fixture(autouse=True)
def few(monkeypatch):
    for name, value in (("STEPS", 4), ("LONG", 6), ("BATCH", 3), ("TESTS", 5)):
        monkeypatch.setattr(closed_loop, name, value)


def closed_spectrum(F):
    zero = torch.zeros(1, formation.WIDTH).double()
    A = torch.autograd.functional.jacobian(lambda x: formation.plant(x, x @ F.double().mT)[0], zero)[:, 0]
    return torch.linalg.eigvals(A).real


def test_the_plant_is_unstable_and_riccati_makes_it_stable():
    assert float(closed_spectrum(torch.zeros(24, 48)).max()) > 1.0
    for name in ("lqr", "lqr-ring", "linear"):
        assert float(closed_spectrum(controllers.made(name).gain.detach()).max()) < -0.1


def test_a_robot_at_rest_in_the_formation_stays_and_costs_nothing():
    x, u = torch.zeros(1, 48), torch.zeros(1, 24)
    assert not formation.plant(x, u).any() and float(formation.cost(x, u)) == 0.0
    near(formation.gaps(x), torch.ones(1, 12), 1e-5)
    for name in controllers.CONTROLLERS:
        assert not controllers.made(name)(x).any()


def test_some_neighbours_have_changed_places():
    x = formation.scenarios(200, 0)
    far = x.unflatten(1, (12, 4))[..., :2].norm(dim=2) > 0.5
    assert 0.4 < float(far.float().mean()) < 0.6
    assert torch.equal(x[:50, :], formation.scenarios(200, 0)[:50]) and not torch.equal(x, formation.scenarios(200, 1))


@pytest.mark.parametrize("name", ["h2", "linear", "mlp"])
def test_the_gradient_through_time_and_depth_is_that_of_the_plain_loop(name):
    x = closed_loop._started(formation.scenarios(3, 0)).double()
    found = []
    for depth, time in ((lv.Reversible(), lv.Reversible(exact=True)), (lv.Stored(), lv.Stored())):
        with lv.randomness.seeded(0):
            controller = controllers.made(name, depth).double()
        closed_loop._loop(controller, 4, time)(x)[:, -1].mean().backward()
        found.append([w.grad for w in controller.parameters() if w.requires_grad])
    for one, other in zip(*found, strict=True):
        near(one, other, 1e-9 * float(other.abs().max()))  # the grid of 64 bits
        assert bool(other.any())


def test_the_running_cost_is_the_integral_of_the_cost():
    """v_0 = 0 in `Momentum`, so that after one step s = (1 - gamma) h cost / 50."""
    controller, x = controllers.made("linear"), formation.scenarios(3, 0)
    s = closed_loop._loop(controller, 1, lv.Stored())(closed_loop._started(x))[:, -1].detach()
    now = formation.cost(x, controller(x).detach())
    near(s * formation.COST_UNIT, (1 - 1 / 16) * controllers.STEP * now, 1e-5 * float(now.max()))


def test_the_network_is_local_and_as_large_as_the_mlp():
    h2, mlp = controllers.made("h2"), controllers.made("mlp")
    assert abs(controllers.weights(mlp) / controllers.weights(h2) - 1) < 0.01
    assert lv.agents.check(formation.LINKS, h2.body, "owner-computes").holds
    used = torch.where(h2.head.mask, 1.0, 0.0).sum(1)
    assert used.unique().tolist() == [8.0]
    assert controllers.weights(controllers.made("linear")) == 24 * 12


def test_a_digital_controller_holds_its_input():
    seen = []

    class Counting(nn.Module):
        def forward(self, x):
            seen.append(x)
            return torch.zeros(len(x), 24)

    states, costs = held(Counting(), formation.scenarios(2, 0), 3)
    assert len(seen) == 3 and states.shape == (4, 2, 48) and costs.shape == (3, 2)
    assert all(torch.equal(a, b) for a, b in zip(seen, states, strict=False))


def test_trained_controllers_have_all_seeds_and_riccatis_one():
    assert len(cases(5, False)) == 3 * 5 + 2 and len(cases(5, True)) == 3 + 2


@pytest.mark.slow
def test_a_run_of_the_network_leaves_the_model_that_is_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr(closed_loop, "ITERATIONS", 1)
    records = [Record(c, run(c, tmp_path), 1.0, {}) for c in (Config("h2", 1, 0), Config("lqr", 0, 0))]
    stored, rebuilt = (records[0].values["memory"][name] for name in ("stored", "reversible"))
    assert rebuilt[1] < 0.5 * stored[1]
    rendering = render(records, tmp_path)
    assert [len(t.rows) for t in rendering.tables] == [2, 2, 2]
    assert set(rendering.pictures) == {"paths", "motion"}
    rendering.pictures["paths"].draw()
    motion = rendering.pictures["motion"].draw()
    motion._draw_frame(3)


def test_the_tables_count_their_records(tmp_path):
    values = {"weights": 10, "cost": 0.5, "stable": 1.0, "gap": 0.4}
    more = {
        "lossy": {"0.05": [0.6, 0.9, 0.3], "0.2": [0.7, 0.8, 0.2]},
        "bounds": {"log_u": 2.0, "log_failing": 9.0, "local": 1.0, "exchanges": 16.0},
    }
    records = [
        Record(
            Config("h2", 100, 0), {**values, **more, "memory": {"stored": [1.0, 3.0], "reversible": [1.0, 1.5]}}, 1, {}
        ),
        Record(Config("h2", 100, 1), {**values, **more, "cost": 0.7}, 1, {}),
        Record(Config("linear", 100, 0), values, 1, {}),
        Record(Config("mlp", 100, 0), {"diverged": "so"}, 1, {}),
    ]
    rendering = render(records, tmp_path)
    assert [row[0] for row in rendering.tables[0].rows] == [controllers.CONTROLLERS[n] for n in ("h2", "linear")]
    assert rendering.tables[0].rows[0][2] == "0.600 (0.500–0.700)"
    assert rendering.tables[2].rows[1][1:] == ("1.00", "1.50") and "Not proved" in rendering.text
