"""Callbacks for Lightning; ``pip install liouville[lightning]``."""

from liouville.lightning.refinement import DepthRefinement

__all__ = ["DepthRefinement"]
