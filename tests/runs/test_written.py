"""A plan as a flat mapping: made again from it whatever one starts from; wrong names and values are named."""

import dataclasses

import pytest

from liouville.data import SOURCES, TableFile
from liouville.fields import Normal
from liouville.runs import PRESETS, Plan
from liouville.runs.written import flat, overlaid
from liouville.train import Settings
from liouville.zoo import MODELS, Images


def _plans():
    """Every recipe, and one plan for each kind of change."""
    for data in SOURCES:
        for preset in PRESETS:
            try:
                yield Plan.of(data, preset)
            except ValueError:
                continue
    start = Plan.of("swiss-roll")
    yield from (start.changed(model=name) for name in MODELS)
    yield start.changed(optimizer="gauss-newton", epochs=7, head="joint")
    yield start.changed(model="h1", J="full", activation="relu", gamma=None)
    yield start.changed(model="antisymmetric", gamma=0.25, steps=30, budget=20.0, head_smoothness=0.0)
    yield start.changed(data_options={"points": 100, "noise": 0.25}, init=Normal(), scheme="Verlet", T=64)
    yield Plan.of("mnist").changed(features=(8, 16), layers=(2, 4), conv=Images(kernel=1), threads=2)
    yield dataclasses.replace(start, data=None, data_options={}, table=TableFile("/a b/ä.csv", "y", ids=("i", "no")))
    yield dataclasses.replace(start, data=None, data_options={})


PLANS = list(_plans())


def test_it_comes_back_whatever_one_starts_from():
    starts = [PLANS[0], Plan.of("mnist"), PLANS[-3], Plan.of("double-circles", "h1-64"), PLANS[len(SOURCES)]]
    for plan in PLANS:
        assert all(overlaid(start, flat(plan)) == plan for start in starts), plan


def test_a_missing_name_is_as_it_was():
    start = Plan.of("double-circles", "h1-64")
    assert overlaid(start, {}) == start
    assert overlaid(start, {"lr": 0.5, "decay": 0.25, "T": 3}) == start.changed(lr=0.5, decay=0.25, T=3)
    clipped = start.changed(max_grad_norm=1.0)
    assert overlaid(clipped, {"max_grad_norm": None}).settings.max_grad_norm is None
    assert overlaid(start.changed(steps=10), {"epochs": 5}).settings.steps is None


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"layer": 3}, "f: there is no setting 'layer'; did you mean 'layers'?"),
        ({"settings": {"lr": 1}}, "f: there is no setting 'settings'"),
        ({"layers": "many"}, "f: layers must be "),
        ({"layers": 0.5}, "f: layers must be "),
        ({"epochs": -3}, "f: epochs"),
        ({"model": "h9"}, "f: unknown model 'h9'; did you mean 'h"),
        ({"gamma": 0.1}, "f: there is no setting 'gamma'"),
        ({"data_options": 3}, "f: data_options must be "),
        ({"init": {"name": "smooth", "shade": 1}}, "init.shade must be left out"),
        ({"init": {}}, "unknown initialisation None"),
        ({"optimizer": "gauss-newton", "lr": 0.1}, "f: there is no setting 'lr'"),
        ({"optimizer": "nothing"}, "f: unknown optimizer 'nothing'"),
        ({"lr": True}, "f: lr must be "),
        ({"conv": {"kernel": "a"}}, "f: conv.kernel must be "),
    ],
)
def test_what_does_not_fit_is_named(values, sentence):
    with pytest.raises(ValueError) as told:
        overlaid(Plan.of("swiss-roll"), values, "f")
    assert str(told.value).startswith(sentence) and "\n" not in str(told.value)


def test_every_setting_but_the_seed_and_autocast_has_its_name():
    names = flat(PLANS[0]).keys()
    assert {f.name for f in dataclasses.fields(Settings)} - names == {"seed", "bfloat16", "penalty"} - {"seed"}
