"""Recipes: the plan that each data set gets when nothing else is said.

A recipe is a starting point that was measured, not a rule; every part of it can be replaced, by `Plan.changed` or by an
option of the command.
"""

from __future__ import annotations

__all__ = ["PRESETS", "of_table", "recipe"]

from dataclasses import replace

from liouville.data import TableFile
from liouville.fields import Normal, Smooth
from liouville.runs.plan import RECIPES, Plan
from liouville.train import Penalty, Settings, tabular
from liouville.zoo import Images
from liouville.zoo.networks import LiftChoice

_TANH = {"activation": "tanh"}
_PENALTY = Penalty(smoothness=1e-5, decay=1e-3)
_PLANAR = Settings(epochs=190, batch_size=500, lr=0.07, penalty=_PENALTY)  # 1520 steps of 3600 training points
# Tables keep the start and the rates that their numbers were chosen with: in units, one seed of three on diabetes fell
# from R2 = 0.28 to 0.12, and digits from 96.8 to 96.6 % in the mean.
_TABLE = Settings(rates="plain", epochs=60, batch_size=50, lr=0.01, penalty=_PENALTY)
_DRAWN = Smooth(action=None)
# A step of a few thousand numbers is faster on one thread, and on a busy machine two threads that wait for each other
# are many times slower.
_SMALL = Plan(options=_TANH, threads=1)

_DEFAULT = {
    plan.data: plan
    for plan in (
        replace(_SMALL, data="swiss-roll", settings=replace(_PLANAR, lr=0.04, epochs=120)),
        replace(_SMALL, data="double-moons", T=3.0, settings=replace(_PLANAR, epochs=100)),
        replace(_SMALL, data="double-circles", T=3.0, settings=_PLANAR),
        replace(_SMALL, data="ellipses", T=3.0, settings=replace(_PLANAR, epochs=300)),
        replace(_SMALL, data="peaks", features=8, T=3.0, settings=replace(_PLANAR, epochs=170)),
        replace(_SMALL, data="digits", features=64, layers=8, T=1.0, init=_DRAWN, settings=_TABLE),
        replace(_SMALL, data="breast-cancer", features=32, layers=8, T=1.0, init=_DRAWN, settings=_TABLE),
        replace(_SMALL, data="wine", features=16, layers=8, T=1.0, init=_DRAWN, settings=_TABLE),
        replace(_SMALL, data="iris", features=8, layers=8, T=1.0, init=_DRAWN, settings=_TABLE),
        replace(_SMALL, data="diabetes", features=16, layers=8, T=1.0, init=_DRAWN, settings=_TABLE),
        Plan(
            data="mnist",
            features=(32, 64),
            layers=(2, 3),
            T=4.0,
            options={"activation": "relu"},
            conv=Images(head_pool=2, dropout=0.1),
            init=Smooth(scale=0.5, mean=0.0, action=None),
            settings=Settings(
                rates="share",
                epochs=12,
                batch_size=100,
                lr=0.5,
                head_lr=0.0008,
                optimizer="adamw",
                weight_decay=0.01,
                warmup=0.3,
                beta2=0.999,
                ema_decay=0.998,
                warp=1.0,
            ),
        ),
    )
}

_HDNN = Settings(
    rates="plain",
    epochs=50,
    batch_size=125,
    lr=0.05,
    schedule="constant",
    beta2=0.999,
    alternate=10,
    validation=0.0,
    penalty=Penalty(smoothness=5e-4, head_decay=2e-4, scaling="hdnn"),
)
# The script halves what 2104.13166, eq. (12), adds for the head.
_HDNN_SCRIPT = replace(_HDNN, schedule="epoch-count", penalty=replace(_HDNN.penalty, head_decay=1e-4))

# The two pictures of the Hamiltonian-network authors' README: 64-layer H1, T = 2.
_H1_64 = {
    "swiss-roll": replace(
        _SMALL,
        data_options={"noise": 0.0, "test": "interleaved"},
        model="h1",
        T=2.0,
        init=Smooth(action=None),
        settings=replace(_PLANAR, epochs=250, rates="plain"),
    ),
    "double-circles": replace(
        _SMALL,
        data="double-circles",
        model="h1",
        T=2.0,
        init=Smooth(scale=1.0, modes=20, mean=0.0, action=None),
        settings=Settings(
            rates="plain",
            epochs=600,
            batch_size=1000,
            lr=0.15,
            beta2=0.9,
            warmup=0.3,
            max_grad_norm=1.0,
            penalty=Penalty(decay=1e-3, head_decay=1e-3),
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


def recipe(data: str, preset: str = "default") -> Plan:
    """The plan of a data set; the same as ``Plan.of(data, preset)``.

    Raises:
        ValueError: for an unknown name, or a preset that the data set does not have.

    Examples:
        >>> recipe("swiss-roll").layers
        64
    """
    return Plan.of(data, preset)


def _hdnn(data: str, settings: Settings, lift: LiftChoice, preset: str) -> Plan:
    base = _DEFAULT[data]
    if data not in ("swiss-roll", "double-moons", "double-circles", "ellipses", "peaks"):
        raise ValueError(f"the preset {preset!r} is for planar data, got {data!r}; leave --preset out.")
    plan = replace(_SMALL, data=data, model="h1", features=base.features, T=2.0, lift=lift)
    return replace(plan, init=Normal(), settings=settings)


def _h1_64(data: str) -> Plan:
    if data not in _H1_64:
        raise ValueError(f"the preset 'h1-64' is for {' and '.join(_H1_64)}, got {data!r}; leave --preset out.")
    return _H1_64[data]


def _pixelwise(data: str) -> Plan:
    if _DEFAULT[data].conv is None:
        raise ValueError(f"the preset 'pixelwise' is for images, got {data!r}; leave --preset out.")
    return Plan(
        data=data,
        options=_TANH,
        model="h1",
        features=8,
        layers=4,
        T=2.0,
        conv=Images(kernel=1, pool=1),
        init=Normal(0.5),
        settings=Settings(epochs=3, batch_size=100, lr=0.02, head_lr=0.002, rates="plain", beta2=0.999),
    )


def of_table(table: TableFile) -> Plan:
    """Where a table of one's own starts: eight layers, and as many steps as its rows ask for, which are counted."""
    rows, classes = table.look()
    fitted = round((1 - table.test_fraction) * (1 - tabular.SETTINGS.validation) * rows)
    smoothing = tabular.LABEL_SMOOTHING if classes else 0.0
    return Plan(
        data=None,
        table=table,
        model=tabular.MODEL,
        features=tabular.FEATURES,
        layers=tabular.LAYERS,
        T=tabular.T,
        options={"activation": tabular.ACTIVATION},
        lift="linear",
        init=tabular.START,
        input_dropout=tabular.INPUT_DROPOUT,
        settings=replace(tabular.SETTINGS, steps=tabular.steps_for(fitted), label_smoothing=smoothing),
        threads=1,
    )


RECIPES["default"] = lambda data: of_table(data) if isinstance(data, TableFile) else _DEFAULT[data]
RECIPES["hdnn"] = lambda data: _hdnn(data, _HDNN, None, "hdnn")
RECIPES["hdnn-script"] = lambda data: _hdnn(data, _HDNN_SCRIPT, "ends", "hdnn-script")
RECIPES["h1-64"] = _h1_64
RECIPES["pixelwise"] = _pixelwise
