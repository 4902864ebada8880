"""Figures of runs and of the theory, and the page of a run. matplotlib and plotly are imported with the first figure;
their global state is unchanged."""

from liouville.report.explore import explore
from liouville.report.figures import draw_all
from liouville.report.images import hardest_mistakes
from liouville.report.motion import features_in_motion
from liouville.report.nodes import communication_graph
from liouville.report.page.written import html
from liouville.report.phase import phase_planes
from liouville.report.plane import decision_regions, features_at_depths
from liouville.report.regions import spectra_over_regions
from liouville.report.sensitivity import (
    growth_over_time,
    lyapunov_spectra,
    sensitivity_by_depth,
    sensitivity_by_iteration,
    singular_values_by_depth,
)
from liouville.report.style import save
from liouville.report.training import predictions, training_curves

__all__ = [
    "communication_graph",
    "decision_regions",
    "draw_all",
    "explore",
    "features_at_depths",
    "features_in_motion",
    "growth_over_time",
    "hardest_mistakes",
    "html",
    "lyapunov_spectra",
    "phase_planes",
    "predictions",
    "save",
    "sensitivity_by_depth",
    "sensitivity_by_iteration",
    "singular_values_by_depth",
    "spectra_over_regions",
    "training_curves",
]
