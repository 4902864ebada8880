// The two matrix products of a layer, on panels of samples; lanes are samples, so that one code serves every width.
//
// A panel holds C vectors of samples, feature after feature: entry (k, s) of a panel of width m is at k * C * lanes + s.
// A product's tile keeps R x C sums in registers and runs over all features; weights are broadcast in place.
// A weight gradient's tile keeps 4 x 4 vectors in registers, runs over all samples and adds up their lanes at the end.
#pragma once

#include "simd.hpp"

namespace LV_ISA {

/// Vectors per panel, and rows per tile: R * C sums, C inputs and a weight fill the registers.
constexpr int kPanel = kRegisters >= 32 ? 4 : 2;
constexpr int kRows = 6;

template <class T>
constexpr int panel_lanes = kPanel * lanes<T>;

/// W(i, k) = at[i * row + k * column]: K or its transpose, without moving it. Of a stencil, `at` is the middle and `tap`
/// the stride between its numbers: 1, or -1 for the transpose.
template <class T>
struct Matrix {
    const T* at;
    int rows, columns, row, column, tap = 1;
};

template <class T, int R, int C, class Use>
inline void tile(const Matrix<T>& W, int first, const T* bias, const T* in, Use use) {
    Vec<T> sum[R][C];
    const T* w = W.at + first * W.row;
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
        for (int c = 0; c < C; ++c) sum[r][c] = broadcast(bias ? bias[first + r] : T(0));
    for (int k = 0; k < W.columns; ++k) {
        Vec<T> x[C];
#pragma GCC unroll 8
        for (int c = 0; c < C; ++c) x[c] = load(in + (k * C + c) * lanes<T>);
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
            const Vec<T> weight = broadcast(w[r * W.row + k * W.column]);
#pragma GCC unroll 8
            for (int c = 0; c < C; ++c) sum[r][c] = fma<T>(weight, x[c], sum[r][c]);
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
        for (int c = 0; c < C; ++c) use(((first + r) * C + c) * lanes<T>, sum[r][c]);
}

/// A block of samples: `full` panels of kPanel vectors, and possibly a narrower one of `tail` vectors after them.
struct Block {
    int full, tail;
    int panels() const { return full + (tail ? 1 : 0); }
    int vectors() const { return full * kPanel + tail; }
    int width(int panel) const { return panel < full ? kPanel : tail; }
};

template <int n>
struct Number {
    static constexpr int value = n;
};

/// use(Number<width>), for the possible widths of panels.
template <class Use>
inline void with_width(int width, Use use) {
    switch (width) {
        case 1: return use(Number<1>{});
        case 2: return use(Number<2>{});
        default: return use(Number<kPanel>{});
    }
}

/// use(Number<R>, first) for the tiles of a matrix of `rows` rows, which differ by at most one row.
template <class Use>
inline void each_tile(int rows, Use use) {
    const int tiles = (rows + kRows - 1) / kRows;
    for (int t = 0, first = 0; t < tiles; ++t) {
        const int R = (rows - first + tiles - t - 1) / (tiles - t);
        switch (R) {
            case 1: use(Number<1>{}, first); break;
            case 2: use(Number<2>{}, first); break;
            case 3: use(Number<3>{}, first); break;
            case 4: use(Number<4>{}, first); break;
            case 5: use(Number<5>{}, first); break;
            default: use(Number<6>{}, first);
        }
        first += R;
    }
}

/// use(offset, (W in + bias)[offset]) for every vector of the result.
template <class T, int C, class Use>
inline void product(const Matrix<T>& W, const T* bias, const T* in, Use use) {
    each_tile(W.rows, [&](auto R, int first) { tile<T, R.value, C>(W, first, bias, in, use); });
}

/// One factor pair of an outer product summed over the samples: gradient(i, j) += sum_s left(i, s) right(j, s).
template <class T>
struct Factors {
    const T *left, *right;
};

constexpr int kOuterRows = kRegisters >= 32 ? 4 : 2, kOuterColumns = 4;

/// gradient(i, j) += scale * sum over the pairs and samples, for one tile whose rows and columns beyond the matrix
/// repeat its last ones and are dropped.
template <class T, int pairs>
LV_INLINE void outer_tile(const Block& block, const Factors<T> (&f)[pairs], Matrix<T> W, int i, int j, T scale, T* to) {
    constexpr int R = kOuterRows, C = kOuterColumns;
    Vec<T> sum[R * C] = {};
    for (int p = 0; p < pairs; ++p) {
        for (int panel = 0; panel < block.panels(); ++panel) {
            const int width = block.width(panel) * lanes<T>;
            const T *left[R], *right[C];
            for (int r = 0; r < R; ++r)
                left[r] = f[p].left + panel * W.rows * panel_lanes<T> + (i + r < W.rows ? i + r : W.rows - 1) * width;
            for (int c = 0; c < C; ++c)
                right[c] =
                    f[p].right + panel * W.columns * panel_lanes<T> + (j + c < W.columns ? j + c : W.columns - 1) * width;
            for (int s = 0; s < width; s += lanes<T>) {
                Vec<T> x[C];
#pragma GCC unroll 8
                for (int c = 0; c < C; ++c) x[c] = load(right[c] + s);
#pragma GCC unroll 8
                for (int r = 0; r < R; ++r) {
                    const Vec<T> d = load(left[r] + s);
#pragma GCC unroll 8
                    for (int c = 0; c < C; ++c) sum[r * C + c] = fma<T>(d, x[c], sum[r * C + c]);
                }
            }
        }
    }
    alignas(kBytes) T total[R * C];
#pragma GCC unroll 8
    for (int k = 0; k < R * C; k += lanes<T>) store(total + k, sums<T>(sum + k));
    for (int r = 0; r < R && i + r < W.rows; ++r)
        for (int c = 0; c < C && j + c < W.columns; ++c)
            to[(i + r) * W.row + (j + c) * W.column] += scale * total[r * C + c];
}

/// gradient += scale * sum over samples of left right^T, with the shape and strides of W. It is a separate function that
/// contains its whole tile: inlined into a large caller, the compiler would spill a tile's sums to memory.
template <class T, int pairs>
__attribute__((noinline)) void outer(const Block& block, const Factors<T> (&f)[pairs], const Matrix<T>& W, T scale,
                                     T* gradient) {
    for (int i = 0; i < W.rows; i += kOuterRows)
        for (int j = 0; j < W.columns; j += kOuterColumns) outer_tile<T, pairs>(block, f, W, i, j, scale, gradient);
}

/// gradient(i) += scale * sum_s d(i, s), for a bias.
template <class T>
inline void row_sums(const Block& block, const T* d, int rows, T scale, T* gradient) {
    for (int i = 0; i < rows; i += lanes<T>) {
        Vec<T> sum[lanes<T>] = {};
        for (int panel = 0; panel < block.panels(); ++panel) {
            const int width = block.width(panel) * lanes<T>;
            const T* row = d + panel * rows * panel_lanes<T> + i * width;
            for (int r = 0; r < lanes<T> && i + r < rows; ++r)
                for (int s = 0; s < width; s += lanes<T>) sum[r] += load(row + r * width + s);
        }
        const Vec<T> total = sums<T>(sum);
        for (int r = 0; r < lanes<T> && i + r < rows; ++r) gradient[i + r] += scale * total[r];
    }
}

}  // namespace LV_ISA
