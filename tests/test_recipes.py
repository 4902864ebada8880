"""Every data set has a recipe, and every recipe builds a network that accepts the data."""

from __future__ import annotations

from dataclasses import replace

import pytest

import liouville as lv
from liouville.runs import PRESETS, recipe


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
    penalty = replace(paper.settings.penalty, head=paper.settings.penalty.head / 2)
    settings = replace(paper.settings, schedule="epoch-count", penalty=penalty)
    assert script == replace(paper, lift="ends", settings=settings)
    assert recipe("swiss-roll", "h1-64").data_options["noise"] == 0.0
    with pytest.raises(ValueError, match="the preset 'h1-64' is for swiss-roll and double-circles"):
        recipe("peaks", "h1-64")
