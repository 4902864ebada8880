// A shear y += step * v(x) of one panel, its inverse and its derivative.
//
//   plain:  v = sigma(W x + b)       gradient:  v = W^T sigma(W x + b)       turned:  v = G^T sigma(W x + b)
//
// Going back, x is untouched, so one evaluation of u = W x + b serves all. With the costates g_x, g_y and a = sigma(u):
//
//   plain:     d = g_y sigma'(u):        y -= step a,      g_x += step W^T d,  g_W += step d x^T,  g_b += step d
//   gradient:  d = (W g_y) sigma'(u):    y -= step W^T a,  g_x += step W^T d,  g_W += step (d x^T + a g_y^T),
//                                                                              g_b += step d
//   turned:    d = (G g_y) sigma'(u):    as gradient, but a g_y^T belongs to g_G
//
// State and costate use the same two products: the symplectic step of (x, g_y) and (y, g_x). A layer of forward Euler is
// the same formula with x = y and g_x = g_y: all of W x is read before anything is written.
#pragma once

#include "activation.hpp"
#include "block.hpp"

namespace LV_ISA {

template <class T>
inline Matrix<T> transposed(const Matrix<T>& W) {
    return {W.at, W.columns, W.rows, W.column, W.row, -W.tap};
}

/// The formula of a velocity. `turned` is for forward Euler, where J rotates the gradient: G = K J^T.
enum class Form { plain, gradient, turned };

/// The weights of one velocity in one layer, and the sums of their gradients (null: not needed). G is W for the form
/// `gradient`, and not read for `plain`.
template <class T>
struct Weights {
    Matrix<T> W, G;
    const T* b;
    T *W_gradient, *G_gradient, *b_gradient;
};

/// One panel of C vectors; `a` and `d` are scratch of W.rows features.
template <class T, class Sigma, Form form, int C>
struct Shear {
    const Weights<T>& weights;
    const T* x;
    T *a, *d;

    /// a = sigma(W x + b)
    void activate() const {
        product<T, C>(weights.W, weights.b, x, [this](int at, Vec<T> u) { store(a + at, u); });
        for (int at = 0; at < size(); at += lanes<T>) store(a + at, Sigma::template value<T>(load(a + at)));
    }

    /// Moves by v, after a.
    template <class Move>
    void shift(const Move& move) const {
        if constexpr (form == Form::plain)
            for (int at = 0; at < size(); at += lanes<T>) move(at, load(a + at));
        else
            product<T, C>(transposed(weights.G), nullptr, a, move);
    }

    /// d = (G g_y) sigma'(u), after a.
    void differentiate(const T* g_y) const {
        if constexpr (form != Form::plain)
            product<T, C>(weights.G, nullptr, g_y, [this](int at, Vec<T> w) { store(d + at, w); });
        const T* g = form == Form::plain ? g_y : d;
        for (int at = 0; at < size(); at += lanes<T>)
            store(d + at, load(g + at) * Sigma::template derivative<T>(load(a + at)));
    }

    /// g_x += step W^T d, after d.
    void pull(T step, T* g_x) const { product<T, C>(transposed(weights.W), nullptr, d, Floating<T>{g_x, step}); }

private:
    int size() const { return weights.W.rows * C * lanes<T>; }
};

/// The gradients of the weights from a and d of all panels of a block; `g` is the costate of the moved part.
template <class T, Form form>
inline void weight_gradients(const Block& block, const Weights<T>& w, T step, const T* x, const T* g, const T* a,
                             const T* d) {
    const Factors<T> inner[] = {{d, x}}, outside[] = {{a, g}}, both[] = {{d, x}, {a, g}};
    if constexpr (form == Form::gradient) {
        if (w.W_gradient) outer<T, 2>(block, both, w.W, step, w.W_gradient);
    } else {
        if (w.W_gradient) outer<T, 1>(block, inner, w.W, step, w.W_gradient);
        if (form == Form::turned && w.G_gradient) outer<T, 1>(block, outside, w.G, step, w.G_gradient);
    }
    if (w.b_gradient) row_sums<T>(block, d, w.W.rows, step, w.b_gradient);
}

}  // namespace LV_ISA
