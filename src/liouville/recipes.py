"""Recipes: which network and which settings each data set gets when nothing else is said.

A recipe is a starting point that was measured, not a rule; every part of it can be replaced from the command line.
"""

from __future__ import annotations

__all__ = ["PRESETS", "Recipe", "recipe"]

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
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
        features, layers, T, activation, lift, conv: as for `liouville.classifier`.
        init: initial weights of the flows.
        settings: of `liouville.train.fit`.
        threads: of torch; None leaves its own choice. A step of a few thousand numbers is faster on one thread, and
            on a busy machine two threads that wait for each other are many times slower.
        data: options of the data set.
    """

    model: str = "h2"
    features: int | tuple[int, ...] = 4
    layers: int | tuple[int, ...] = 64
    T: float = 4.0
    activation: str = "tanh"
    lift: str | None = None
    conv: Images | None = None
    init: Initial = Smooth()
    settings: Settings = Settings()
    threads: int | None = None
    data: Mapping[str, Any] = field(default_factory=dict)


_PENALTY = Penalty(smoothness=1e-5, decay=1e-3)
_PLANAR = Settings(epochs=190, batch=500, lr=0.07, penalty=_PENALTY)  # 1520 steps of 3600 training points
_TABLE = Settings(epochs=60, batch=50, lr=0.01, penalty=_PENALTY)

_DEFAULT: dict[str, Recipe] = {
    "swiss-roll": Recipe(settings=replace(_PLANAR, lr=0.04, epochs=120), threads=1),
    "double-moons": Recipe(T=3.0, settings=replace(_PLANAR, epochs=100), threads=1),
    "double-circles": Recipe(T=3.0, settings=_PLANAR, threads=1),
    "ellipses": Recipe(T=3.0, settings=replace(_PLANAR, epochs=300), threads=1),
    "peaks": Recipe(features=8, T=3.0, settings=replace(_PLANAR, epochs=170), threads=1),
    "digits": Recipe(features=64, layers=8, T=1.0, settings=_TABLE, threads=1),
    "breast-cancer": Recipe(features=32, layers=8, T=1.0, settings=_TABLE, threads=1),
    "wine": Recipe(features=16, layers=8, T=1.0, settings=_TABLE, threads=1),
    "iris": Recipe(features=8, layers=8, T=1.0, settings=_TABLE, threads=1),
    "diabetes": Recipe(features=16, layers=8, T=1.0, settings=_TABLE, threads=1),
    "mnist": Recipe(
        features=(32, 64),
        layers=(2, 3),
        T=1.0,
        activation="relu",
        conv=Images(head_pool=2, dropout=0.1),
        init=Smooth(scale=0.5, mean=0.0),
        settings=Settings(
            epochs=10,
            batch=100,
            lr=0.004,
            head_lr=0.0008,
            optimizer="adamw",
            weight_decay=0.01,
            warmup=0.3,
            beta2=0.999,
            average=0.998,
            warp=1.0,
        ),
    ),
}

_HDNN = Settings(
    epochs=50,
    batch=125,
    lr=0.05,
    schedule="constant",
    beta2=0.999,
    alternate=10,
    validation=0.0,
    penalty=Penalty(smoothness=5e-4, head=2e-4, scaling="hdnn"),
)
# The script halves what 2104.13166, eq. (12), adds for the head.
_HDNN_SCRIPT = replace(_HDNN, schedule="epoch-count", penalty=replace(_HDNN.penalty, head=1e-4))

# The two pictures of the Hamiltonian-network authors' README: 64-layer H1, T = 2.
_H1_64 = {
    "swiss-roll": Recipe(
        "h1", T=2.0, settings=replace(_PLANAR, epochs=250), threads=1, data={"noise": 0.0, "test": "interleaved"}
    ),
    "double-circles": Recipe(
        "h1",
        T=2.0,
        threads=1,
        init=Smooth(scale=1.0, modes=20, mean=0.0),
        settings=Settings(
            epochs=600,
            batch=1000,
            lr=0.15,
            beta2=0.9,
            warmup=0.3,
            clip=1.0,
            penalty=Penalty(decay=1e-3, head=1e-3),
        ),
    ),
}

PRESETS: dict[str, str] = {
    "default": "this library's own settings",
    "hdnn": "the Hamiltonian-network papers on planar data: alternation, i.i.d. N(0,1) weights",
    "hdnn-script": "as hdnn, and as the authors' script: inputs at both ends, Adam's bias correction counts epochs",
    "h1-64": "64-layer H1 network, T = 2, on the papers' own Swiss roll or double circles",
    "pixelwise": "the papers' network for images: 1x1 maps at full resolution on 8 channels",
}


def recipe(data: str, preset: str = "default") -> Recipe:
    """The recipe of a data set.

    Raises:
        ValueError: for an unknown name, or a preset that the data set does not have.

    Examples:
        >>> recipe("swiss-roll").layers
        64
    """
    lookup(SOURCES, data, "data set")
    lookup(PRESETS, preset, "preset")
    base = _DEFAULT[data]
    if preset == "default":
        return base
    if preset in ("hdnn", "hdnn-script"):
        if base.conv is not None or data not in ("swiss-roll", "double-moons", "double-circles", "ellipses", "peaks"):
            raise ValueError(f"the preset {preset!r} is for planar data, got {data!r}; leave --preset out.")
        script = preset == "hdnn-script"
        settings = _HDNN_SCRIPT if script else _HDNN
        lift = "ends" if script else None
        return Recipe("h1", base.features, 64, 2.0, lift=lift, init=Normal(), settings=settings, threads=1)
    if preset == "h1-64":
        if data not in _H1_64:
            raise ValueError(f"the preset 'h1-64' is for {' and '.join(_H1_64)}, got {data!r}; leave --preset out.")
        return _H1_64[data]
    if base.conv is None:
        raise ValueError(f"the preset 'pixelwise' is for images, got {data!r}; leave --preset out.")
    return Recipe(
        "h1",
        features=8,
        layers=4,
        T=2.0,
        conv=Images(kernel=1, pool=1),
        init=Normal(0.5),
        settings=Settings(epochs=3, batch=100, lr=0.02, head_lr=0.002, beta2=0.999),
    )
