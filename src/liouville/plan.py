"""Moved to `liouville.runs`; these names stay importable from here for one version."""

import warnings

from liouville.runs.choices import DEVICES, DTYPES, INITS, LIFTS, engine, model_options
from liouville.runs.plan import Plan

__all__ = ["DEVICES", "DTYPES", "INITS", "LIFTS", "Plan", "engine", "model_options"]

warnings.warn("liouville.plan has moved: import Plan from liouville.runs.", DeprecationWarning, stacklevel=2)
