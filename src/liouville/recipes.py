"""Moved to `liouville.runs`, where a recipe is a `Plan`; these names stay importable from here for one version."""

import warnings

from liouville.runs.recipes import PRESETS, recipe

__all__ = ["PRESETS", "recipe"]

warnings.warn("liouville.recipes has moved: import recipe from liouville.runs.", DeprecationWarning, stacklevel=2)
