r"""What a CUDA device and its settings say: how much memory there is, what products keep, whether a graph is recorded.

On float32 tensors the matrix units of a GPU multiply numbers of 10 bits where torch lets them (TF32): convolutions by
its default, matrix products by `torch.set_float32_matmul_precision`. The dtype of a tensor says nothing of it.
"""

from __future__ import annotations

__all__ = ["TF32", "Product", "fast_products", "is_capturing", "memory_share"]

from typing import Any, Literal

import torch

TF32 = 2.0**-10
"""eps of a number as the matrix units read it."""

Product = Literal["matrix", "convolution", "any"]


def fast_products(dtype: torch.dtype, device: str, product: Product = "any") -> bool:
    """Whether products of this dtype, on this kind of device, may be of numbers rounded to TF32.

    Args:
        dtype: of the tensors.
        device: its type.
        product: which kind of product; "any" where a module of a user's may do both.

    Examples:
        >>> fast_products(torch.float32, "cpu"), fast_products(torch.float64, "cuda")
        (False, False)
    """
    if device != "cuda" or dtype is not torch.float32:
        return False
    matrix, convolution = torch.backends.cuda.matmul, torch.backends.cudnn
    return (product != "convolution" and _is_fast(matrix, matrix)) or (
        product != "matrix" and _is_fast(convolution, getattr(convolution, "conv", None))
    )


def _is_fast(former: Any, setting: Any) -> bool:
    """By torch's own setting: torch 2.9 renamed it, and refuses the former name once the new one was set."""
    now = getattr(setting, "fp32_precision", None)
    if now is None:
        return bool(former.allow_tf32)
    if now == "none":
        now = getattr(torch.backends, "fp32_precision", "none")
    return bool(now != "ieee" and now != "none")


def is_capturing() -> bool:
    """Whether a CUDA graph is being recorded: what is read from the device now, or drawn on the host, would be lost."""
    return torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()


def memory_share(device: torch.device, share: float) -> int | None:
    """Bytes, a share of all memory of a CUDA device and not of what is free, so that it repeats; None elsewhere."""
    if device.type != "cuda":
        return None
    return int(share * torch.cuda.get_device_properties(device).total_memory)
