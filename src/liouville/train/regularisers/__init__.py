"""Regularisers as objects: value, gradient, curvature; and the penalty of a run, a sum of regularisers."""

from liouville.train.regularisers import penalty
from liouville.train.regularisers.base import Term as Term
from liouville.train.regularisers.penalty import *  # noqa: F403

__all__ = penalty.__all__
