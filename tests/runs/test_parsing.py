"""Plans of other versions: what is new takes its default, and what is unknown is refused by name."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch

from liouville.runs import Plan, Run, parsing
from liouville.runs import plan as plans
from liouville.train import GaussNewton, Penalty, Settings
from liouville.version import __version__

FORMER = Path(__file__).parents[1] / "former" / "run-0.1"  # by 0.1.0, before levels, budgets, targets, four penalties


def test_a_run_of_the_first_version_is_read_and_is_what_it_claims_to_be():
    run = Run.open(FORMER)
    assert run.config["versions"]["liouville"] == "0.1.0" and "levels" not in run.config["plan"]
    plan = run.plan
    assert (plan.layers, plan.T, plan.levels, plan.budget) == (2, 3.0, 1, None)
    assert plan.settings == Settings(1, 500, 0.07, penalty=Penalty(smoothness=1e-5, decay=1e-3), rates="plain")
    assert plan.init.action is None and run.network().body.field.weight_unit == 1.0
    network, split = run.network(), plan.load()
    assert network.predict(split.x_test.numpy()) is not None
    with torch.no_grad():
        right = (network(split.x_test)[:, 0] > 0) == split.y_test
    assert right.float().mean().item() == pytest.approx(run.metrics["test_accuracy"], abs=1e-6)
    assert all(claim.status != "broken" for claim in run.certificate().claims)


PLANS = (
    Plan(),
    Plan(settings=GaussNewton()),
    Plan(data=None, features=(8, 16), layers=(2, 4), dropout=0.1, init=plans.INITS["normal"](0.5)),
    Plan.of("mnist"),
)


FORMERLY = {(("settings",), "rates"): "plain", (("init",), "action"): None}  # what no default of today is


@pytest.mark.parametrize("plan", PLANS, ids=["planar", "second order", "own data", "images"])
def test_every_field_that_was_added_may_be_missing(plan):
    """Each left out by itself, in the plan, its settings, penalty, images and initial weights: the default stands."""
    whole = plan.as_dict()
    for place in ((), ("settings",), ("settings", "penalty"), ("conv",), ("init",)):
        names = part(whole, place) or {}
        for name in set(names) - {"data", "model", "layers", "settings", "optimizer", "name"}:
            value = json.loads(json.dumps(whole))
            del part(value, place)[name]
            try:
                read = Plan.from_dict(value).as_dict()
            except ValueError as error:  # the default does not go with the rest
                assert "is missing" not in str(error) and "unknown" not in str(error)
                continue
            if name == "penalty" or (place, name) == ((), "init"):
                continue
            default = {**whole, **Plan().as_dict()}[name] if not place else defaults(plan, place)[name]
            default = FORMERLY.get((place, name), default)
            assert part(read, place)[name] == json.loads(json.dumps(default)), (place, name)


def part(value, place):
    for name in place:
        value = value[name]
    return value


def defaults(plan, place):
    kind = type({"settings": plan.settings, "penalty": Penalty(), "conv": plan.conv, "init": plan.init}[place[-1]])
    made = dataclasses.asdict(kind())
    return json.loads(json.dumps(made))


@pytest.mark.parametrize("kind", [Settings, Penalty])
def test_a_field_of_the_next_version_is_filled_in_here_and_refused_there(kind, monkeypatch):
    """A class with one field more reads what the class of today wrote, and today's refuses what that one wrote."""
    more = dataclasses.make_dataclass(
        kind.__name__, [("planted", float, dataclasses.field(default=0.5))], bases=(kind,), frozen=True
    )
    old = Plan().as_dict()
    with monkeypatch.context() as patch:
        for module in (plans, parsing):
            patch.setattr(module, kind.__name__, more)
        settings = Plan.from_dict(old).settings
        read = settings if kind is Settings else settings.penalty
        assert isinstance(read, more) and read.planted == 0.5
    new = Plan().as_dict()
    (new["settings"] if kind is Settings else new["settings"]["penalty"])["planted"] = 0.5
    where = "plan.settings.planted" if kind is Settings else "plan.settings.penalty.planted"
    with pytest.raises(
        ValueError, match=f"written by liouville 9.9.0, is not one of liouville .*: {where} must be left"
    ):
        Plan.from_dict(new, "9.9.0")


def test_a_run_of_a_later_version_is_refused_by_the_name_of_what_is_unknown(tmp_path):
    shutil.copytree(FORMER, tmp_path / "run")
    file = tmp_path / "run" / "config.json"
    config = json.loads(file.read_text())
    config["plan"]["planted"], config["versions"]["liouville"] = 1, "9.9.0"
    file.write_text(json.dumps(config))
    with pytest.raises(ValueError) as caught:
        Run.open(tmp_path / "run").plan  # noqa: B018
    assert str(caught.value) == (
        f"{file}: the plan, written by liouville 9.9.0, is not one of liouville {__version__}: plan.planted is unknown."
    )
    for said in (["9.9.0"], {"liouville": 9}, {"liouville": "\x1b[2J"}):
        file.write_text(json.dumps(config | {"versions": said}))
        with pytest.raises(ValueError, match=f"the plan is not one of liouville {__version__}: "):
            Run.open(tmp_path / "run").plan  # noqa: B018
