// A shear y += step * v(x) of one panel, its inverse and its derivative.
//
//   gradient:  v = W^T sigma(W x + b)         plain:  v = sigma(W x + b)
//
// Going back, x is untouched, so one evaluation of u = W x + b serves all. With the costates g_x, g_y:
//
//   gradient:  a = sigma(u), d = (W g_y) sigma'(u):  y -= step W^T a,  g_x += step W^T d,
//              g_W += step (d x^T + a g_y^T),  g_b += step d
//   plain:     a = sigma(u), d = g_y sigma'(u):      y -= step a,      g_x += step W^T d,
//              g_W += step d x^T,              g_b += step d
//
// State and costate go through the same two products: that is the symplectic step of (x, g_y) and (y, g_x).
#pragma once

#include "activation.hpp"
#include "block.hpp"

namespace LV_ISA {

template <class T>
inline Matrix<T> transposed(const Matrix<T>& W) {
    return {W.at, W.columns, W.rows, W.column, W.row};
}

/// The weights of one velocity in one layer, and where their gradients are summed up (null: not wanted).
template <class T>
struct Weights {
    Matrix<T> W;
    const T* b;
    T *W_gradient, *b_gradient;
};

/// One panel of C vectors; `a` and `d` are scratch of W.rows features.
template <class T, class Sigma, bool gradient, int C>
struct Shear {
    const Weights<T>& weights;
    const T* x;
    T *a, *d;

    template <class Move>
    void forward(const Move& move) const {
        const Matrix<T>& W = weights.W;
        product<T, C>(W, weights.b, x, [this](int at, Vec<T> u) { store(a + at, u); });
        for (int at = 0; at < W.rows * C * lanes<T>; at += lanes<T>) {
            const Vec<T> s = Sigma::template value<T>(load(a + at));
            if constexpr (gradient)
                store(a + at, s);
            else
                move(at, s);
        }
        if constexpr (gradient) product<T, C>(transposed(W), nullptr, a, move);
    }

    /// Undoes the shear and takes the costate back through it; leaves a and d for the weights' gradients.
    template <class Move>
    void backward(const Move& move, T step, T* g_x, const T* g_y) const {
        const Matrix<T>& W = weights.W;
        product<T, C>(W, weights.b, x, [this](int at, Vec<T> u) { store(a + at, u); });
        if constexpr (gradient) product<T, C>(W, nullptr, g_y, [this](int at, Vec<T> w) { store(d + at, w); });
        const T* g = gradient ? d : g_y;
        for (int at = 0; at < W.rows * C * lanes<T>; at += lanes<T>) {
            const Vec<T> s = Sigma::template value<T>(load(a + at));
            if constexpr (gradient)
                store(a + at, s);
            else
                move(at, s);
            store(d + at, load(g + at) * Sigma::template derivative<T>(s));
        }
        if constexpr (gradient) product<T, C>(transposed(W), nullptr, a, move);
        product<T, C>(transposed(W), nullptr, d, Floating<T>{g_x, step});
    }
};

/// The gradients of the weights, from what `backward` left of all panels of a block.
template <class T, bool gradient>
inline void weight_gradients(const Block& block, const Weights<T>& w, T step, const Part<T>& x, const Part<T>& y,
                             const T* a, const T* d) {
    if (w.W_gradient) {
        if constexpr (gradient) {
            const Factors<T> pairs[] = {{d, x.x}, {a, y.g}};
            outer<T, 2>(block, pairs, w.W, step, w.W_gradient);
        } else {
            const Factors<T> pairs[] = {{d, x.x}};
            outer<T, 1>(block, pairs, w.W, step, w.W_gradient);
        }
    }
    if (w.b_gradient) row_sums<T>(block, d, w.W.rows, step, w.b_gradient);
}

}  // namespace LV_ISA
