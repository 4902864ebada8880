"""What both kernels are made of: activations, products in a stated precision, and where weights lie.

DOT: 0 sums over axes (any size), 1 the matrix units in ``PREC`` ("ieee", "tf32", "tf32x3"), 2 in bfloat16; 11 and 12
imitate tf32 and bfloat16 under the interpreter, which computes the first as float32 and the second wrongly.
"""

import triton
import triton.language as tl


@triton.jit
def tanh(x, FAST: tl.constexpr):
    """By exponentials, and near 0, where 1 - e would cancel, by the odd series; FAST: one instruction, to 2^-11."""
    if FAST:
        return tl.inline_asm_elementwise("tanh.approx.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1)
    z = tl.abs(x)
    e = tl.exp(-2.0 * z)
    far = (1.0 - e) / (1.0 + e)
    s = x * x
    c3: tl.constexpr = -1.0 / 3
    c5: tl.constexpr = 2.0 / 15
    c7: tl.constexpr = -17.0 / 315
    c9: tl.constexpr = 62.0 / 2835
    c11: tl.constexpr = -1382.0 / 155925
    bound: tl.constexpr = 0.03 if x.dtype == tl.float64 else 0.3
    near = x * (1.0 + s * (c3 + s * (c5 + s * (c7 + s * (c9 + s * c11)))))
    return tl.where(z < bound, near, tl.where(x < 0, -far, far))


@triton.jit
def activated(u, RELU: tl.constexpr, FAST: tl.constexpr):
    """sigma(u) and sigma'(u)."""
    if RELU:
        a = tl.maximum(u, 0.0)
        slope = tl.where(u > 0, 1.0, 0.0).to(u.dtype)
    else:
        a = tanh(u, FAST)
        slope = 1.0 - a * a
    return a, slope


@triton.jit
def rounded(x, DOT: tl.constexpr):
    """As the matrix units would read it."""
    if DOT == 12:
        return x.to(tl.bfloat16).to(tl.float32)
    bits = x.to(tl.int32, bitcast=True)
    return ((bits + 0x1000) & -0x2000).to(tl.float32, bitcast=True)


@triton.jit
def times(x, W, DOT: tl.constexpr, PREC: tl.constexpr):
    """x (B, k) times W (k, m), added up in the type of the state."""
    if DOT == 1:
        return tl.dot(x, W, input_precision=PREC, out_dtype=x.dtype)
    if DOT == 2:
        return tl.dot(x.to(tl.bfloat16), W.to(tl.bfloat16), out_dtype=tl.float32)
    if DOT > 10:
        return tl.dot(rounded(x, DOT), rounded(W, DOT), input_precision="ieee", out_dtype=tl.float32)
    return tl.sum(x[:, :, None] * W[None, :, :], axis=1)


@triton.jit
def outer(d, x, DOT: tl.constexpr, PREC: tl.constexpr):
    """d^T x, (m, n): the sum over the samples of a block."""
    if DOT == 1:
        return tl.dot(tl.trans(d), x, input_precision=PREC, out_dtype=x.dtype)
    if DOT == 2:
        return tl.dot(tl.trans(d.to(tl.bfloat16)), x.to(tl.bfloat16), out_dtype=tl.float32)
    if DOT > 10:
        return tl.dot(tl.trans(rounded(d, DOT)), rounded(x, DOT), input_precision="ieee", out_dtype=tl.float32)
    return tl.sum(d[:, :, None] * x[:, None, :], axis=0)


@triton.jit
def matrix(K, M: tl.constexpr, N: tl.constexpr):
    """The places of a matrix (M, N) from K on."""
    return K + tl.arange(0, M)[:, None] * N + tl.arange(0, N)[None, :]


@triton.jit
def add_to(place, value):
    """place += value, in memory that nobody else writes."""
    tl.store(place, tl.load(place) + value)
