"""A field with an input is the field with other biases; what a bias is, each field says itself."""

import pytest
import torch

import liouville as lv
import samples
from liouville.fields import DrivenField, driven
from liouville.fields.driven import drive_of
from liouville.fields.given import bind
from liouville.testing import check_field
from measure import at, near, randn, rounding


def _input(batch=3):
    return randn(batch, samples.INPUTS, seed=5)


@pytest.mark.parametrize("name", samples.DRIVEN)
@pytest.mark.parametrize("timed", [False, True])
def test_a_driven_field_keeps_the_contract_of_fields(name, timed):
    tau = {"tau": torch.tensor([0.7], dtype=torch.float64)} if timed else {}
    field = samples.driven(name)
    check_field(field, randn(3, field.features), arguments={"u": randn(samples.INPUTS), **tau})


def _velocities(field):
    """The name of each velocity, the width of its argument, and the biases that it reads."""
    if not isinstance(field, lv.PartitionedField):
        return [("forward", field.features, field.biases[0])]
    n = field.features
    widths = (n, n) if isinstance(field, lv.SecondOrderField) else (n - field.p_features, field.p_features)
    return [(which, *more) for which, *more in zip(("p_dot", "q_dot"), widths, field.biases, strict=True)]


@pytest.mark.parametrize("name", samples.DRIVEN)
def test_the_input_changes_the_biases_and_nothing_else(name):
    field, u, tau = samples.driven(name), _input(), torch.rand(3, 1, dtype=torch.float64)
    theta, own = at(field.theta()), at(field.field.theta())
    for which, width, biases in _velocities(field.field):
        x = randn(3, width, seed=2)
        for b in range(3):
            forced = {n: getattr(theta, n) + getattr(theta, f"W_{n}") @ u[b] for n in biases}
            expected = tau[b] * getattr(field.field, which)(x[b], own._replace(**forced))
            near(getattr(field, which)(x, theta, u, tau)[b], expected, rounding(expected, terms=8))


@pytest.mark.parametrize("name", [n for n in samples.FIELDS if not n.startswith(("shear", "dropout", "budgeted"))])
def test_the_biases_that_a_field_states_are_entries_of_theta_one_tuple_for_each_velocity(name):
    field = samples.field(name)
    names = [n for own in field.biases for n in own]
    assert names and set(names) <= set(field.theta()._fields)
    assert len(field.biases) == (2 if isinstance(field, lv.PartitionedField) else 1)
    assert {n for n in field.theta()._fields if n[0] in "bc"} == set(names)


@pytest.mark.parametrize("name", samples.DRIVEN)
def test_a_velocity_reads_no_bias_of_another(name):
    field = samples.driven(name).field
    theta = at(field.theta())
    for which, width, own in _velocities(field):
        x = randn(3, width)
        others = {n: getattr(theta, n) + 1 for names in field.biases for n in names if n not in own}
        assert torch.equal(getattr(field, which)(x, theta), getattr(field, which)(x, theta._replace(**others)))


def test_an_engine_can_take_a_run_apart():
    field, u, tau = samples.driven("separable"), randn(7, 3, 2), torch.rand(7, 3, 1, dtype=torch.float64)
    run, theta = bind(field.in_run(), field.theta(), (lv.PerLayer(u), lv.PerLayer(tau)), {}, 7)
    drive = drive_of(run, theta)
    assert run.layers == 7
    assert torch.equal(drive.u, u) and torch.equal(drive.tau, tau)
    assert all(torch.equal(a, b) for a, b in zip(drive.theta, field.field.theta(), strict=True))
    assert set(drive.weights) == {"b_p", "b_q"} and drive.weights["b_p"] is theta.W_b_p
    assert drive_of(field, field.theta()) is None
    assert drive_of(samples.field("shear"), ()) is None


@pytest.mark.parametrize(
    ("field", "inputs", "said"),
    [
        (lambda: lv.PairField(4, 3), 2, "layers=1, got 3"),
        (lambda: lv.PairField(4, 1), 0, "inputs must be"),
        (lambda: samples.field("shear"), 2, "states no biases"),
        (lambda: lv.dropout(lv.PairField(4, 1), 0.1), 2, "give dropout the driven field"),
        (lambda: lv.PairField(4, 1, operator=lv.Conv(3)), 2, "on vectors"),
    ],
)
def test_a_field_that_no_input_can_drive_is_refused_in_one_sentence(field, inputs, said):
    with pytest.raises(ValueError, match=said):
        driven(field(), inputs)


def test_a_run_without_an_input_is_refused():
    field = samples.driven("pair")
    with pytest.raises(TypeError, match="takes the input u"):
        lv.Flow(field, lv.SymplecticEuler(), T=1.0)(randn(3, 5))
    assert isinstance(field, DrivenField)
