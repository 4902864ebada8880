// A 3 x 3 convolution as 16 dense products: Winograd's F(2 x 2, 3 x 3), with lanes along an image.
//
// An image is cut into tiles of 2 x 2 pixels, and held as four quarters: the pixels (2 r + a, 2 c + b) for each a, b. In
// one dimension, two results m_0 + m_1 + m_2 and m_1 - m_2 - m_3 of a stencil g at four numbers d follow from the four
// products m = (G g) (B d) instead of six; in two dimensions 16 instead of 36, with
//
//   B d = (d_0 - d_2, d_1 + d_2, d_2 - d_1, d_1 - d_3),   G g = (g_0, (g_0 + g_1 + g_2)/2, (g_0 - g_1 + g_2)/2, g_2)
//
// along both axes. Sums over channels commute with the products, so that each of the 16 is a matrix product like a dense
// layer's. The transpose of the stencil is the reversed stencil: it swaps numbers 0 and 3 of G g. The gradient of g is
// G^T of the outer product of (A dy, B d), with A the transpose of the map from m to the result.
#pragma once

#include "shear.hpp"

namespace LV_ISA {

constexpr int kFactors = 16;

/// The positions of a lot of images. Row r of tiles begins at position r * pitch of each quarter; an empty column and
/// empty rows between images serve as zero padding on either side.
struct Tiling {
    int pitch, quarter;  // positions from row to row, and entries from one quarter of a channel to the next
    Block block;         // the positions
    int64_t entries(int channels) const { return int64_t(channels) * 4 * quarter; }
};

template <class T>
LV_INLINE void transform_input(const Vec<T> (&d)[4], Vec<T> (&t)[4]) {
    t[0] = d[0] - d[2], t[1] = d[1] + d[2], t[2] = d[2] - d[1], t[3] = d[1] - d[3];
}

template <class T>
LV_INLINE void transform_result(const Vec<T> (&m)[4], Vec<T> (&y)[2]) {
    y[0] = m[0] + m[1] + m[2], y[1] = m[1] - m[2] - m[3];
}

template <class T>
LV_INLINE void transform_costate(const Vec<T> (&y)[2], Vec<T> (&m)[4]) {
    m[0] = y[0], m[1] = y[0] + y[1], m[2] = y[0] - y[1], m[3] = -y[1];
}

template <class T>
LV_INLINE void transform_weights(const Vec<T> (&g)[3], Vec<T> (&t)[4]) {
    const Vec<T> half = broadcast(T(0.5)), ends = half * (g[0] + g[2]), middle = half * g[1];
    t[0] = g[0], t[1] = ends + middle, t[2] = ends - middle, t[3] = g[2];
}

template <class T>
LV_INLINE void transform_gradient(const Vec<T> (&t)[4], Vec<T> (&g)[3]) {
    const Vec<T> half = broadcast(T(0.5)), ends = half * (t[1] + t[2]);
    g[0] = t[0] + ends, g[1] = half * (t[1] - t[2]), g[2] = ends + t[3];
}

/// to[i][j] for from[i][j], by `step` along both axes.
template <class T, int n, int m, class Step>
LV_INLINE void both_axes(const Vec<T> (&from)[n][n], Vec<T> (&to)[m][m], Step step) {
    Vec<T> half[n][m];
#pragma GCC unroll 4
    for (int i = 0; i < n; ++i) step(from[i], half[i]);
#pragma GCC unroll 4
    for (int j = 0; j < m; ++j) {
        Vec<T> column[n], result[m];
#pragma GCC unroll 4
        for (int i = 0; i < n; ++i) column[i] = half[i][j];
        step(column, result);
#pragma GCC unroll 4
        for (int i = 0; i < m; ++i) to[i][j] = result[i];
    }
}

/// B d of one panel: factor f of channel k to to[f * stride + k * C * lanes + ...].
template <class T, int C>
void input_to_factors(const Tiling& tiling, const T* in, int channels, int panel, T* to, int64_t stride) {
    for (int k = 0; k < channels; ++k)
        for (int c = 0; c < C; ++c) {
            const T* at = in + int64_t(k) * 4 * tiling.quarter + (panel * kPanel + c) * lanes<T>;
            Vec<T> d[4][4], t[4][4];
#pragma GCC unroll 4
            for (int i = 0; i < 4; ++i)
#pragma GCC unroll 4
                for (int j = 0; j < 4; ++j) {  // row 2 r - 1 + i is of the odd ones for even i, of tile r - 1 for 0
                    const int quarter = i % 2 ? (j % 2 ? 0 : 1) : (j % 2 ? 2 : 3);
                    const int shift = (i == 0 ? -tiling.pitch : i == 3 ? tiling.pitch : 0) + (j == 0 ? -1 : j == 3);
                    d[i][j] = load_anywhere(at + quarter * tiling.quarter + shift);
                }
            both_axes<T>(d, t, transform_input<T>);
#pragma GCC unroll 16
            for (int f = 0; f < kFactors; ++f) store(to + f * stride + (k * C + c) * lanes<T>, t[f / 4][f % 4]);
        }
}

/// The results of one panel from its factors, zero outside the images: use(entry, numbers).
template <class T, int C, class Use>
void factors_to_result(const Tiling& tiling, const T* from, int64_t stride, int channels, int panel, const T* bias,
                       const T* inside, Use use) {
    for (int i = 0; i < channels; ++i)
        for (int c = 0; c < C; ++c) {
            const int at = (panel * kPanel + c) * lanes<T>;
            Vec<T> m[4][4], y[2][2];
#pragma GCC unroll 16
            for (int f = 0; f < kFactors; ++f) m[f / 4][f % 4] = load(from + f * stride + (i * C + c) * lanes<T>);
            both_axes<T>(m, y, transform_result<T>);
#pragma GCC unroll 4
            for (int q = 0; q < 4; ++q) {
                const Vec<T> sum = bias ? y[q / 2][q % 2] + broadcast(bias[i]) : y[q / 2][q % 2];
                const Vec<T> mask = load(inside + q * tiling.quarter + at);  // all bits, or none: NaN stays inside too
                use((i * 4 + q) * tiling.quarter + at, as_floating<T>(as_bits<T>(sum) & as_bits<T>(mask)));
            }
        }
}

/// Row j of A dy, four factors, of all panels.
template <class T, int j>
void costate_to_factors(const Tiling& tiling, const T* in, int channels, T* to, int64_t stride) {
    for (int panel = 0; panel < tiling.block.panels(); ++panel) {
        const int width = tiling.block.width(panel);
        for (int k = 0; k < channels; ++k)
            for (int c = 0; c < width; ++c) {
                const T* at = in + int64_t(k) * 4 * tiling.quarter + (panel * kPanel + c) * lanes<T>;
                Vec<T> row[2], t[4];
#pragma GCC unroll 2
                for (int b = 0; b < 2; ++b) {
                    const Vec<T> column[2] = {load(at + b * tiling.quarter), load(at + (2 + b) * tiling.quarter)};
                    Vec<T> rows[4];
                    transform_costate<T>(column, rows);
                    row[b] = rows[j];
                }
                transform_costate<T>(row, t);
                T* out = to + int64_t(panel) * channels * panel_lanes<T> + (k * width + c) * lanes<T>;
#pragma GCC unroll 4
                for (int l = 0; l < 4; ++l) store(out + l * stride, t[l]);
            }
    }
}

/// G g for every pair of channels of W, in vectors of pairs: factor f is a dense matrix at to + f * stride.
template <class T>
void weights_to_factors(const Matrix<T>& W, T* to, int64_t stride) {
    const int pairs = W.rows * W.columns;
    for (int first = 0, i = 0, k = 0; first < pairs; first += lanes<T>) {
        alignas(kBytes) T taps[9][lanes<T>] = {};
        for (int lane = 0; lane < lanes<T> && first + lane < pairs; ++lane) {
            const T* from = W.at + int64_t(i) * W.row + k * W.column;
            for (int t = 0; t < 9; ++t) taps[t][lane] = from[(t - 4) * W.tap];
            if (++k == W.columns) k = 0, ++i;
        }
        Vec<T> g[3][3], t[4][4];
        for (int n = 0; n < 9; ++n) g[n / 3][n % 3] = load(taps[n]);
        both_axes<T>(g, t, transform_weights<T>);
        for (int f = 0; f < kFactors; ++f) store(to + f * stride + first, t[f / 4][f % 4]);
    }
}

/// Its transpose: gradient += G^T of the factors' gradients.
template <class T>
void factors_to_gradient(const Matrix<T>& W, const T* from, int64_t stride, T* gradient) {
    const int pairs = W.rows * W.columns;
    for (int first = 0, i = 0, k = 0; first < pairs; first += lanes<T>) {
        Vec<T> t[4][4], g[3][3];
        for (int f = 0; f < kFactors; ++f) t[f / 4][f % 4] = load(from + f * stride + first);
        both_axes<T>(t, g, transform_gradient<T>);
        for (int lane = 0; lane < lanes<T> && first + lane < pairs; ++lane) {
            T* to = gradient + int64_t(i) * W.row + k * W.column;
            for (int n = 0; n < 9; ++n) to[(n - 4) * W.tap] += g[n / 3][n % 3][lane];
            if (++k == W.columns) k = 0, ++i;
        }
    }
}

}  // namespace LV_ISA
