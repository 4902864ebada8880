// A velocity of a sequence in one thread: its packed weights, its work of some steps, and the sums of its gradients.
//
//   v = sigma(u),  K^T sigma(u),  G^T sigma(u)  or  x,      u = K x + b + W input_t
//
// An event is one use of the velocity in a step: x, a = sigma(u), d = step (...) sigma'(u) and g, the costate of the
// moved part, are kept for some steps, and then all their outer products are one product each:
//
//   g_K += d x^T + (step a) g^T        g_b += d        g_W += d input^T        g_input = W^T d
#pragma once

#include "activation.hpp"
#include "problem.h"
#include "rows.hpp"
#include "workspace.hpp"

namespace LV_ISA {

/// One thread's sums of the gradients of one velocity; null: not needed.
template <class T>
struct ForcedGradients {
    T *K, *G, *b, *W;
};

/// Counts what is taken, as `Workspace` gives it.
struct Counter {
    int64_t bytes = 0;

    template <class T>
    T* take(int64_t count) {
        bytes += count * int64_t(sizeof(T));
        return nullptr;
    }
};

/// The rows of one step: samples of a lot.
template <class T>
struct Step {
    int64_t samples;
    const T* factor;  // of each sample
};

template <class T, class Sigma>
class Forced {
public:
    int per = 0;  // events of a step
    T *u, *x, *a, *d, *g;

    Forced() = default;
    Forced(const lv_forced& v, const ForcedGradients<T>& to, int64_t inputs, int64_t width)
        : v_(&v), to_(to), inputs_(v.W ? inputs : 0) {
        const bool transposed = v.kind == LV_TRANSPOSED;
        drifts = v.kind == LV_DRIFT;
        in_ = drifts ? width : transposed ? v.rows : v.columns;
        inner_ = drifts ? 0 : transposed ? v.columns : v.rows;
        out_ = v.kind == LV_PLAIN || transposed ? inner_ : in_;
        turns_ = v.kind == LV_GRADIENT || v.kind == LV_TURNED;
    }

    bool drifts = false;
    int64_t in() const { return padded<T>(in_); }
    int64_t inner() const { return padded<T>(inner_); }
    int64_t out() const { return padded<T>(out_); }
    int64_t numbers() const { return per * (2 * inner() + in() + out()) + inner(); }  // of a step and sample

    template <class Memory>
    void place(Memory& memory, int64_t samples, int64_t steps, bool back) {
        if (drifts) return;
        const int64_t events = samples * (back ? per * steps : 1);
        u = memory.template take<T>(samples * steps * inner());
        a = memory.template take<T>(events * inner());
        forth_ = memory.template take<T>(in_ * inner());
        backward_ = memory.template take<T>(inner_ * in());
        outward_ = v_->kind == LV_TURNED ? memory.template take<T>(inner_ * out()) : backward_;
        inward_ = v_->kind == LV_TURNED ? memory.template take<T>(out_ * inner()) : forth_;
        W_ = memory.template take<T>(inputs_ * inner());
        b_ = memory.template take<T>(inner());
        if (!back) return;
        d = memory.template take<T>(events * inner());
        x = memory.template take<T>(events * in());
        g = memory.template take<T>(events * out());
        W_back_ = memory.template take<T>(inner_ * padded<T>(inputs_));
        sum_K_ = memory.template take<T>(rows() * columns());
        sum_G_ = v_->kind == LV_TURNED ? memory.template take<T>(inner_ * out()) : sum_K_;
        sum_W_ = memory.template take<T>(inputs_ * inner());
        sum_b_ = memory.template take<T>(inner());
    }

    /// After `place`: the weights in rows for vectors.
    void pack(bool back) {
        if (drifts) return;
        const T *K = static_cast<const T*>(v_->K), *G = static_cast<const T*>(v_->G), *W = static_cast<const T*>(v_->W);
        const bool transposed = v_->kind == LV_TRANSPOSED;
        fill(forth_, in_, inner_, K, transposed ? inner_ : 1, transposed ? 1 : in_);
        fill(backward_, inner_, in_, K, transposed ? 1 : in_, transposed ? inner_ : 1);
        if (v_->kind == LV_TURNED) {
            fill(outward_, inner_, out_, G, out_, 1);
            fill(inward_, out_, inner_, G, 1, out_);
        }
        fill(W_, inputs_, inner_, W, 1, inputs_);
        std::memset(b_, 0, inner() * sizeof(T));
        if (v_->b) std::memcpy(b_, v_->b, inner_ * sizeof(T));
        if (!back) return;
        fill(W_back_, inner_, inputs_, W, inputs_, 1);
        std::memset(sum_K_, 0, rows() * columns() * sizeof(T));
        if (v_->kind == LV_TURNED) std::memset(sum_G_, 0, inner_ * out() * sizeof(T));
        std::memset(sum_W_, 0, inputs_ * inner() * sizeof(T));
        std::memset(sum_b_, 0, inner() * sizeof(T));
    }

    /// u = b, in `rows` rows.
    void bias(int64_t rows) const {
        for (int64_t r = 0; r < rows; ++r) std::memcpy(u + r * inner(), b_, inner() * sizeof(T));
    }

    bool reads_input() const { return inputs_ > 0; }

    /// u += W input, of `rows` rows from number `first` of the work on.
    void add_input(Rows<T> input, int64_t rows, int64_t first) const {
        rows_product<T>(input, rows, {W_, inputs_, inner()}, Add<T>{u + first * inner(), inner()});
    }

    /// a = sigma(K x + u), of one event.
    void activate(const T* x, const T* u, T* a, int64_t samples) const {
        rows_product<T>({x, in()}, samples, {forth_, in_, inner()}, Begin<T>{a, inner(), u});
        for (T* end = a + samples * inner(); a < end; a += lanes<T>) store(a, Sigma::template value<T>(load(a)));
    }

    /// Moves by v, after a.
    template <class Mover>
    void shift(const T* x, const T* a, int64_t samples, const Mover& move) const {
        if (turns_) return rows_product<T>({a, inner()}, samples, {outward_, inner_, out()}, move);
        const T* v = drifts ? x : a;
        for (int64_t s = 0; s < samples; ++s)
            for (int64_t at = 0; at < out(); at += lanes<T>, v += lanes<T>) move(s, at, load(v));
    }

    /// The derivative of an event: g_x += step (dv/dx)^T g_y, after a. `x` and `g_y` are kept where a gradient needs them.
    void pull(int64_t event, const T* x, const T* g_y, T* g_x, const Step<T>& step) {
        if (drifts) return shift(g_y, nullptr, step.samples, Move<T>{g_x, in(), step.factor});
        const int64_t samples = step.samples, at = event * samples;
        T *a = this->a + at * inner(), *d = this->d + at * inner(), *kept = this->x + at * in();
        const bool whole = to_.K && v_->kind == LV_GRADIENT;
        if (to_.K && kept != x) std::memcpy(kept, x, samples * in() * sizeof(T));
        if (whole || to_.G) std::memcpy(g + at * out(), g_y, samples * out() * sizeof(T));
        if (turns_) rows_product<T>({g_y, out()}, samples, {inward_, out_, inner()}, Set<T>{d, inner()});
        const T* w = turns_ ? d : g_y;
        for (int64_t s = 0, k = 0; s < samples; ++s) {
            const Vec<T> by = broadcast(step.factor[s]);
            for (const int64_t end = k + inner(); k < end; k += lanes<T>) {
                const Vec<T> sigma = load(a + k);
                store(d + k, by * (load(w + k) * Sigma::template derivative<T>(sigma)));
                if (whole || to_.G) store(a + k, by * sigma);
            }
        }
        rows_product<T>({d, inner()}, samples, {backward_, inner_, in()}, Add<T>{g_x, in()});
    }

    /// Adds the events of `steps` steps to the sums; u then holds the gradient of b + W input, in rows of samples.
    void collect(int64_t steps, int64_t samples) {
        if (drifts) return;
        const int64_t events = steps * per * samples;
        const bool transposed = v_->kind == LV_TRANSPOSED;
        const T *left = transposed ? x : d, *right = transposed ? d : x;
        if (to_.K)
            rows_product<T>({left, 1, transposed ? in() : inner()}, rows(), {right, events, columns()},
                            Add<T>{sum_K_, columns()});
        if (to_.G || (to_.K && v_->kind == LV_GRADIENT))
            rows_product<T>({a, 1, inner()}, inner_, {g, events, out()}, Add<T>{sum_G_, out()});
        const int64_t size = samples * inner();
        for (int64_t t = 0; t < steps; ++t)
            for (int64_t k = 0; k < size; k += lanes<T>) {
                Vec<T> sum = load(d + t * per * size + k);
                for (int e = 1; e < per; ++e) sum += load(d + (t * per + e) * size + k);
                store(u + t * size + k, sum);
            }
        if (to_.b)
            for (int64_t j = 0; j < inner(); j += lanes<T>) {
                Vec<T> sum = {};
                for (int64_t r = 0; r < steps * samples; ++r) sum += load(u + r * inner() + j);
                store(sum_b_ + j, load(sum_b_ + j) + sum);
            }
    }

    /// After `collect`: the gradient of W from `rows` rows of the input, of which the first is number `first`.
    void collect_input(Rows<T> input, int64_t rows, int64_t first) {
        if (to_.W)
            rows_product<T>({input.at, input.column, input.row}, inputs_, {u + first * inner(), rows, inner()},
                            Add<T>{sum_W_, inner()});
    }

    /// After `collect`: adds the gradient of the input.
    void to_input(int64_t rows, T* to) const {
        rows_product<T>({u, inner()}, rows, {W_back_, inner_, padded<T>(inputs_)}, Add<T>{to, padded<T>(inputs_)});
    }

    /// Adds the sums to those of the thread.
    void finish() const {
        if (drifts) return;
        const bool transposed = v_->kind == LV_TRANSPOSED;
        give(to_.K, rows(), transposed ? inner_ : in_, sum_K_, columns());
        give(to_.G, inner_, out_, sum_G_, out());
        give(to_.b, 1, inner_, sum_b_, inner());
        for (int64_t i = 0; to_.W && i < inner_; ++i)
            for (int64_t k = 0; k < inputs_; ++k) to_.W[i * inputs_ + k] += sum_W_[k * inner() + i];
    }

private:
    const lv_forced* v_ = nullptr;
    ForcedGradients<T> to_ = {};
    int64_t inputs_ = 0, in_ = 0, inner_ = 0, out_ = 0;
    bool turns_ = false;  // whether sigma is multiplied by a matrix
    T *forth_, *backward_, *inward_, *outward_, *W_, *W_back_, *b_;
    T *sum_K_, *sum_G_, *sum_b_, *sum_W_;

    /// Of the sum for K: the shape of K, with padded rows.
    int64_t rows() const { return v_->rows; }
    int64_t columns() const { return padded<T>(v_->columns); }

    /// to(i, j) = from[i * row + j * column], and 0 in the padding.
    static void fill(T* to, int64_t rows, int64_t width, const T* from, int64_t row, int64_t column) {
        for (int64_t i = 0; i < rows; ++i, to += padded<T>(width))
            for (int64_t j = 0; j < padded<T>(width); ++j) to[j] = j < width ? from[i * row + j * column] : T(0);
    }

    static void give(T* to, int64_t rows, int64_t width, const T* from, int64_t row) {
        for (int64_t i = 0; to && i < rows; ++i)
            for (int64_t j = 0; j < width; ++j) to[i * width + j] += from[i * row + j];
    }
};

}  // namespace LV_ISA
