"""The start of networks that records were made with before starts were scaled to the final time."""

from __future__ import annotations

__all__ = ["as_drawn", "smooth_as_drawn"]

from dataclasses import replace

from liouville.fields import Smooth
from liouville.runs import Plan


def smooth_as_drawn(model: str) -> Smooth:
    """Smooth weights, not scaled; around 0 for the residual network, around the field's own mean for others."""
    return Smooth(action=None, mean=0.0 if model == "resnet" else Smooth.mean)


def as_drawn(plan: Plan) -> Plan:
    """The plan with its initial weights as they are drawn.

    Examples:
        >>> as_drawn(Plan.of("swiss-roll")).init.action
    """
    return plan.changed(init=replace(plan.init, action=None))
