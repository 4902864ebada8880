"""Figures of a training run. matplotlib is imported with the first one; its global state stays as it is."""

from liouville.report.figures import draw_all
from liouville.report.images import hardest_mistakes
from liouville.report.plane import decision_regions, features_at_depths
from liouville.report.style import save
from liouville.report.training import predictions, training_curves

__all__ = [
    "decision_regions",
    "draw_all",
    "features_at_depths",
    "hardest_mistakes",
    "predictions",
    "save",
    "training_curves",
]
