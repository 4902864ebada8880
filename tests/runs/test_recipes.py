"""Every data set has a recipe, and every recipe builds a network that accepts the data."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace

import pytest

import liouville as lv
from liouville.runs import PRESETS, Plan, recipe


@pytest.mark.parametrize("name", lv.data.names())
def test_every_data_set_has_a_recipe(name: str) -> None:
    assert recipe(name).model in lv.zoo.MODELS


def test_presets_and_their_limits() -> None:
    assert isinstance(recipe("swiss-roll", "hdnn").init, lv.Normal)
    assert recipe("mnist", "pixelwise").conv.kernel == 1
    with pytest.raises(ValueError, match="the preset 'hdnn' is for planar data, got 'mnist'"):
        recipe("mnist", "hdnn")
    with pytest.raises(ValueError, match="the preset 'pixelwise' is for images, got 'swiss-roll'"):
        recipe("swiss-roll", "pixelwise")
    with pytest.raises(ValueError, match="unknown preset 'hdn'; did you mean 'hdnn'"):
        recipe("swiss-roll", "hdn")
    assert set(PRESETS) == {"default", "hdnn", "hdnn-script", "h1-64", "pixelwise"}
    paper, script = recipe("peaks", "hdnn"), recipe("peaks", "hdnn-script")
    penalty = replace(paper.settings.penalty, head_decay=paper.settings.penalty.head_decay / 2)
    settings = replace(paper.settings, schedule="epoch-count", penalty=penalty)
    assert script == replace(paper, lift="ends", settings=settings)
    assert recipe("swiss-roll", "h1-64").data_options["noise"] == 0.0
    with pytest.raises(ValueError, match="the preset 'h1-64' is for swiss-roll and double-circles"):
        recipe("peaks", "h1-64")


def test_every_recipe_survives_json():
    for preset in PRESETS:
        for data in lv.data.names():
            with contextlib.suppress(ValueError):  # not every data set has every preset
                plan = Plan.of(data, preset)
                assert Plan.from_dict(json.loads(json.dumps(plan.as_dict()))) == plan


def test_a_recipe_is_the_plan_of_its_data_set() -> None:
    assert recipe("peaks", "hdnn") == Plan.of("peaks", "hdnn") and recipe("peaks").data == "peaks"
