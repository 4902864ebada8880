"""Training: the learning problem of both papers, its penalties, by stochastic gradients or by second derivatives."""

from liouville.processes.sharing import Processes
from liouville.renamed import names_moved
from liouville.train import regularisers
from liouville.train.callback import Callback
from liouville.train.checkpoints import Checkpoint
from liouville.train.diagnosis import DivergenceError
from liouville.train.evaluation import evaluate
from liouville.train.gaussnewton import Iteration, gauss_newton
from liouville.train.history import Epoch, History
from liouville.train.loggers import CSVLogger, TensorBoardLogger
from liouville.train.loop import fit
from liouville.train.losses import Huber, Quantile
from liouville.train.monitor import GradientMonitor, GradientRecord, GradientWarning
from liouville.train.multilevel import Level, MultilevelHistory, multilevel
from liouville.train.newton import Head
from liouville.train.objective import FullObjective
from liouville.train.optimizers import optimizer_of
from liouville.train.progress import Progress, Terminal
from liouville.train.refine import refine
from liouville.train.regularisers import *  # noqa: F403
from liouville.train.settings import GaussNewton, Settings
from liouville.train.trainable import Task
from liouville.train.varpro import ReducedObjective
from liouville.train.vocabulary import linear_cross_entropy

__all__ = [
    "CSVLogger",
    "Callback",
    "Checkpoint",
    "DivergenceError",
    "Epoch",
    "FullObjective",
    "GaussNewton",
    "GradientMonitor",
    "GradientRecord",
    "GradientWarning",
    "Head",
    "History",
    "Huber",
    "Iteration",
    "Level",
    "MultilevelHistory",
    "Processes",
    "Progress",
    "Quantile",
    "ReducedObjective",
    "Settings",
    "Task",
    "TensorBoardLogger",
    "Terminal",
    "evaluate",
    "fit",
    "gauss_newton",
    "linear_cross_entropy",
    "multilevel",
    "optimizer_of",
    "refine",
]
__all__ += regularisers.__all__

__getattr__ = names_moved(
    __name__,
    Expansion="objective",
    HeadSolution="newton",
    Objective="objective",
    decay="regularisers.depth",
    head_decay="regularisers.head",
    silent="progress",
    smoothness="regularisers.depth",
    steihaug="newton",
    task_of="trainable",
)
