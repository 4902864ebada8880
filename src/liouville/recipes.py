"""Recipes: which network and which settings each data set gets when nothing else is said.

A recipe is a starting point that was measured, not a rule; every part of it can be replaced from the command line.
"""

from __future__ import annotations

__all__ = ["PRESETS", "Recipe", "recipe"]

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from liouville.data import SOURCES
from liouville.fields import Initial, Normal, Smooth
from liouville.names import lookup
from liouville.train import Penalty, Settings
from liouville.zoo import Images


@dataclass(frozen=True)
class Recipe:
    """A network and how to train it.

    Args:
        model: a name of ``liouville.zoo.MODELS``.
        features, layers, T, lift, conv: as for `liouville.classifier`.
        init: initial weights of the flows.
        settings: of `liouville.train.fit`.
        data: options of the data set.
    """

    model: str = "h2"
    features: int | tuple[int, ...] = 4
    layers: int | tuple[int, ...] = 64
    T: float = 6.4
    lift: str | None = None
    conv: Images | None = None
    init: Initial = Smooth()
    settings: Settings = Settings()
    data: Mapping[str, Any] = field(default_factory=dict)


_DEFAULT: dict[str, Recipe] = {
    "swiss-roll": Recipe(settings=Settings(epochs=80, lr=0.05)),
    "double-moons": Recipe(settings=Settings(epochs=20, lr=0.05)),
    "double-circles": Recipe(settings=Settings(epochs=40, lr=0.05)),
    "ellipses": Recipe(settings=Settings(epochs=20, lr=0.05)),
    "peaks": Recipe(features=8, settings=Settings(epochs=60, lr=0.05)),
    "digits": Recipe(features=64, layers=8, T=1.0, settings=Settings(epochs=30, batch=50, lr=0.005)),
    "breast-cancer": Recipe(features=30, layers=8, T=1.0, settings=Settings(epochs=30, batch=50, lr=0.005)),
    "wine": Recipe(features=16, layers=8, T=1.0, settings=Settings(epochs=40, batch=25, lr=0.005)),
    "diabetes": Recipe(features=16, layers=8, T=1.0, settings=Settings(epochs=20, batch=50, lr=0.002)),
    "mnist": Recipe(
        features=16,
        layers=8,
        T=2.0,
        conv=Images(),
        settings=Settings(epochs=8, batch=100, lr=0.004, head_lr=0.0008, shift=1),
    ),
}

_HDNN = Settings(
    epochs=50,
    batch=125,
    lr=0.05,
    schedule="constant",
    alternate=10,
    validation=0.0,
    penalty=Penalty(smoothness=5e-4, head=2e-4, scaling="hdnn"),
)

PRESETS: dict[str, str] = {
    "default": "this library's own settings",
    "hdnn": "the Hamiltonian-network papers on planar data: alternation, i.i.d. N(0,1) weights",
    "pixelwise": "the papers' network for images: 1x1 maps at full resolution on 8 channels",
}


def recipe(data: str, preset: str = "default") -> Recipe:
    """The recipe of a data set.

    Raises:
        ValueError: for an unknown name, or a preset that the data set does not have.

    Example:
        >>> recipe("swiss-roll").layers
        64
    """
    lookup(SOURCES, data, "data set")
    lookup(PRESETS, preset, "preset")
    base = _DEFAULT[data]
    if preset == "default":
        return base
    if preset == "hdnn":
        if base.conv is not None or data not in ("swiss-roll", "double-moons", "double-circles", "ellipses", "peaks"):
            raise ValueError(f"the preset 'hdnn' is for planar data, got {data!r}; leave --preset out.")
        return Recipe("h1", base.features, 64, 2.0, init=Normal(), settings=_HDNN)
    if base.conv is None:
        raise ValueError(f"the preset 'pixelwise' is for images, got {data!r}; leave --preset out.")
    return Recipe(
        "h1",
        features=8,
        layers=4,
        T=2.0,
        conv=Images(kernel=1, lift=3, pool=1),
        settings=Settings(epochs=3, batch=100, lr=0.01),
    )
