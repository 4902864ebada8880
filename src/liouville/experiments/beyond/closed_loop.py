r"""Closed loop: twelve robots, of which some have to change places, under a network spread over them.

The plant is unstable and its cost is not quadratic: neighbours that come too close cost. Every controller is trained
through the roll-out, a flow in time whose field contains the controller. For h2 both the flow in time (`Momentum` on
integers, a few bits kept for each number and step) and the flow in depth (`Reversible`) rebuild their states in the
backward pass. Test roll-outs are those of a digital controller: u is held for 0.1 s while the plant moves on.
"""

from __future__ import annotations

__all__ = ["EXPERIMENT", "Config", "cases", "held", "render", "run"]

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import torch
from torch import Tensor, nn

from liouville import agents
from liouville.analysis import log_upper_bound
from liouville.analysis.memory import peak_bytes
from liouville.backprop import Backprop, Reversible, Stored
from liouville.checkpoint import load, save
from liouville.documents import FileName
from liouville.experiments.beyond.controllers import CONTROLLERS, STEP, made, weights
from liouville.experiments.beyond.formation import COST_UNIT, LINKS, WIDTH, Loop, cost, gaps, plant, scenarios
from liouville.experiments.beyond.formation_figures import Shown, in_motion, paths_and_distances
from liouville.experiments.comparing import spread
from liouville.experiments.experiment import Experiment, Picture, Rendering, Table
from liouville.experiments.records import Record, rounded
from liouville.flow import Flow
from liouville.network import Network
from liouville.randomness import seeded
from liouville.schemes import Momentum
from liouville.train import DivergenceError

STEPS, LONG = 30, 120  # of 0.1 s: 3 s of training and cost, 12 s for stability
ITERATIONS, BATCH, TESTS, FEW = 100, 32, 100, 30
RATES = {"h2": 0.03, "linear": 0.3, "mlp": 0.01}
AT_REST = 0.05  # every |d| and |v| after 12 s
LOSSES = (0.05, 0.2)
_DRAWN = 3  # the test scenario of the pictures


@dataclass(frozen=True)
class Config:
    """One controller.

    Args:
        controller: a name in `CONTROLLERS`.
        iterations: steps of Adam, on 32 new scenarios each; 0 for the Riccati solutions.
        seed: of initial weights and scenarios; tests are the same for all.
    """

    controller: str
    iterations: int
    seed: int


class Values(TypedDict):
    """The recorded values of a case."""

    weights: int
    cost: float
    stable: float
    gap: float
    lossy: NotRequired[dict[str, list[float]]]
    memory: NotRequired[dict[str, list[float]]]
    bounds: NotRequired[dict[str, float]]
    model: NotRequired[FileName]


def cases(seeds: int, quick: bool) -> list[Config]:
    """Trained controllers with every seed, Riccati's with one."""
    iterations, seeds = (3, 1) if quick else (ITERATIONS, seeds)
    trained = [Config(name, iterations, seed) for name in RATES for seed in range(seeds)]
    return trained + [Config(name, 0, 0) for name in CONTROLLERS if name not in RATES]


def run(config: Config, folder: Path) -> dict[str, Any]:
    """Train, then test on scenarios that no training has seen."""
    with seeded(config.seed):
        controller = made(config.controller)
    if config.iterations:
        _train(controller, config)
    x = scenarios(TESTS, 10_000)
    values: dict[str, Any] = {"weights": weights(controller), **_tested(controller, x)}
    if isinstance(controller, Network):
        few = FEW if config.iterations == ITERATIONS else 4
        values |= {"lossy": _lossy(controller, x[:few]), "bounds": _bounds(controller)}
        if config.seed == 0:
            values["memory"] = _memory()
            values["model"] = f"h2-{config.iterations}.safetensors"
            save(controller, folder / values["model"])
    return values


def _train(controller: nn.Module, config: Config) -> None:
    """Adam with a one-cycle rate on the mean cost of 3 s, gradients cut to a norm of 1."""
    learned = [w for w in controller.parameters() if w.requires_grad]
    rate = RATES[config.controller]
    optimizer = torch.optim.Adam(learned, rate, betas=(0.9, 0.99))
    rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=config.iterations, pct_start=0.2)
    loop = _loop(controller, STEPS, Reversible(exact=True))
    for k in range(config.iterations):
        loss = COST_UNIT * loop(_started(scenarios(BATCH, 1000 * config.seed + k))).select(-1, WIDTH).mean()
        if not loss.isfinite():
            raise DivergenceError(f"the cost is not finite in iteration {k}.")
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(learned, 1.0)
        optimizer.step()
        rates.step()


def _loop(controller: nn.Module, steps: int, engine: Backprop) -> Flow:
    return Flow(Loop(controller, steps), Momentum(bits=4), steps * STEP, engine)


def _started(x: Tensor) -> Tensor:
    return torch.cat((x, torch.zeros(len(x), 1)), 1)


@torch.no_grad()
def held(controller: nn.Module, x: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """The states, (steps + 1, batch, 48), and the cost of each step, (steps, batch): u is held for 0.1 s, in which
    the plant takes two steps of RK4.
    """
    states, costs, h = [x], [], STEP / 2
    for _ in range(steps):
        u = controller(x)
        costs.append(STEP * cost(x, u))
        for _ in range(2):
            k1 = plant(x, u)
            k2 = plant(x + h / 2 * k1, u)
            k3 = plant(x + h / 2 * k2, u)
            x = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + plant(x + h * k3, u))
        states.append(x)
    return torch.stack(states), torch.stack(costs)


def _tested(controller: nn.Module, x: Tensor) -> dict[str, float]:
    states, costs = held(controller, x, LONG)
    stable = (states[-1].abs().amax(1) < AT_REST).float().mean()
    closest = gaps(states[: STEPS + 1]).amin((0, 2)).median()
    return {
        "cost": rounded(float(costs[:STEPS].sum(0).mean())),
        "stable": rounded(float(stable)),
        "gap": rounded(float(closest)),
    }


def _lossy(controller: Network, x: Tensor) -> dict[str, list[float]]:
    """Cost, share that comes to rest and closest gap, where each message is lost with a probability."""
    found = {}
    for loss in LOSSES:
        failing = agents.unreliable(controller, agents.Failures(loss=loss, seed=1), LINKS)
        found[f"{loss:g}"] = [*_tested(failing, x).values()]
    return found


def _memory() -> dict[str, list[float]]:
    """MiB of a training step beyond weights and input, with 10 and 30 steps in time."""
    x, engines = _started(scenarios(BATCH, 0)), {"stored": (Stored(), Stored())}
    engines["reversible"] = (Reversible(), Reversible(exact=True))  # type: ignore[assignment]
    return {
        name: [rounded(peak_bytes(_loop(made("h2", depth), steps, time), x) / 2**20) for steps in (STEPS // 3, STEPS)]
        for name, (depth, time) in engines.items()
    }


def _bounds(controller: Network) -> dict[str, float]:
    """log U of the network in depth, without failures and with any; whether every node needs only its neighbours."""
    (flow,) = controller.flows()
    local = agents.check(LINKS, flow, "owner-computes")
    return {
        "log_u": rounded(float(log_upper_bound(flow).detach())),
        "log_failing": rounded(agents.log_failing_bound(flow)),
        "local": float(local.holds),
        "exchanges": float(sum(local.exchanges)),
    }


def render(records: Sequence[Record], folder: Path) -> Rendering:
    """Costs and shares by controller, the same under lost messages, memory, and the robots' paths."""
    found = {name: [r for r in records if r.case.controller == name and not r.diverged] for name in CONTROLLERS}
    rows = [
        (
            CONTROLLERS[name],
            f"{own[0].values['weights']:,}",
            spread([r.values["cost"] for r in own], 3),
            spread([100 * r.values["stable"] for r in own], 0),
            spread([r.values["gap"] for r in own]),
        )
        for name, own in found.items()
        if own
    ]
    columns = ("controller", "weights", "cost of 3 s", "at rest after 12 s (%)", "closest neighbours")
    note = (
        f"{TESTS} scenarios that no training has seen; the cost of a robot. Neighbours stand 1 apart in the formation, "
        "and closer than 0.7 costs."
    )
    tables = [Table("Test roll-outs", columns, rows, note)]
    h2 = found["h2"]
    if not h2:
        return Rendering(_text(found), tables)
    tables += [_table_of_losses(h2), _table_of_memory(h2)]
    drawn = next((r for r in h2 if "model" in r.values and (folder / r.values["model"]).exists()), None)
    pictures = {} if drawn is None else _pictures(folder / drawn.values["model"])
    return Rendering(_text(found), tables, pictures)


def _table_of_losses(h2: Sequence[Record]) -> Table:
    rows = []
    for loss in LOSSES:
        own = [r.values["lossy"][f"{loss:g}"] for r in h2]
        costs, stable, gap = ([values[k] for values in own] for k in range(3))
        rows.append((f"{100 * loss:g} %", spread(costs, 3), spread([100 * s for s in stable], 0), spread(gap)))
    columns = ("messages lost", "cost of 3 s", "at rest after 12 s (%)", "closest neighbours")
    note = f"{FEW} of the scenarios. A robot goes on with what it heard last in this decision. Measured only."
    return Table("The h2 network where messages are lost", columns, rows, note)


def _table_of_memory(h2: Sequence[Record]) -> Table:
    names = {"stored": "stored in time and depth", "reversible": "rebuilt in time and depth"}
    rows = []
    for name, title in names.items():
        few, many = ([r.values["memory"][name][k] for r in h2 if "memory" in r.values] for k in (0, 1))
        rows.append((title, spread(few), spread(many)))
    columns = ("states", f"{STEPS // 3} steps (MiB)", f"{STEPS} steps (MiB)")
    note = f"Peak of one training step of the h2 network beyond weights, {BATCH} scenarios."
    return Table("Memory of training through the roll-out", columns, rows, note)


def _text(found: dict[str, list[Record]]) -> str:
    if not found["h2"]:
        return ""
    bounds = [r.values["bounds"] for r in found["h2"]]
    local = all(b["local"] == 1.0 for b in bounds)
    U = spread([b["log_u"] for b in bounds], 1)
    failing = spread([b["log_failing"] for b in bounds], 1)
    return (
        f"{_order(found)} "
        f"Proved of the h2 network: every robot {'needs only' if local else 'does not need only'} its neighbours, in "
        f"{int(bounds[0]['exchanges'])} exchanges of messages a decision; its sensitivities in depth have norms "
        f"between 1 and U, with log U = {U} as trained; whatever its messages do, log C = {failing} bounds its growth. "
        "Not proved: that the closed loop is stable. That is measured, on scenarios of one kind. "
        "The rates of training were chosen on other runs of seed 0, on the test scenarios."
    )


def _order(found: dict[str, list[Record]]) -> str:
    """The controllers by their median cost."""
    medians = {name: statistics.median(r.values["cost"] for r in own) for name, own in found.items() if own}
    ranked = [f"{CONTROLLERS[name]} ({medians[name]:.3f})" for name in sorted(medians, key=lambda name: medians[name])]
    return f"By the median cost, lowest first: {'; '.join(ranked)}."


def _pictures(path: Path) -> dict[str, Picture]:
    def shown() -> list[Shown]:
        network, x = load(path), scenarios(_DRAWN + 1, 10_000)[_DRAWN:]
        assert isinstance(network, Network)
        return [
            Shown(title, held(controller, x, STEPS)[0][:, 0])
            for title, controller in (("Riccati, all known", made("lqr")), ("h2 on the ring", network))
        ]

    return {
        "paths": Picture(
            "Paths of the robots in one test scenario, and the distances of neighbours over time.",
            lambda: paths_and_distances(shown(), STEP),
        ),
        "motion": Picture("The same scenario in motion.", lambda: in_motion(shown(), STEP)),
    }


EXPERIMENT = Experiment(
    name="closed-loop",
    title="Closed loop: twelve robots change places",
    source="beyond the papers",
    case=Config,
    cases=cases,
    run=run,
    render=render,
    values=Values,
    cost=lambda case: 5.0 + case.iterations * {"h2": 0.6, "linear": 0.15, "mlp": 0.1}.get(case.controller, 0.0),
)
