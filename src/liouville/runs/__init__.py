"""Runs: what is asked (a plan), where one starts (recipes), training as it says, and what is left (a folder)."""

from liouville.runs import recipes
from liouville.runs.choices import DEVICES, DTYPES, INITS, LIFTS
from liouville.runs.execute import Failed, Interrupted, Stopped, train, trained
from liouville.runs.folder import Writer
from liouville.runs.plan import Plan
from liouville.runs.recipes import PRESETS, recipe
from liouville.runs.run import Run

__all__ = [
    "DEVICES",
    "DTYPES",
    "INITS",
    "LIFTS",
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
