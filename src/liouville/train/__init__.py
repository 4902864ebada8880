"""Training: the learning problem of both papers, its penalties, by stochastic gradients or by second derivatives."""

from liouville.processes.sharing import Processes
from liouville.train.callback import Callback
from liouville.train.diagnosis import DivergenceError
from liouville.train.gaussnewton import Iteration, gauss_newton
from liouville.train.history import Epoch, History
from liouville.train.loop import evaluate, fit, optimizer_of
from liouville.train.monitor import GradientMonitor, GradientRecord, GradientWarning
from liouville.train.multilevel import Level, MultilevelHistory, multilevel
from liouville.train.newton import Head, HeadSolution, steihaug
from liouville.train.objective import Expansion, FullObjective, Objective
from liouville.train.progress import Progress, Terminal, silent
from liouville.train.refine import refine
from liouville.train.regularisers import (
    L1,
    ConvexRegulariser,
    Decay,
    HeadDecay,
    HeadSmoothness,
    Penalty,
    Regulariser,
    Smoothness,
    SoftBudget,
    Variation,
    decay,
    head_decay,
    smoothness,
)
from liouville.train.settings import GaussNewton, Settings
from liouville.train.trainable import Task, task_of
from liouville.train.varpro import ReducedObjective
from liouville.train.vocabulary import linear_cross_entropy

__all__ = [
    "L1",
    "Callback",
    "ConvexRegulariser",
    "Decay",
    "DivergenceError",
    "Epoch",
    "Expansion",
    "FullObjective",
    "GaussNewton",
    "GradientMonitor",
    "GradientRecord",
    "GradientWarning",
    "Head",
    "HeadDecay",
    "HeadSmoothness",
    "HeadSolution",
    "History",
    "Iteration",
    "Level",
    "MultilevelHistory",
    "Objective",
    "Penalty",
    "Processes",
    "Progress",
    "ReducedObjective",
    "Regulariser",
    "Settings",
    "Smoothness",
    "SoftBudget",
    "Task",
    "Terminal",
    "Variation",
    "decay",
    "evaluate",
    "fit",
    "gauss_newton",
    "head_decay",
    "linear_cross_entropy",
    "multilevel",
    "optimizer_of",
    "refine",
    "silent",
    "smoothness",
    "steihaug",
    "task_of",
]
