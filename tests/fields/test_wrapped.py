"""A wrapped field has all that the inner one states, and what it changes is said once."""

import pytest
import torch

import liouville as lv
import samples
from liouville.analysis import structure
from liouville.budget import BUDGETED
from liouville.fields import DropoutField, PartitionedDropoutField, PartitionedField, VectorField
from liouville.fields.wrapped import Wrapped, unwrapped, wrapping
from liouville.testing import check_field
from measure import at, randn

OWN = {"factors", "scaled", "scaling", "batch_shape", "sample_shape", "halves", "refined", "extra_repr"}
"""Of the library's own classes only, or made of what is handed on."""
OF_A_RUN = {"in_run", "at_layer"}  # dropout draws, a budget gives its weights


@pytest.mark.parametrize("kind", [VectorField, PartitionedField])
def test_every_fact_about_a_field_is_handed_on(kind):
    facts = {name for name in vars(kind) if not name.startswith("_")} - OWN - OF_A_RUN
    assert facts <= vars(Wrapped).keys() | {"features", "layers", "has_effects"}


@pytest.mark.parametrize("kind", [DropoutField, PartitionedDropoutField, *BUDGETED])
def test_the_class_of_halves_adds_their_type_only(kind):
    assert issubclass(kind, Wrapped)
    if issubclass(kind, PartitionedField):
        assert not {name for name in vars(kind) if not name.startswith("_")}


@pytest.mark.parametrize("name", ["separable", "separable-X", "hamiltonian", "second-order", "pair"])
def test_energy_and_structure_are_those_of_the_inner_field_while_it_does_not_draw(name):
    inner = samples.field(name)
    field = lv.dropout(inner, 0.2)
    theta, y = inner.theta(), samples.inputs(inner)
    assert field.training and field.structure(theta) is None
    with pytest.raises(NotImplementedError, match="energy"):
        field.energy(y, at(theta))
    field.eval()
    J, own = field.structure(theta), inner.structure(theta)
    assert J is own is None or torch.equal(J, own)
    assert unwrapped(field) is inner and list(wrapping(field)) == [field, inner]


def test_a_budgeted_field_keeps_J_and_its_energy():
    flow = lv.budgeted(lv.zoo.h2(4, layers=3, T=1.0).double(), 4.0)
    assert torch.equal(structure(flow), structure(lv.zoo.h2(4, layers=3, T=1.0).double()))
    assert lv.analysis.energy_balance(flow, randn(5, 4)).defect.shape == (3, 5)
    check_field(flow.field)
