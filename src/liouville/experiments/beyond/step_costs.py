"""Cost of a training step: CPU seconds, and bytes alive, counted by storages to exclude the allocator."""

from __future__ import annotations

__all__ = ["Alive", "Step", "peak", "timed"]

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._pytree import tree_leaves

from liouville.compilers import Bystander

Step = Callable[[], object]


class Alive(Bystander):
    """Bytes of the storages allocated inside and alive; their maximum is ``peak``."""

    def __init__(self) -> None:
        super().__init__()
        self.made: dict[int, tuple[StorageWeakRef, int]] = {}
        self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out, known = func(*args, **(kwargs or {})), len(self.made)
        inside = {t.untyped_storage().data_ptr() for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        for t in tree_leaves(out):
            if isinstance(t, Tensor) and t.untyped_storage().data_ptr() not in inside:
                ref = StorageWeakRef(t.untyped_storage())
                self.made.setdefault(ref.cdata, (ref, t.untyped_storage().nbytes()))
        if len(self.made) > known:
            self.made = {key: held for key, held in self.made.items() if not held[0].expired()}
            self.peak = max(self.peak, sum(size for _, size in self.made.values()))
        return out


def peak(step: Step) -> int:
    """The largest number of bytes allocated in ``step`` and alive at once.

    Temporaries inside an operation are not counted. Run the step once before, so that gradients exist.

    Examples:
        >>> peak(lambda: torch.zeros(10) + torch.ones(10))
        120
    """
    with Alive() as alive:
        step()
    return alive.peak


def timed(steps: Mapping[str, Step], repeats: int) -> dict[str, float]:
    """Medians of the CPU seconds of each step, with all steps in turn, so that other load affects all equally."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(repeats):
        for name, step in steps.items():
            start = time.process_time()
            step()
            seconds[name].append(time.process_time() - start)
    return {name: statistics.median(each) for name, each in seconds.items()}
