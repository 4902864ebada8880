"""Runs: what is asked (a plan), where one starts (recipes), training as it says, and what is left (a folder)."""

from liouville.renamed import names_moved
from liouville.runs import recipes
from liouville.runs.execute import Failed, Interrupted, Stopped, train, trained
from liouville.runs.folder import Writer
from liouville.runs.plan import Plan
from liouville.runs.recipes import PRESETS, recipe
from liouville.runs.run import Run

__all__ = [
    "PRESETS",
    "Failed",
    "Interrupted",
    "Plan",
    "Run",
    "Stopped",
    "Writer",
    "recipe",
    "recipes",
    "train",
    "trained",
]

__getattr__ = names_moved(__name__, DEVICES="choices", DTYPES="choices", INITS="choices", LIFTS="choices")
