"""Training: the learning problem of both papers, its penalties, and the stochastic gradient loop."""

from liouville.train.callback import Callback
from liouville.train.diagnosis import DivergenceError
from liouville.train.history import Epoch, History
from liouville.train.loop import evaluate, fit
from liouville.train.monitor import GradientMonitor, GradientRecord, GradientWarning
from liouville.train.objective import Task, task_of
from liouville.train.progress import Progress, Terminal, silent
from liouville.train.regularize import Penalty, decay, head_decay, smoothness
from liouville.train.settings import Settings

__all__ = [
    "Callback",
    "DivergenceError",
    "Epoch",
    "GradientMonitor",
    "GradientRecord",
    "GradientWarning",
    "History",
    "Penalty",
    "Progress",
    "Settings",
    "Task",
    "Terminal",
    "decay",
    "evaluate",
    "fit",
    "head_decay",
    "silent",
    "smoothness",
    "task_of",
]
