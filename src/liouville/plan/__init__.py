"""Plans: everything that decides what a training run computes, as one record that can be written down."""

from liouville.plan.choices import DEVICES, DTYPES, INITS, LIFTS, engine, model_options
from liouville.plan.record import Plan

__all__ = ["DEVICES", "DTYPES", "INITS", "LIFTS", "Plan", "engine", "model_options"]
