"""Regularisers as objects: value, gradient, curvature; and the penalty of a run, a sum of regularisers."""

from liouville.train.regularisers.base import ConvexRegulariser, Regulariser, Term
from liouville.train.regularisers.bound import SoftBudget
from liouville.train.regularisers.depth import L1, Decay, Smoothness, Variation, decay, smoothness
from liouville.train.regularisers.head import HeadDecay, HeadSmoothness, head_decay
from liouville.train.regularisers.penalty import Penalty

__all__ = [
    "L1",
    "ConvexRegulariser",
    "Decay",
    "HeadDecay",
    "HeadSmoothness",
    "Penalty",
    "Regulariser",
    "Smoothness",
    "SoftBudget",
    "Term",
    "Variation",
    "decay",
    "head_decay",
    "smoothness",
]
