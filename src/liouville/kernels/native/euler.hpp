// Forward Euler: blocks of samples through all layers, and back from recomputed states, a segment at a time.
//
// A step of forward Euler has no inverse, so the backward pass needs states of the forward pass. One in `segment` is
// stored; from each the states and activations of its segment are rebuilt in the cache, and read there.
#pragma once

#include "small.hpp"
#include "workspace.hpp"

namespace LV_ISA {

/// One thread's part of a run; it accumulates gradients in `gradients`.
template <class T, class Sigma, Form form>
class EulerRun {
public:
    using Sums = GradientSums<T>;
    struct Result {};

    EulerRun(const lv_euler_run& run, Gradients<T> gradients)
        : run_(run),
          gradients_(gradients),
          step_(T(run.step)),
          width_(int(run.width)),
          rows_(int(run.weights[0].rows)),
          is_small_(width_ == rows_ && width_ <= kSmall) {}

    static Range part(const lv_euler_run& run, int index, int threads) { return share<T>(run.batch, index, threads); }

    void forward(Range range) {
        each_block<T>(range, panels_in_cache(panel_bytes(1)), [&](Range part) {
            prepare(part.count, 1);
            gather(block_, run_.value, width_, part, true, y(0));
            for (int64_t j = 0; j < run_.layers; ++j) {
                if (j && j % run_.segment == 0 && run_.kept)
                    scatter(block_, kept(j / run_.segment - 1), width_, part, y(0));
                advance(weights(j), y(0), y(0), a(0));
            }
            scatter(block_, run_.value, width_, part, y(0));
        });
    }

    void backward(Range range) {
        const int64_t longest = run_.segment < run_.layers ? run_.segment : run_.layers;
        each_block<T>(range, panels_in_turn(panel_bytes(longest)), [&](Range part) {
            prepare(part.count, longest);
            gather(block_, run_.costate, width_, part, false, g_);
            for (int64_t last = run_.layers, first; last > 0; last = first) {
                first = (last - 1) / run_.segment * run_.segment;
                gather(block_, first ? kept(first / run_.segment - 1) : run_.value, width_, part, true, y(0));
                rebuild(first, last);
                for (int64_t j = last; j-- > first;) back(weights(j), y(j - first), a(j - first));
            }
            scatter(block_, run_.costate, width_, part, g_);
        });
    }

    Result result() const { return {}; }

private:
    const lv_euler_run& run_;
    const Gradients<T> gradients_;
    const T step_;
    const int width_, rows_;
    const bool is_small_;
    Block block_ = {};
    int64_t lot_ = 0;  // samples of a block, including padding of its panels
    T *y_ = nullptr, *a_ = nullptr, *g_ = nullptr, *d_ = nullptr;

    /// States and activations of a segment, and the costate and d of one layer.
    int64_t panel_bytes(int64_t segment) const {
        return panel_lanes<T> * int64_t(sizeof(T)) * (segment + 1) * (width_ + rows_);
    }

    void prepare(int64_t samples, int64_t segment) {
        block_ = block_of<T>(samples);
        lot_ = block_.panels() * int64_t(panel_lanes<T>);
        Workspace memory(block_.panels() * panel_bytes(segment));
        y_ = memory.take<T>(lot_ * width_ * segment);
        a_ = memory.take<T>(lot_ * rows_ * segment);
        g_ = memory.take<T>(lot_ * width_);
        d_ = memory.take<T>(lot_ * rows_);
    }

    T* y(int64_t i) const { return y_ + i * lot_ * width_; }
    T* a(int64_t i) const { return a_ + i * lot_ * rows_; }
    int64_t in_state(int panel) const { return int64_t(panel) * width_ * panel_lanes<T>; }
    int64_t in_rows(int panel) const { return int64_t(panel) * rows_ * panel_lanes<T>; }

    /// Kept state number k.
    lv_array kept(int64_t k) const {
        T* at = static_cast<T*>(run_.kept) + k * run_.batch * width_;
        return {at, width_, at};
    }

    /// The states and activations of the layers first ... last - 1, from the first state; the last layer makes no step.
    void rebuild(int64_t first, int64_t last) {
        for (int64_t j = first; j + 1 < last; ++j) advance(weights(j), y(j - first), y(j + 1 - first), a(j - first));
        if (is_small_) return;
        const Weights<T> w = weights(last - 1);
        const int64_t i = last - 1 - first;
        each_panel([&](auto C, int panel) { shear<C.value>(w, y(i), a(i), panel).activate(); });
    }

    /// to = from + step * v(from); leaves sigma in `a` where it is not small.
    void advance(const Weights<T>& w, const T* from, T* to, T* a) {
        const auto move = [&](int panel) {
            return Advance<T>{from + in_state(panel), to + in_state(panel), step_};
        };
        const auto small = [&](auto M) {
            const SmallShear<T, Sigma, form, M.value> shear(w, step_);
            each_vector([&](auto U, int panel, int at, int size) {
                shear.template forward<U.value>(from + in_state(panel), at, size, move(panel));
            });
        };
        if (is_small_) return with_small(width_, small);
        each_panel([&](auto C, int panel) {
            const auto one = shear<C.value>(w, from, a, panel);
            one.activate();
            one.shift(move(panel));
        });
    }

    /// Takes the costate back through a layer; the layer's gradients need all of it first.
    void back(const Weights<T>& w, const T* y, T* a) {
        const auto small = [&](auto M) {
            SmallShear<T, Sigma, form, M.value> shear(w, step_);
            each_vector([&](auto U, int panel, int at, int size) {
                T* g = g_ + in_state(panel);
                shear.template backward<U.value>(y + in_state(panel), g, g, at, size, Stay{});
            });
            shear.flush(w);
        };
        if (is_small_) return with_small(width_, small);
        each_panel([&](auto C, int panel) { shear<C.value>(w, y, a, panel).differentiate(g_ + in_state(panel)); });
        weight_gradients<T, form>(block_, w, step_, y, g_, a, d_);
        each_panel([&](auto C, int panel) { shear<C.value>(w, y, a, panel).pull(step_, g_ + in_state(panel)); });
    }

    struct Stay {
        void operator()(int, Vec<T>) const {}
    };

    template <int C>
    Shear<T, Sigma, form, C> shear(const Weights<T>& w, const T* y, T* a, int panel) const {
        return {w, y + in_state(panel), a + in_rows(panel), d_ + in_rows(panel)};
    }

    template <class Use>
    void each_panel(Use use) const {
        for (int panel = 0; panel < block_.panels(); ++panel)
            with_width(block_.width(panel), [&](auto C) { use(C, panel); });
    }

    template <class Use>
    void each_vector(Use use) const {
        for (int panel = 0; panel < block_.panels(); ++panel) {
            const int size = block_.width(panel) * lanes<T>;
            in_flight<T>(size, [&](auto U, int at) { use(U, panel, at, size); });
        }
    }

    Weights<T> weights(int64_t layer) const {
        const lv_velocity &first = run_.weights[0], &second = run_.weights[1];
        const auto matrix = [&](const lv_velocity& v) {
            return Matrix<T>{static_cast<const T*>(v.K) + layer * v.K_stride, rows_, width_, width_, 1};
        };
        const auto sum = [&](T* gradient, int64_t stride) { return gradient ? gradient + layer * stride : nullptr; };
        const Matrix<T> W = matrix(first);
        return {W,
                form == Form::turned ? matrix(second) : W,
                static_cast<const T*>(first.b) + layer * first.b_stride,
                sum(gradients_.K[0], first.K_stride),
                sum(gradients_.K[1], second.K_stride),
                sum(gradients_.b[0], first.b_stride)};
    }
};

}  // namespace LV_ISA
