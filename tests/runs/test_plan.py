"""Plans: what may be changed, and networks that need facts and no data."""

import dataclasses

import pytest
import torch

import liouville as lv
from liouville.facts import Facts
from liouville.runs import Plan
from runs import own


def test_changes_reach_their_places():
    base = Plan.of("peaks")
    plan = base.changed(model="ms2", gamma=0.5, lr=0.3, smoothness=0.1, head_decay=0.2, init="normal", seed=4, T=None)
    assert plan.T == base.T and plan.options == {**base.options, "gamma": 0.5} and plan.init == lv.Normal()
    penalty = dataclasses.replace(base.settings.penalty, smoothness=0.1, head_decay=0.2)
    assert plan.settings == dataclasses.replace(base.settings, lr=0.3, penalty=penalty, seed=4)
    assert plan.fit_settings().seed == 4
    assert plan.changed(model="h2").options == base.options and plan.changed(activation="relu").options["gamma"] == 0.5
    assert base.changed(data_options={"test": 50}).changed(data_options={"train": 90}).data_options == {
        **base.data_options,
        "test": 50,
        "train": 90,
    }
    assert base.changed(data_options={"test": 50}).changed(data="ellipses").data_options == {}
    with pytest.raises(ValueError, match="has no option 'nonsense'; no model has it"):
        plan.changed(nonsense=1)


FACTS = {
    "vectors": Facts("a", (3,), classes=2),
    "several classes": Facts("b", (5,), classes=4),
    "images": Facts("c", (1, 8, 8), classes=3),
    "targets": Facts("d", (3,), classes=0, outputs=2),
}
PLANS = {
    "default": Plan(data=None, features=8, layers=4),
    "levels": Plan(data=None, features=8, layers=4, levels=2),
    "scheme, budget": Plan(data=None, features=8, layers=4, scheme="Verlet", budget=5.0),
    "dropout, reversible": Plan(data=None, model="ms1", features=16, layers=4, dropout=0.2, engine="reversible"),
    "another scheme for an engine": Plan(
        data=None, model="h1", features=8, layers=4, scheme="ImplicitMidpoint", engine="reversible", dtype="float64"
    ),
}


@pytest.mark.parametrize("facts", FACTS.values(), ids=FACTS)
@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_a_network_needs_facts_and_no_data(plan, facts):
    """It fits the samples, keeps the facts, is drawn from the seed or the generator, and is what the plan says."""
    if plan.scheme == "ImplicitMidpoint" and len(facts.shape) > 1:
        pytest.skip("implicit schemes are for vectors")
    network = plan.network(facts)
    assert network.facts == facts
    assert network(torch.zeros(2, *facts.shape, dtype=next(network.parameters()).dtype)).shape[0] == 2
    weights = [torch.nn.utils.parameters_to_vector(net.parameters()) for net in _drawn(plan, facts)]
    assert torch.equal(weights[0], weights[1]) and torch.equal(weights[0], weights[2])
    assert not torch.equal(weights[0], weights[3])
    for flow in network.flows():
        assert flow.layers == 4 // 2 ** (plan.levels - 1) and flow.backprop == lv.kernels.ENGINES[plan.engine]()
        assert plan.scheme is None or type(flow.scheme).__name__ == plan.scheme
        assert plan.budget is None or lv.analysis.log_upper_bound(flow).exp() <= plan.budget


def _drawn(plan, facts):
    generators = (None, None, torch.Generator().manual_seed(plan.seed), torch.Generator().manual_seed(plan.seed + 1))
    return [plan.network(facts, generator) for generator in generators]


def test_a_split_states_its_own_facts():
    split = own.split()
    given, stated = (Plan(features=8, layers=2).network(known) for known in (split, split.facts()))
    assert given.facts == stated.facts == split.facts()
    assert torch.equal(*(torch.nn.utils.parameters_to_vector(net.parameters()) for net in (given, stated)))


def test_a_budget_beside_dropout_is_refused_as_by_classifier():
    with pytest.raises(ValueError, match="a budget bounds the velocities without dropout"):
        Plan(data=None, budget=5.0, dropout=0.1).network(FACTS["vectors"])


def test_data_of_one_s_own_have_no_name_to_load_and_no_options():
    with pytest.raises(ValueError, match=r"which no name loads; give the Split: runs\.train\(plan, split\)"):
        Plan(data=None).load()
    with pytest.raises(ValueError, match="have no options, got "):
        Plan(data=None, data_options={"points": 3})
    assert Plan.from_dict(Plan(data=None).as_dict()) == Plan(data=None)
