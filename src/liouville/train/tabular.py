r"""How a network for a table starts, and how it is trained: one fact, for `liouville train --data FILE` and estimators.

    x -> head(Phi(W x + c)),    Phi: 8 steps of symplectic Euler on a separable field (h2, relu) over [0, T]

with zero mean at the start, so that the untrained flow is a random one near the identity: Omega = T x rate is 7.5. The
numbers were chosen on half of a pool of tables (`benchmarks/pool.py`); docs/estimators.md has what they come to on the
other half.
"""

from __future__ import annotations

__all__ = [
    "ACTIVATION",
    "FEATURES",
    "INPUT_DROPOUT",
    "LABEL_SMOOTHING",
    "LAYERS",
    "MODEL",
    "SETTINGS",
    "START",
    "T",
    "steps_for",
]

from liouville.fields import Smooth
from liouville.train.settings import Settings

MODEL, ACTIVATION, FEATURES, LAYERS, T = "h2", "relu", 64, 8, 2.0
START = Smooth(scale=1.0, mean=0.0, action=7.5)
INPUT_DROPOUT, LABEL_SMOOTHING = 0.05, 0.05
SETTINGS = Settings(batch_size=128, lr=0.02, validation=0.15, stratified=True, ema_decay=0.98)
_PASSES, _LEAST, _MOST = 40, 300, 1000


def steps_for(rows: int, batch_size: int = SETTINGS.batch_size) -> int:
    """The steps for so many training rows: 40 passes, but from 300 to 1,000 steps.

    Examples:
        >>> steps_for(100), steps_for(2000), steps_for(100_000)
        (300, 625, 1000)
    """
    return min(max(_PASSES * rows // batch_size, _LEAST), _MOST)
