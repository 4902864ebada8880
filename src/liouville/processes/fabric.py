r"""Data parallel training on Lightning Fabric: `fit` with every batch shared among the processes.

With S the scores of the whole batch, each process computes its own rows of S from its copy of the weights and receives
the others, so that L(S) is known everywhere. Going back it differentiates only its own rows, and the gradients of all
processes add up to that of one. What surrounds the network, penalties among it, is computed in every process.
"""

from __future__ import annotations

__all__ = ["Parallel", "launched"]

import contextlib
import ctypes
import os
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from liouville.processes.sharing import Processes
from liouville.sequences import Inputs

try:
    from lightning.fabric import Fabric
    from lightning.fabric.plugins.environments import TorchElasticEnvironment
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "several processes train through Lightning Fabric. Lightning is not installed; run pip install "
        "'liouville[lightning]'."
    ) from error


class Parallel(Processes):
    """The processes of a `lightning.fabric.Fabric`, for ``fit(..., processes=Parallel(fabric))``.

    Args:
        fabric: launched already, with the strategy ``"ddp"``. The network must be on its device.

    Raises:
        ValueError: when training begins, for batch normalisation, whose statistics would be those of a share of the
            batch (`torch.nn.SyncBatchNorm` is admitted).
        ConnectionError: while training, when another process is gone.

    Examples:
        >>> fabric = Fabric(accelerator="cpu", devices=1)
        >>> Parallel(fabric).size
        1
    """

    def __init__(self, fabric: Fabric) -> None:
        self.fabric, self.rank, self.size = fabric, fabric.global_rank, fabric.world_size

    def wrapped(self, network: nn.Module) -> Any:
        for name, module in network.named_modules():
            if isinstance(module, _BatchNorm) and not isinstance(module, nn.SyncBatchNorm):
                raise ValueError(
                    f"{name or 'the network'} is a {type(module).__name__}, which would normalise the rows of each "
                    "process by themselves; use GroupNorm or LayerNorm, or convert it to SyncBatchNorm."
                )
        with _named_loss():
            return self.fabric.setup_module(network)

    def map(self, f: Callable[[Any], Tensor], x: Inputs) -> Tensor:
        if self.size == 1:
            return f(x)
        share = -(-len(x) // self.size)
        rows = torch.arange(self.rank * share, (self.rank + 1) * share, device=x.device)
        mine = f(x[rows.clamp(max=len(x) - 1)])  # rows that there are not are the last one, and are dropped below
        parts = [torch.empty_like(mine, memory_format=torch.contiguous_format) for _ in range(self.size)]
        with _named_loss():
            dist.all_gather(parts, mine.detach().contiguous())
        parts[self.rank] = mine
        return torch.cat(parts)[: len(x)]

    def backward(self, loss: Tensor, penalty: Tensor) -> None:
        """The processes' gradients of the loss add up, but DDP takes the mean, which is right for the penalty."""
        with _named_loss():
            self.fabric.backward(self.size * loss + penalty)

    def largest(self, number: int) -> int:
        if self.size == 1:
            return number
        value = torch.tensor([number])
        with _named_loss():
            dist.all_reduce(value, dist.ReduceOp.MAX)
        return int(value)

    def gathered(self, tensor: Tensor) -> list[Tensor]:
        if self.size == 1:
            return [tensor]
        parts = [torch.empty_like(tensor) for _ in range(self.size)]
        with _named_loss():
            dist.all_gather(parts, tensor)
        return parts

    def from_first(self, content: bytes) -> bytes:
        """As its length and its bytes: nothing that arrives is anything but numbers."""
        if self.size == 1:
            return content
        length = torch.tensor([len(content)])
        with _named_loss():
            dist.broadcast(length, 0)
            if not int(length):
                return b""
            mine = torch.zeros(int(length), dtype=torch.uint8)
            if self.rank == 0:
                mine = torch.frombuffer(bytearray(content), dtype=torch.uint8)
            dist.broadcast(mine, 0)
        return ctypes.string_at(mine.data_ptr(), mine.nbytes)


def launched(accelerator: str) -> Fabric:
    """A Fabric over the processes that the environment of torchrun, or of ``--nproc``, describes."""
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    fabric = Fabric(
        accelerator=accelerator,
        devices=here,
        num_nodes=int(os.environ["WORLD_SIZE"]) // here,
        strategy="ddp",
        plugins=TorchElasticEnvironment(),
    )
    fabric.launch()
    return fabric


@contextlib.contextmanager
def _named_loss() -> Iterator[None]:
    """Turn what the transport says when a process is gone into one sentence."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "gloo" not in str(error):
            raise
        raise ConnectionError("another process of this run died, stopped or cannot be reached.") from error
