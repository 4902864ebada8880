"""Training: the learning problem of both papers, its penalties, and the stochastic gradient loop."""

from liouville.train.diagnosis import DivergenceError
from liouville.train.history import Epoch, History
from liouville.train.loop import evaluate, fit
from liouville.train.objective import Task, task_of
from liouville.train.progress import Progress, Terminal, silent
from liouville.train.regularisers import (
    L1,
    ConvexRegulariser,
    Decay,
    HeadDecay,
    HeadSmoothness,
    Penalty,
    Regulariser,
    Smoothness,
    Variation,
    decay,
    head_decay,
    smoothness,
)
from liouville.train.settings import Settings

__all__ = [
    "L1",
    "ConvexRegulariser",
    "Decay",
    "DivergenceError",
    "Epoch",
    "HeadDecay",
    "HeadSmoothness",
    "History",
    "Penalty",
    "Progress",
    "Regulariser",
    "Settings",
    "Smoothness",
    "Task",
    "Terminal",
    "Variation",
    "decay",
    "evaluate",
    "fit",
    "head_decay",
    "silent",
    "smoothness",
    "task_of",
]
