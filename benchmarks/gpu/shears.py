r"""All N layers of a run of shears in one launch, and the way back in one launch for every chunk of layers.

A program takes blocks of samples through the depth. After every shear it stores the half that moved; going back it
loads what each shear read, so that nothing is inverted and nothing drifts. The gradients of the weights of each layer
are added up in a slot of the program's own, and the slots are summed in order: no atomics, the same bits every time.

The shears come as small arrays, so that one compiled kernel serves symplectic Euler, Verlet, Yoshida and every step.
Kinds as in `liouville.kernels.table`: 0 K^T s(K x + b), 1 s(K x + b), 2 s(K^T x + b).
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from pieces import activated, add_to, matrix, outer, times

SLOTS = 2**28  # bytes that the slots of one launch may take


@triton.jit
def _inner(x, K, b, KIND: tl.constexpr, M: tl.constexpr, N: tl.constexpr, DOT: tl.constexpr, PREC: tl.constexpr):
    """K x + b or K^T x + b, and K."""
    W = tl.load(matrix(K, M, N))
    if KIND == 2:
        return times(x, W, DOT, PREC) + tl.load(b + tl.arange(0, N))[None, :], W
    return times(x, tl.trans(W), DOT, PREC) + tl.load(b + tl.arange(0, M))[None, :], W


@triton.jit
def _moved(
    x, y, h, K, b,
    KIND: tl.constexpr, M: tl.constexpr, N: tl.constexpr,
    RELU: tl.constexpr, FAST: tl.constexpr, DOT: tl.constexpr, PREC: tl.constexpr,
):  # fmt: skip
    """y + h v(x)"""
    u, W = _inner(x, K, b, KIND, M, N, DOT, PREC)
    a, _ = activated(u, RELU, FAST)
    if KIND == 0:
        return y + h * times(a, W, DOT, PREC)
    return y + h * a


@triton.jit
def _pulled(
    x, gx, gy, h, K, b, GK, gb,
    KIND: tl.constexpr, M: tl.constexpr, N: tl.constexpr,
    RELU: tl.constexpr, FAST: tl.constexpr, DOT: tl.constexpr, PREC: tl.constexpr,
):  # fmt: skip
    """g_x + h (dv/dx)^T g_y; h (dv/dK)^T g_y and h (dv/db)^T g_y are added at GK and gb."""
    u, W = _inner(x, K, b, KIND, M, N, DOT, PREC)
    a, slope = activated(u, RELU, FAST)
    if KIND == 0:
        d = times(gy, tl.trans(W), DOT, PREC) * slope
        gx += h * times(d, W, DOT, PREC)
        gW = outer(d, x, DOT, PREC) + outer(a, gy, DOT, PREC)
    elif KIND == 1:
        d = gy * slope
        gx += h * times(d, W, DOT, PREC)
        gW = outer(d, x, DOT, PREC)
    else:
        d = gy * slope
        gx += h * times(d, tl.trans(W), DOT, PREC)
        gW = outer(x, d, DOT, PREC)
    add_to(matrix(GK, M, N), h * gW)
    if KIND == 2:
        add_to(gb + tl.arange(0, N), h * tl.sum(d, axis=0))
    else:
        add_to(gb + tl.arange(0, M), h * tl.sum(d, axis=0))
    return gx


@triton.jit
def forward_kernel(
    P, Q, K0, b0, K1, b1, steps, moves, own, batch, layers, stages, ps, qs, k0s, b0s, k1s, b1s,
    KEEP: tl.constexpr, BLOCK: tl.constexpr, NP: tl.constexpr, NQ: tl.constexpr,
    M0: tl.constexpr, N0: tl.constexpr, M1: tl.constexpr, N1: tl.constexpr, KIND0: tl.constexpr, KIND1: tl.constexpr,
    RELU: tl.constexpr, FAST: tl.constexpr, DOT: tl.constexpr, PREC: tl.constexpr,
):  # fmt: skip
    """P (1 + layers x ps, batch, NP), Q likewise: the first state in row 0, each move of a half in the next row.

    ps and qs are how often a layer moves a half, own[s] how often before stage s. Without KEEP there is no way back:
    row 1 is the last one.
    """
    rows = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    live = (rows < batch)[:, None]
    at_p = rows[:, None] * NP + tl.arange(0, NP)[None, :]
    at_q = rows[:, None] * NQ + tl.arange(0, NQ)[None, :]
    p, q = tl.load(P + at_p, live, 0.0), tl.load(Q + at_q, live, 0.0)
    for j in range(layers):
        for s in range(stages):
            h, before = tl.load(steps + s), tl.load(own + s)
            if tl.load(moves + s) == 0:
                p = _moved(q, p, h, K0 + j * k0s, b0 + j * b0s, KIND0, M0, N0, RELU, FAST, DOT, PREC)
                if KEEP:
                    tl.store(P + (1 + j * ps + before).to(tl.int64) * batch * NP + at_p, p, live)
            else:
                q = _moved(p, q, h, K1 + j * k1s, b1 + j * b1s, KIND1, M1, N1, RELU, FAST, DOT, PREC)
                if KEEP:
                    tl.store(Q + (1 + j * qs + before).to(tl.int64) * batch * NQ + at_q, q, live)
    if not KEEP:
        tl.store(P + batch * NP + at_p, p, live)
        tl.store(Q + batch * NQ + at_q, q, live)


@triton.jit
def backward_kernel(
    P, Q, GP, GQ, K0, b0, K1, b1, gK0, gb0, gK1, gb1, steps, moves, other,
    batch, first, layers, stages, blocks, ps, qs, k0s, b0s, k1s, b1s,
    BLOCK: tl.constexpr, NP: tl.constexpr, NQ: tl.constexpr,
    M0: tl.constexpr, N0: tl.constexpr, M1: tl.constexpr, N1: tl.constexpr, KIND0: tl.constexpr, KIND1: tl.constexpr,
    RELU: tl.constexpr, FAST: tl.constexpr, DOT: tl.constexpr, PREC: tl.constexpr,
):  # fmt: skip
    """Layers first + layers - 1 down to first; GP and GQ are the costate, in place.

    gK*, gb*: (programs, layers, ...) zeros. other[s]: how often a layer moves the half that stage s reads, before it.
    """
    k = tl.program_id(0)
    B0: tl.constexpr = N0 if KIND0 == 2 else M0
    B1: tl.constexpr = N1 if KIND1 == 2 else M1
    for block in range(k, blocks, tl.num_programs(0)):
        rows = block * BLOCK + tl.arange(0, BLOCK)
        live = (rows < batch)[:, None]
        at_p = rows[:, None] * NP + tl.arange(0, NP)[None, :]
        at_q = rows[:, None] * NQ + tl.arange(0, NQ)[None, :]
        gp, gq = tl.load(GP + at_p, live, 0.0), tl.load(GQ + at_q, live, 0.0)
        for i in range(layers):
            c = layers - 1 - i
            j = first + c
            slot = (k * layers + c).to(tl.int64)
            for t in range(stages):
                s = stages - 1 - t
                h, before = tl.load(steps + s), tl.load(other + s)
                if tl.load(moves + s) == 0:
                    q = tl.load(Q + (j * qs + before).to(tl.int64) * batch * NQ + at_q, live, 0.0)
                    GK, gb = gK0 + slot * M0 * N0, gb0 + slot * B0
                    gq = _pulled(q, gq, gp, h, K0 + j * k0s, b0 + j * b0s, GK, gb, KIND0, M0, N0, RELU, FAST, DOT, PREC)
                else:
                    p = tl.load(P + (j * ps + before).to(tl.int64) * batch * NP + at_p, live, 0.0)
                    GK, gb = gK1 + slot * M1 * N1, gb1 + slot * B1
                    gp = _pulled(p, gp, gq, h, K1 + j * k1s, b1 + j * b1s, GK, gb, KIND1, M1, N1, RELU, FAST, DOT, PREC)
        tl.store(GP + at_p, gp, live)
        tl.store(GQ + at_q, gq, live)


class How(NamedTuple):
    """How a launch is made: samples of a block, products (`pieces`), tanh, warps; and programs on the way back."""

    block: int = 32
    dot: int = 0
    prec: str = "ieee"
    fast: bool = False
    warps: int = 4
    programs: int = 132
    slots: int = SLOTS


class _Stages(NamedTuple):
    """The stages of a layer, as the kernels read them."""

    steps: torch.Tensor
    moves: torch.Tensor
    own: torch.Tensor
    other: torch.Tensor
    ps: int
    qs: int

    @classmethod
    def of(cls, plan, h, like):
        moves = [moved for moved, _ in plan.stages]
        own = [moves[:s].count(m) for s, m in enumerate(moves)]
        other = [moves[:s].count(1 - m) for s, m in enumerate(moves)]
        whole = [torch.tensor(x, dtype=torch.int32, device=like.device) for x in (moves, own, other)]
        steps = torch.tensor([c * h for _, c in plan.stages], dtype=like.dtype, device=like.device)
        return cls(steps, *whole, moves.count(0), moves.count(1))


def _weights(plan, theta, p, q, how):
    (kind0, K0, b0), (kind1, K1, b1) = plan.velocities
    tensors = [theta[i].contiguous() for i in (K0, b0, K1, b1)]
    strides = [w[0].numel() if len(w) > 1 else 0 for w in tensors]  # 0: one weight for all layers
    sizes = [*tensors[0].shape[1:], *tensors[2].shape[1:]]
    widths = (p.shape[-1], q.shape[-1], *sizes)
    if any(n & (n - 1) for n in widths):
        raise ValueError(f"the kernel takes halves and hidden widths that are powers of two, got {widths}.")
    if how.dot and min(widths) < 16:
        raise ValueError(f"the matrix units take 16 features of a half at least, got {widths}; use dot=0.")
    meta = dict(zip(("NP", "NQ", "M0", "N0", "M1", "N1"), widths, strict=True))
    meta |= {"KIND0": kind0, "KIND1": kind1, "RELU": plan.activation == 1, "FAST": how.fast, "BLOCK": how.block}
    return tensors, strides, meta | {"DOT": how.dot, "PREC": how.prec, "num_warps": how.warps}


def forward(plan, h, layers, p, q, theta, how=How(), keep=True):
    """The states: P (1 + layers x moves, batch, features) with the first state in front and the last behind, and Q."""
    tensors, strides, meta = _weights(plan, theta, p, q, how)
    stages = _Stages.of(plan, h, p)
    P = p.new_full((1 + (layers * stages.ps if keep else 1), *p.shape), float("nan"))
    Q = q.new_full((1 + (layers * stages.qs if keep else 1), *q.shape), float("nan"))
    P[0], Q[0] = p, q
    small = (stages.steps, stages.moves, stages.own)
    sizes = (len(p), layers, len(plan.stages), stages.ps, stages.qs)
    forward_kernel[(triton.cdiv(len(p), how.block),)](P, Q, *tensors, *small, *sizes, *strides, KEEP=keep, **meta)
    return P, Q


def backward(plan, h, layers, P, Q, gp, gq, theta, how=How()):
    """The gradients of the first state's halves, and of theta, from the states that `forward` kept."""
    tensors, strides, meta = _weights(plan, theta, P, Q, how)
    stages = _Stages.of(plan, h, P)
    gp, gq, batch = (
        gp.clone(memory_format=torch.contiguous_format),
        gq.clone(memory_format=torch.contiguous_format),
        len(gp),
    )
    blocks = triton.cdiv(batch, how.block)
    programs = max(1, min(blocks, how.programs))
    of_a_layer = programs * sum(w[0].numel() for w in tensors) * P.element_size()
    chunk = max(1, min(layers, how.slots // of_a_layer))
    sums = [torch.zeros_like(w) for w in tensors]
    small = (stages.steps, stages.moves, stages.other)
    for end in range(layers, 0, -chunk):
        first = max(0, end - chunk)
        slots = [P.new_zeros(programs, end - first, *w.shape[1:]) for w in tensors]
        sizes = (batch, first, end - first, len(plan.stages), blocks, stages.ps, stages.qs)
        backward_kernel[(programs,)](P, Q, gp, gq, *tensors, *slots, *small, *sizes, *strides, **meta)
        for total, slot, w in zip(sums, slots, tensors, strict=True):
            found = slot.sum(0)  # in the order of the programs
            if len(w) == layers:
                total[first:end] += found
            else:
                total += found.sum(0, keepdim=True)
    gradients = [torch.zeros_like(t) for t in theta]
    places = [i for _, K, b in plan.velocities for i in (K, b)]
    for i, total in zip(places, sums, strict=True):
        gradients[i] += total
    return gp, gq, gradients
