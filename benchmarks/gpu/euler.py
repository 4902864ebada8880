r"""All N layers of forward Euler in one launch, and back: y += h G^T s(K y + b), or y += h s(K y + b) without G.

As in `shears`: every state is stored, each program adds the weights' gradients up in a slot of its own.
"""

import torch
import triton
import triton.language as tl
from pieces import activated, add_to, matrix, outer, times
from shears import How


@triton.jit
def forward_kernel(
    Y, K, b, G, step, batch, layers, ks, bs, gs,
    BLOCK: tl.constexpr, N: tl.constexpr, M: tl.constexpr, OUTER: tl.constexpr,
    RELU: tl.constexpr, FAST: tl.constexpr, DOT: tl.constexpr, PREC: tl.constexpr,
):  # fmt: skip
    """Y (1 + layers, batch, N), the first state in row 0; K and G (layers or 1, M, N)."""
    rows = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    live = (rows < batch)[:, None]
    at = rows[:, None] * N + tl.arange(0, N)[None, :]
    y = tl.load(Y + at, live, 0.0)
    h, none = tl.load(step), tl.program_id(0) * 0
    for j in range(layers):
        u = times(y, tl.trans(tl.load(matrix(K + j * ks, M, N))), DOT, PREC)
        a, _ = activated(u + tl.load(b + j * bs + tl.arange(0, M))[None, :], RELU, FAST)
        if OUTER:
            y += h * times(a, tl.load(matrix(G + j * gs, M, N)), DOT, PREC)
        else:
            y += h * a
        tl.store(Y + (none + 1 + j).to(tl.int64) * batch * N + at, y, live)


@triton.jit
def backward_kernel(
    Y, GY, K, b, G, gK, gb, gG, step, batch, first, layers, blocks, ks, bs, gs,
    BLOCK: tl.constexpr, N: tl.constexpr, M: tl.constexpr, OUTER: tl.constexpr,
    RELU: tl.constexpr, FAST: tl.constexpr, DOT: tl.constexpr, PREC: tl.constexpr,
):  # fmt: skip
    """Layers first + layers - 1 down to first; GY is the costate, in place."""
    k, h = tl.program_id(0), tl.load(step)
    for block in range(k, blocks, tl.num_programs(0)):
        rows = block * BLOCK + tl.arange(0, BLOCK)
        live = (rows < batch)[:, None]
        at = rows[:, None] * N + tl.arange(0, N)[None, :]
        g = tl.load(GY + at, live, 0.0)
        for i in range(layers):
            c = layers - 1 - i
            j = first + c
            slot = (k * layers + c).to(tl.int64)
            y = tl.load(Y + (0 * k + j).to(tl.int64) * batch * N + at, live, 0.0)
            W = tl.load(matrix(K + j * ks, M, N))
            u = times(y, tl.trans(W), DOT, PREC) + tl.load(b + j * bs + tl.arange(0, M))[None, :]
            a, slope = activated(u, RELU, FAST)
            if OUTER:
                d = times(g, tl.trans(tl.load(matrix(G + j * gs, M, N))), DOT, PREC) * slope
                add_to(matrix(gG + slot * M * N, M, N), h * outer(a, g, DOT, PREC))
            else:
                d = g * slope
            add_to(matrix(gK + slot * M * N, M, N), h * outer(d, y, DOT, PREC))
            add_to(gb + slot * M + tl.arange(0, M), h * tl.sum(d, axis=0))
            g += h * times(d, W, DOT, PREC)
        tl.store(GY + at, g, live)


def _meta(y, weights, activation, how):
    M, N = weights[0].shape[1:]
    if (M & (M - 1)) or (N & (N - 1)) or (len(weights) == 2 and M != N):
        raise ValueError(f"the kernel takes widths that are powers of two, got {N} and {M} hidden.")
    strides = [w[0].numel() if len(w) > 1 else 0 for w in weights]
    meta = {"N": N, "M": M, "OUTER": len(weights) == 3, "RELU": activation == 1, "FAST": how.fast, "BLOCK": how.block}
    return strides, meta | {"DOT": how.dot, "PREC": how.prec, "num_warps": how.warps}


def forward(activation, h, layers, y, weights, how=How()):
    """All states, (1 + layers, batch, features); ``weights`` as `liouville.kernels.table.EulerPlan` makes them."""
    weights = [w.contiguous() for w in weights]
    strides, meta = _meta(y, weights, activation, how)
    K, b, G = (*weights, weights[0])[:3]
    Y = y.new_full((1 + layers, *y.shape), float("nan"))
    Y[0] = y
    step = torch.full((1,), h, dtype=y.dtype, device=y.device)  # a number would be passed as float32
    strides = (*strides, 0)[:3]
    forward_kernel[(triton.cdiv(len(y), how.block),)](Y, K, b, G, step, len(y), layers, *strides, **meta)
    return Y


def backward(activation, h, layers, Y, g, weights, how=How()):
    """The gradients of the first state and of the weights, in chunks of layers whose slots fit."""
    weights = [w.contiguous() for w in weights]
    strides, meta = _meta(Y[0], weights, activation, how)
    g, batch = g.clone(memory_format=torch.contiguous_format), len(g)
    blocks = triton.cdiv(batch, how.block)
    programs = max(1, min(blocks, how.programs))
    chunk = max(1, min(layers, how.slots // (programs * sum(w[0].numel() for w in weights) * Y.element_size())))
    sums, step = [torch.zeros_like(w) for w in weights], torch.full((1,), h, dtype=Y.dtype, device=Y.device)
    K, b, G = (*weights, weights[0])[:3]
    for end in range(layers, 0, -chunk):
        first = max(0, end - chunk)
        slots = [Y.new_zeros(programs, end - first, *w.shape[1:]) for w in weights]
        gK, gb, gG = (*slots, slots[0])[:3]
        sizes = (step, batch, first, end - first, blocks)
        backward_kernel[(programs,)](Y, g, K, b, G, gK, gb, gG, *sizes, *(*strides, 0)[:3], **meta)
        for total, slot, w in zip(sums, slots, weights, strict=True):
            found = slot.sum(0)
            if len(w) == layers:
                total[first:end] += found
            else:
                total += found.sum(0, keepdim=True)
    return g, sums
