"""The start of networks as it was before starts were scaled to the final time."""

from __future__ import annotations

__all__ = ["smooth_as_drawn"]

from liouville.fields import Smooth


def smooth_as_drawn(model: str) -> Smooth:
    """Smooth weights, not scaled; around 0 for the residual network, around the field's own mean for others."""
    return Smooth(action=None, mean=0.0 if model == "resnet" else Smooth.mean)
