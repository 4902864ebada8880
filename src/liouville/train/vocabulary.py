r"""The loss of a language model over its vocabulary, without the logits of all tokens at once.

With hidden states h_i, the head's weight W and bias b, and targets t_i,

    loss_i = -(1 - s) log p_i[t_i] - (s / V) sum_v log p_i[v],   p_i = softmax(W h_i + b),

    dloss_i / dz_i = p_i - (1 - s) e_{t_i} - s / V,   z_i = W h_i + b.

The logits z have V numbers for each token, hundreds of times what a hidden state has, and autograd keeps them more than
once. Here a chunk of tokens goes from its logits to its share of the gradients at once, and the logits are dropped.

Reference: Wijmans et al. 2024, Cut your losses in large-vocabulary language models, arXiv:2411.09009, Section 4.
"""

from __future__ import annotations

__all__ = ["linear_cross_entropy"]

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from liouville.precision import working


def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    bias: Tensor | None = None,
    *,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: Literal["mean", "sum", "none"] = "mean",
    chunk: int | None = None,
) -> Tensor:
    r"""``F.cross_entropy(F.linear(hidden, weight, bias), targets)`` at the memory of a few rows of logits.

    Gradients of a mean or a sum are computed in the forward pass, of those arguments that need one; a second backward
    pass, and the backward pass of ``reduction="none"``, compute the logits again. Second derivatives are right, and
    have no chunks: they need the memory of all logits. The weight may be that of the embedding.

    Args:
        hidden: (..., features), what the head gets.
        weight: (classes, features), of the head; ``head.weight`` of an ``nn.Linear``.
        targets: (...), whole numbers from 0 to classes - 1, or ``ignore_index``.
        bias: (classes,).
        ignore_index: tokens with this target do not count.
        label_smoothing: s, from 0 to 1.
        reduction: ``"mean"`` over the tokens that count (nan without one), ``"sum"``, or ``"none"``: one loss for each.
        chunk: how many tokens go together; None: as many as there are features, so that the logits at hand are as large
            as the weight.

    Returns:
        The loss, in float32 for numbers of 16 bits. Products are of the dtype of the numbers or of autocast, but on the
        CPU at least of float32, which is quicker there and has smaller errors.

    Raises:
        NotImplementedError: under a transform of torch.func.
        TypeError: for targets that are no whole numbers (probabilities go to ``F.cross_entropy``), hidden states or
            weights that are no floating-point numbers, or of different dtypes without autocast.
        ValueError: for shapes that do not fit, another reduction, or no tokens in a chunk.

    Examples:
        >>> h, head = torch.randn(2, 5, 8), nn.Linear(8, 1000)
        >>> targets = torch.randint(1000, (2, 5))
        >>> loss = linear_cross_entropy(h, head.weight, targets, head.bias)
        >>> torch.allclose(loss, nn.functional.cross_entropy(head(h).flatten(0, 1), targets.flatten()))
        True
    """
    kind = hidden.device.type
    low = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
    _require(hidden, weight, targets, bias, low)
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"reduction must be 'mean', 'sum' or 'none', got {reduction!r}.")
    if not 0.0 <= label_smoothing <= 1.0:
        raise ValueError(f"label_smoothing must be from 0 to 1, got {label_smoothing}.")
    if chunk is not None and chunk < 1:
        raise ValueError(f"chunk must be at least one token, got {chunk}.")
    dtype = hidden.dtype if low is None or hidden.dtype == torch.float64 else low
    settings = _Settings(_of_products(dtype, kind), ignore_index, label_smoothing, chunk or hidden.shape[-1])
    run = torch.compiler.disable(_run) if torch.compiler.is_compiling() else _run  # a declared graph break
    with torch.autocast(kind, enabled=False):
        losses = run(hidden.reshape(-1, hidden.shape[-1]), weight, bias, targets.flatten().long(), settings, reduction)
    return losses.view(targets.shape) if reduction == "none" else losses


def _of_products(dtype: torch.dtype, kind: str) -> torch.dtype:
    return working(dtype) if kind == "cpu" else dtype


@dataclass(frozen=True)
class _Settings:
    dtype: torch.dtype  # of the products
    ignore_index: int
    smoothing: float
    chunk: int


class _Head(NamedTuple):
    """What a gradient may be asked of, or those gradients."""

    hidden: Tensor | None
    weight: Tensor | None
    bias: Tensor | None


def _run(h: Tensor, w: Tensor, b: Tensor | None, t: Tensor, settings: _Settings, reduction: str) -> Tensor:
    return _Chunked.apply(h, w, b, t, settings, reduction, torch.is_grad_enabled())


class _Chunked(torch.autograd.Function):
    """The losses of all tokens, or their sum or mean."""

    @staticmethod
    def forward(
        ctx: Any, h: Tensor, w: Tensor, b: Tensor | None, t: Tensor, settings: _Settings, reduction: str, traced: bool
    ) -> Tensor:
        ctx.save_for_backward(h, w, b, t)
        ctx.settings, ctx.reduction = settings, reduction
        wanted = ctx.needs_input_grad[:3] if traced and reduction != "none" else (False,) * 3
        kept = t != settings.ignore_index
        losses, ctx.held = _pass(_Head(h, w, b), t, kept, wanted, settings, losses=True)
        ctx.share = 1.0 if reduction != "mean" else 1.0 / kept.sum().to(losses.dtype)
        return losses if reduction == "none" else losses.sum() * ctx.share

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        h, w, b, t = ctx.saved_tensors
        held, ctx.held = ctx.held, None
        if ctx.reduction == "none" or held is None or torch.is_grad_enabled():
            rows = (slope * ctx.share).expand(len(t)) * (t != ctx.settings.ignore_index)
            with torch.autocast(h.device.type, enabled=False):
                _, held = _pass(_Head(h, w, b), t, rows, ctx.needs_input_grad[:3], ctx.settings, losses=False)
        else:
            for g in held:
                if g is not None:
                    g.mul_(slope * ctx.share)
        like = (None if g is None or x is None else g.to(x.dtype) for g, x in zip(held, (h, w, b), strict=True))
        return *like, None, None, None, None


def _pass(
    head: _Head, t: Tensor, rows: Tensor, wanted: Sequence[bool], settings: _Settings, losses: bool
) -> tuple[Tensor, _Head]:
    """Every token's loss where they are asked for, and the gradients of sum_i rows_i loss_i that are wanted."""
    h, w, b = (None if x is None else x.to(settings.dtype) for x in head)
    assert h is not None and w is not None
    exact = working(settings.dtype)
    dw = torch.zeros_like(w, dtype=exact) if wanted[1] else None
    db = w.new_zeros(len(w), dtype=exact) if wanted[2] else None
    found, dh = [h.new_zeros(0, dtype=exact)], [h.new_zeros(0, h.shape[1])]
    for first in range(0, len(t), settings.chunk):
        part = slice(first, first + settings.chunk)
        z = F.linear(h[part], w, b).to(exact)
        if losses:
            options = {"ignore_index": settings.ignore_index, "label_smoothing": settings.smoothing}
            found.append(F.cross_entropy(z, t[part], reduction="none", **options))  # type: ignore[arg-type]
        if not any(wanted):
            continue
        dz = _slope(z, t[part], rows[part], settings)
        del z
        if db is not None:
            db += dz.sum(0)
        dz = dz.to(settings.dtype)
        if dw is not None:
            dw = dw.addmm_(dz.mT, h[part]) if dw.dtype == dz.dtype else dw.add_(dz.mT @ h[part])
        if wanted[0]:
            dh.append(dz @ w)
    return torch.cat(found), _Head(torch.cat(dh) if wanted[0] else None, dw, db)


def _slope(z: Tensor, t: Tensor, rows: Tensor, settings: _Settings) -> Tensor:
    """rows_i (p_i - (1 - s) e_{t_i} - s / V); in place, but where it is differentiated itself."""
    p = z.softmax(-1)
    if torch.is_grad_enabled():
        p = p.clone()  # softmax remembers what it gave
    at = t.masked_fill(t == settings.ignore_index, 0).unsqueeze(-1)
    p.sub_(settings.smoothing / z.shape[-1])
    p.scatter_add_(-1, at, torch.full_like(at, settings.smoothing - 1.0, dtype=p.dtype))
    return p.mul_(rows.to(p.dtype).unsqueeze(-1))


def _require(hidden: Tensor, weight: Tensor, targets: Tensor, bias: Tensor | None, low: torch.dtype | None) -> None:
    if torch._C._are_functorch_transforms_active():
        raise NotImplementedError(
            "linear_cross_entropy has gradients by torch.autograd, not by torch.func transforms; use "
            "F.cross_entropy(F.linear(hidden, weight, bias), targets) there."
        )
    given = [hidden, weight] if bias is None else [hidden, weight, bias]
    dtypes = ", ".join(str(x.dtype) for x in given)
    if not all(x.is_floating_point() for x in given) or (low is None and len({x.dtype for x in given}) > 1):
        raise TypeError(
            "hidden states, weight and bias must be floating-point numbers of one dtype, but under autocast, got "
            f"{dtypes}; convert them with .to()."
        )
    if targets.is_floating_point() or targets.is_complex() or targets.dtype == torch.bool:
        raise TypeError(
            f"targets must be whole numbers, the classes, got {targets.dtype}; F.cross_entropy takes probabilities."
        )
    if hidden.dim() < 1 or weight.dim() != 2 or weight.shape[1] != hidden.shape[-1] or not len(weight):
        raise ValueError(
            f"weight must be (classes, features) for hidden states (..., features), got {tuple(weight.shape)} for "
            f"{tuple(hidden.shape)}; nn.Linear(features, classes).weight is so."
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"bias must be ({len(weight)},), one number for each class, got {tuple(bias.shape)}.")
    if targets.shape != hidden.shape[:-1]:
        raise ValueError(
            f"targets must be {tuple(hidden.shape[:-1])}, one for each hidden state, got {tuple(targets.shape)}."
        )
