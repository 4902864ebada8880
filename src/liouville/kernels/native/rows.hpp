// Products of rows: lanes are features, so that one sample fills a vector, and rows of the caller are read in place.
//
// A sequence takes few samples through many steps with one weight: that weight is packed once, with rows padded to whole
// vectors by zeros. Then K x, K^T a and the sums of the gradients over samples and steps are one formula,
//
//   to(i, :) = use(sum_k in(i, k) M(k, :))
//
// whose tile keeps R x C sums in registers. Of a few samples it keeps several sums of each, so that one addition need not
// wait for the one before.
#pragma once

#include "block.hpp"

namespace LV_ISA {

/// Vectors per tile: kRows * kWide sums, kWide weights and a number fill the registers.
constexpr int kWide = kRegisters >= 32 ? 4 : 2;

/// `width` numbers take this many with their padding.
template <class T>
constexpr int64_t padded(int64_t width) {
    return (width + lanes<T> - 1) / lanes<T> * lanes<T>;
}

/// in(i, k) = at[i * row + k * column], in any memory.
template <class T>
struct Rows {
    const T* at;
    int64_t row, column = 1;
};

/// M(k, :) for k < depth: rows of `width` numbers, which are padded.
template <class T>
struct Packed {
    const T* at;
    int64_t depth, width;
};

/// to(i, :) = sum + add(i, :)
template <class T>
struct Begin {
    T* to;
    int64_t row;
    const T* add;

    void operator()(int64_t i, int64_t at, Vec<T> sum) const {
        store(to + i * row + at, sum + load(add + i * row + at));
    }
};

/// to(i, :) += sum
template <class T>
struct Add {
    T* to;
    int64_t row;

    void operator()(int64_t i, int64_t at, Vec<T> sum) const {
        store(to + i * row + at, sum + load(to + i * row + at));
    }
};

/// to(i, :) = sum
template <class T>
struct Set {
    T* to;
    int64_t row;

    void operator()(int64_t i, int64_t at, Vec<T> sum) const { store(to + i * row + at, sum); }
};

/// to(i, :) += step_i sum
template <class T>
struct Move {
    T* to;
    int64_t row;
    const T* step;

    void operator()(int64_t i, int64_t at, Vec<T> sum) const {
        store(to + i * row + at, fma<T>(broadcast(step[i]), sum, load(to + i * row + at)));
    }
};

/// The same on the grid: a row of integers moves by whole numbers, and its floating-point image with it.
template <class T>
struct MoveRounded {
    T* to;
    Integer<T>* z;
    int64_t row;
    const T* step;  // over the spacing
    T spacing, limit;
    IntegerVec<T>* left;
    Vec<T>* largest;

    void operator()(int64_t i, int64_t at, Vec<T> sum) const {
        T* image = to + i * row + at;
        Rounded<T>{image, z + i * row + at, step[i], spacing, limit, left}(0, sum);
        const Vec<T> x = load(image);
        *largest = *largest < x ? x : *largest < -x ? -x : *largest;
    }
};

template <class T, int R, int C, class Use>
LV_INLINE void rows_tile(const Rows<T>& in, const Packed<T>& M, int64_t first, int64_t left, const Use& use) {
    constexpr int S = R * C >= 8 ? 1 : R * C >= 4 ? 2 : R * C >= 2 ? 4 : 8;
    Vec<T> sum[S][R][C] = {};
    const T *x = in.at + first * in.row, *weights = M.at + left;
    const auto add = [&](Vec<T>(&to)[R][C], int64_t k) {
        Vec<T> w[C];
#pragma GCC unroll 8
        for (int c = 0; c < C; ++c) w[c] = load(weights + k * M.width + c * lanes<T>);
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
            const Vec<T> number = broadcast(x[r * in.row + k * in.column]);
#pragma GCC unroll 8
            for (int c = 0; c < C; ++c) to[r][c] = fma<T>(number, w[c], to[r][c]);
        }
    };
    int64_t k = 0;
    for (; k + S <= M.depth; k += S)
#pragma GCC unroll 8
        for (int s = 0; s < S; ++s) add(sum[s], k + s);
    for (; k < M.depth; ++k) add(sum[0], k);
#pragma GCC unroll 8
    for (int s = S / 2; s > 0; s /= 2)
#pragma GCC unroll 8
        for (int t = 0; t < s; ++t)
#pragma GCC unroll 8
            for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
                for (int c = 0; c < C; ++c) sum[t][r][c] += sum[t + s][r][c];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
        for (int c = 0; c < C; ++c) use(first + r, left + c * lanes<T>, sum[0][r][c]);
}

/// use(i, offset, sum) for every vector of the product with `rows` rows.
template <class T, class Use>
__attribute__((noinline)) void rows_product(Rows<T> in, int64_t rows, Packed<T> M, Use use) {
    const int64_t vectors = M.width / lanes<T>;
    for (int64_t v = 0; v < vectors; v += kWide) {
        const int64_t left = v * lanes<T>;
        each_tile(int(rows), [&](auto R, int first) {
            switch (vectors - v) {
                case 1: return rows_tile<T, R.value, 1>(in, M, first, left, use);
                case 2: return rows_tile<T, R.value, 2>(in, M, first, left, use);
                case 3: return rows_tile<T, R.value, kWide == 4 ? 3 : kWide>(in, M, first, left, use);
                default: return rows_tile<T, R.value, kWide>(in, M, first, left, use);
            }
        });
    }
}

}  // namespace LV_ISA
