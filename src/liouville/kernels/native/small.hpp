// The same shear for widths known at compile time: weights, state and the sums of the gradients in registers.
//
// At 2 to 8 features a product has fewer operations than a call has instructions, and tanh takes most of the time: one
// pass over the samples does all, with U vectors in flight so that one's tanh hides the other's.
#pragma once

#include "shear.hpp"

namespace LV_ISA {

constexpr int kSmall = 4;  // the widest half that the registers hold

/// use(Number<M>), for M = 1 ... kSmall.
template <class Use>
inline void with_small(int M, Use use) {
    switch (M) {
        case 1: return use(Number<1>{});
        case 2: return use(Number<2>{});
        case 3: return use(Number<3>{});
        default: return use(Number<kSmall>{});
    }
}

/// use(Number<U>, at) for a panel of `size` lanes: U vectors at a time, then one.
template <class T, class Use>
inline void in_flight(int size, Use use) {
    constexpr int U = kRegisters >= 32 ? 2 : 1;
    int at = 0;
    for (; at + U * lanes<T> <= size; at += U * lanes<T>) use(Number<U>{}, at);
    for (; at < size; at += lanes<T>) use(Number<1>{}, at);
}

template <class T, class Sigma, Form form, int M>
class SmallShear {
public:
    SmallShear(const Weights<T>& w, T step) : step_(broadcast(step)) {
#pragma GCC unroll 8
        for (int i = 0; i < M; ++i) {
            b_[i] = broadcast(w.b[i]);
#pragma GCC unroll 8
            for (int j = 0; j < M; ++j) {
                K_[i][j] = broadcast(w.W.at[i * w.W.row + j * w.W.column]);
                if constexpr (turned) G_[i][j] = broadcast(w.G.at[i * w.G.row + j * w.G.column]);
            }
        }
    }

    /// U vectors at `at` of a panel whose features are `size` apart.
    template <int U, class Move>
    void forward(const T* x, int at, int size, const Move& move) const {
        Vec<T> s[M][U];
        activate<U>(x + at, size, s);
        shift<U>(s, at, size, move);
    }

    template <int U, class Move>
    void backward(const T* x, T* g_x, const T* g_y, int at, int size, const Move& move) {
        Vec<T> s[M][U], d[M][U], g[M][U];
        activate<U>(x + at, size, s);
        read<U>(g_y + at, size, g);
#pragma GCC unroll 8
        for (int i = 0; i < M; ++i)
#pragma GCC unroll 8
            for (int c = 0; c < U; ++c) {
                Vec<T> w = gradient ? Vec<T>{} : g[i][c];
                if constexpr (gradient)
#pragma GCC unroll 8
                    for (int j = 0; j < M; ++j) w = fma<T>(outward(i, j), g[j][c], w);
                d[i][c] = w * Sigma::template derivative<T>(s[i][c]);
            }
        shift<U>(s, at, size, move);
        add_to_sums<U>(x + at, size, s, d, g);
#pragma GCC unroll 8
        for (int j = 0; j < M; ++j)
#pragma GCC unroll 8
            for (int c = 0; c < U; ++c) {
                Vec<T> pulled = {};
#pragma GCC unroll 8
                for (int i = 0; i < M; ++i) pulled = fma<T>(K_[i][j], d[i][c], pulled);
                T* to = g_x + at + j * size + c * lanes<T>;
                store(to, fma<T>(step_, pulled, load(to)));
            }
    }

    /// The sums over all samples, added to the gradients.
    void flush(const Weights<T>& w) {
        constexpr int number = (kSums + lanes<T> - 1) / lanes<T>;
        alignas(kBytes) T total[number * lanes<T>];
#pragma GCC unroll 8
        for (int k = 0; k < number; ++k)
            store<T>(total + k * lanes<T>, step_ * (k < number - 1 ? sums<T, lanes<T>>(sum_ + k * lanes<T>)
                                                                   : sums<T, kLast>(sum_ + k * lanes<T>)));
        for (int i = 0; i < M; ++i) {
            if (w.b_gradient) w.b_gradient[i] += total[M * M + i];
            for (int j = 0; j < M; ++j) {
                if (w.W_gradient) w.W_gradient[i * w.W.row + j * w.W.column] += total[i * M + j];
                if (turned && w.G_gradient) w.G_gradient[i * w.G.row + j * w.G.column] += total[kOutward + i * M + j];
            }
        }
    }

private:
    static constexpr bool gradient = form != Form::plain, turned = form == Form::turned;
    static constexpr int kOutward = turned ? M * M + M : 0, kSums = M * M + M + (turned ? M * M : 0);
    static constexpr int kLast = (kSums - 1) % lanes<T> + 1;
    Vec<T> K_[M][M], G_[turned ? M : 1][M], b_[M], step_, sum_[kSums] = {};

    /// The matrix from sigma to the velocity, transposed: G, or K again.
    Vec<T> outward(int i, int j) const {
        if constexpr (turned)
            return G_[i][j];
        else
            return K_[i][j];
    }

    template <int U>
    static void read(const T* from, int size, Vec<T> (&to)[M][U]) {
#pragma GCC unroll 8
        for (int k = 0; k < M; ++k)
#pragma GCC unroll 8
            for (int c = 0; c < U; ++c) to[k][c] = load(from + k * size + c * lanes<T>);
    }

    /// s = sigma(K x + b)
    template <int U>
    void activate(const T* from, int size, Vec<T> (&s)[M][U]) const {
        Vec<T> x[M][U];
        read<U>(from, size, x);
#pragma GCC unroll 8
        for (int i = 0; i < M; ++i)
#pragma GCC unroll 8
            for (int c = 0; c < U; ++c) {
                s[i][c] = b_[i];
#pragma GCC unroll 8
                for (int k = 0; k < M; ++k) s[i][c] = fma<T>(K_[i][k], x[k][c], s[i][c]);
            }
#pragma GCC unroll 8
        for (int i = 0; i < M; ++i)
#pragma GCC unroll 8
            for (int c = 0; c < U; ++c) s[i][c] = Sigma::template value<T>(s[i][c]);
    }

    /// Moves y by K^T s, by G^T s, or by s.
    template <int U, class Move>
    void shift(const Vec<T> (&s)[M][U], int at, int size, const Move& move) const {
#pragma GCC unroll 8
        for (int j = 0; j < M; ++j)
#pragma GCC unroll 8
            for (int c = 0; c < U; ++c) {
                Vec<T> v = gradient ? Vec<T>{} : s[j][c];
                if constexpr (gradient)
#pragma GCC unroll 8
                    for (int i = 0; i < M; ++i) v = fma<T>(outward(i, j), s[i][c], v);
                move(at + j * size + c * lanes<T>, v);
            }
    }

    template <int U>
    void add_to_sums(const T* from, int size, const Vec<T> (&s)[M][U], const Vec<T> (&d)[M][U],
                     const Vec<T> (&g)[M][U]) {
        Vec<T> x[M][U];
        read<U>(from, size, x);
#pragma GCC unroll 8
        for (int i = 0; i < M; ++i)
#pragma GCC unroll 8
            for (int c = 0; c < U; ++c) {
                sum_[M * M + i] += d[i][c];
#pragma GCC unroll 8
                for (int j = 0; j < M; ++j) {
                    sum_[i * M + j] = fma<T>(d[i][c], x[j][c], sum_[i * M + j]);
                    if constexpr (gradient)
                        sum_[kOutward + i * M + j] = fma<T>(s[i][c], g[j][c], sum_[kOutward + i * M + j]);
                }
            }
    }
};

}  // namespace LV_ISA
