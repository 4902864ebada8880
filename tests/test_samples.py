"""A law is only as good as what it is run on: every public class has a sample, and every sample runs."""

import inspect

import pytest
import torch

import liouville as lv
import samples
from liouville import activations, backprop, fields, kernels, network, operators, schemes

MODULES = (activations, operators, fields, schemes, backprop, kernels, network)
TESTED_ELSEWHERE = tuple(f"liouville.{m}" for m in ("analysis", "checkpoint", "data", "report", "train", "zoo"))
# concrete to Python, but nothing to instantiate: it has no stages
BASES = {schemes.SplittingScheme}
# what the library hands out and nobody makes: no law runs over instances of these, so each names who makes it
HANDED_OUT = {
    backprop.DriftWarning: "the backward pass of Reversible, see backprop/test_drift.py",
    kernels.NoKernelError: "a pair without a kernel, see kernels/test_fused.py",
    schemes.StabilityWarning: "LeapfrogMidpoint.check, see schemes/test_stability.py",
    schemes.Shear: "ShearScheme.shears, of which every scheme made of shears has a sample",
}


def public_classes():
    names = [name for name in lv.__all__ if name[0].isupper()]
    named = {name: getattr(lv, name) for name in names}
    named |= {name: getattr(module, name) for module in MODULES for name in module.__all__}
    return {
        name: value
        for name, value in named.items()
        if inspect.isclass(value) and not value.__module__.startswith(TESTED_ELSEWHERE) and value not in HANDED_OUT
    }


def missing(classes, instances):
    """Concrete classes without an instance of exactly that class, abstract ones without one of a subclass."""
    kinds = {type(i) for i in instances}
    abstract = {c for c in classes.values() if inspect.isabstract(c)} | BASES
    return sorted(
        name
        for name, c in classes.items()
        if not (any(issubclass(k, c) for k in kinds) if c in abstract else c in kinds)
    )


def test_every_public_class_has_a_sample():
    assert not missing(public_classes(), samples.everything())


def test_a_class_without_a_sample_is_noticed():
    class Forgotten(lv.ResidualField):
        pass

    classes = {**public_classes(), "Forgotten": Forgotten}
    assert missing(classes, samples.everything()) == ["Forgotten"]
    without = [s for s in samples.everything() if not isinstance(s, lv.PairField)]
    assert missing(public_classes(), without) == ["PairField"]


def test_what_the_library_hands_out_is_public_and_of_a_kind_that_is_handed_out():
    """Records and warnings: nothing that a user would derive from, or that a law could be broken by."""
    for handed_out in HANDED_OUT:
        assert any(getattr(module, handed_out.__name__, None) is handed_out for module in MODULES)
        assert issubclass(handed_out, tuple | Warning | ValueError)
    shears = {type(shear) for name, s in samples.SCHEMES.items() for shear in _shears(name, s)}
    assert shears == {schemes.Shear}


def _shears(name, scheme):
    if not isinstance(scheme, lv.ShearScheme):
        return ()
    field = samples.field(next(f for s, f in samples.PAIRS if s == name))
    theta = field.theta()
    return scheme.shears(field, type(theta)(*(w[0] for w in theta)), 0.1)


def test_every_operator_activation_scheme_and_engine_of_the_tables_is_a_sample():
    assert {type(s) for s in samples.SCHEMES.values()} == set(schemes.SCHEMES.values())
    engines = {type(e) for e in samples.BACKPROPS.values()} | {lv.Fused, lv.BatchLast}  # whose laws are in kernels/
    assert set(kernels.ENGINES.values()) == engines


def test_every_field_runs_with_some_scheme_and_every_scheme_with_some_field():
    assert {f for _, f in samples.PAIRS} == set(samples.FIELDS)
    assert {s for s, _ in samples.PAIRS} == set(samples.SCHEMES)


@pytest.mark.parametrize("name", samples.PARTS)
def test_parts_run_forward_and_backward(name):
    part, x = samples.PARTS[name]()
    out = part(x.requires_grad_())
    out.square().sum().backward()
    assert torch.isfinite(out).all()
    assert x.grad is not None
    assert all(p.grad is not None for p in part.parameters())
