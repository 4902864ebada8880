"""Training: the learning problem of both papers, its penalties, by stochastic gradients or by second derivatives."""

from liouville.processes.sharing import Processes
from liouville.renamed import names_moved
from liouville.train.callback import Callback
from liouville.train.checkpoints import Checkpoint
from liouville.train.diagnosis import DivergenceError
from liouville.train.evaluation import evaluate
from liouville.train.gaussnewton import Iteration, gauss_newton
from liouville.train.history import Epoch, History
from liouville.train.loop import fit
from liouville.train.monitor import GradientMonitor, GradientRecord, GradientWarning
from liouville.train.multilevel import Level, MultilevelHistory, multilevel
from liouville.train.newton import Head
from liouville.train.objective import FullObjective
from liouville.train.optimizers import optimizer_of
from liouville.train.progress import Progress, Terminal
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
)
from liouville.train.settings import GaussNewton, Settings
from liouville.train.trainable import Task
from liouville.train.varpro import ReducedObjective
from liouville.train.vocabulary import linear_cross_entropy

__all__ = [
    "L1",
    "Callback",
    "Checkpoint",
    "ConvexRegulariser",
    "Decay",
    "DivergenceError",
    "Epoch",
    "FullObjective",
    "GaussNewton",
    "GradientMonitor",
    "GradientRecord",
    "GradientWarning",
    "Head",
    "HeadDecay",
    "HeadSmoothness",
    "History",
    "Iteration",
    "Level",
    "MultilevelHistory",
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
    "evaluate",
    "fit",
    "gauss_newton",
    "linear_cross_entropy",
    "multilevel",
    "optimizer_of",
    "refine",
]

__getattr__ = names_moved(
    __name__,
    Expansion="objective",
    HeadSolution="newton",
    Objective="objective",
    decay="regularisers",
    head_decay="regularisers",
    silent="progress",
    smoothness="regularisers",
    steihaug="newton",
    task_of="trainable",
)
