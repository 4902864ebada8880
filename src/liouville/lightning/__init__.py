"""Callbacks for Lightning, and data-parallel training on its Fabric; ``pip install liouville[lightning]``."""

try:
    import lightning.pytorch  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("Lightning is not installed; run pip install 'liouville[lightning]'.") from error

from liouville.lightning.monitor import LightningGradientMonitor
from liouville.lightning.refinement import DepthRefinement
from liouville.processes.fabric import Parallel

__all__ = ["DepthRefinement", "LightningGradientMonitor", "Parallel"]
