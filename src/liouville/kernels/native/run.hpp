// A whole run: blocks of samples through all layers, and back.
#pragma once

#include "small.hpp"
#include "workspace.hpp"

namespace LV_ISA {

/// One thread's part of a run; it sums up gradients in `gradients`.
template <class T, class Sigma, bool exact>
class ShearRun {
public:
    struct Result {
        uint64_t checksum;
        bool left;
        double error, size;
    };

    ShearRun(const lv_shear_run& run, Gradients<T> gradients) : run_(run), gradients_(gradients) {}

    void forward(Range range) { blocks(range, false); }
    void backward(Range range) { blocks(range, true); }

    Result result() const {
        bool left = false;
        for (int i = 0; i < lanes<T>; ++i) left |= left_[i] != 0;
        return {checksum_, left, error_, size_};
    }

private:
    const lv_shear_run& run_;
    const Gradients<T> gradients_;
    IntegerVec<T> left_ = {};
    uint64_t checksum_ = 0;
    double error_ = 0, size_ = 0;
    Block block_ = {};
    Part<T> parts_[2] = {};
    T *a_ = nullptr, *d_ = nullptr;

    void blocks(Range range, bool back) {
        const int64_t rows = hidden();
        const int64_t features = run_.parts[0].width + run_.parts[1].width;
        const int64_t panel = panel_lanes<T> * int64_t(sizeof(T)) * ((2 + exact) * features + 2 * rows);
        each_block<T>(range, panels_in_cache(panel), [&](Range part) {
            prepare(part.count, panel);
            enter(part, back);
            if (back)
                up();
            else
                down();
            leave(part, back);
        });
    }

    int64_t hidden() const {
        const auto rows = [this](int k) { return weights(k, 0).W.rows; };
        return rows(0) > rows(1) ? rows(0) : rows(1);
    }

    void prepare(int64_t samples, int64_t panel_bytes) {
        block_ = block_of<T>(samples);
        const int64_t lot = block_.panels() * int64_t(panel_lanes<T>);
        Workspace memory(block_.panels() * panel_bytes);
        for (int k = 0; k < 2; ++k) {
            const int width = int(run_.parts[k].width);
            parts_[k].width = width;
            parts_[k].x = memory.take<T>(lot * width);
            parts_[k].g = memory.take<T>(lot * width);
            parts_[k].z = exact ? memory.take<Integer<T>>(lot * width) : nullptr;
        }
        a_ = memory.take<T>(lot * hidden());
        d_ = memory.take<T>(lot * hidden());
    }

    void enter(Range range, bool back) {
        for (int k = 0; k < 2; ++k) {
            const lv_part& part = run_.parts[k];
            if (exact && back) {
                gather(block_, part.grid, parts_[k].width, range, true, parts_[k].z);
                image(parts_[k]);
            } else {
                gather(block_, part.value, parts_[k].width, range, true, parts_[k].x);
                if (exact) quantise(parts_[k], range);
            }
            if (back) gather(block_, part.costate, parts_[k].width, range, false, parts_[k].g);
        }
    }

    void leave(Range range, bool back) {
        for (int k = 0; k < 2; ++k) {
            const lv_part& part = run_.parts[k];
            if (exact && back) check(parts_[k], range.count);
            if (exact && !back) scatter(block_, part.grid, parts_[k].width, range, parts_[k].z);
            if (back) {
                scatter(block_, part.costate, parts_[k].width, range, parts_[k].g);
                if (part.start.in) compare(parts_[k], part.start, range);
            } else
                scatter(block_, part.value, parts_[k].width, range, parts_[k].x);
        }
    }

    /// To the grid; the floating-point state becomes the image of the integers.
    void quantise(const Part<T>& part, Range range) {
        const Rounded<T> round = rounded(part, 0, T(1 / run_.spacing));
        for (int64_t at = 0; at < entries(part); at += lanes<T>) {
            const Vec<T> x = load(part.x + at);
            *reinterpret_cast<IntegerVec<T>*>(part.z + at) = IntegerVec<T>{};
            round(int(at), x);
        }
        check(part, range.count);
    }

    void image(const Part<T>& part) {
        const Rounded<T> round = rounded(part, 0, T(0));
        for (int64_t at = 0; at < entries(part); at += lanes<T>) round(int(at), Vec<T>{});
    }

    /// The sum of all integers of real samples, which a single differing bit changes.
    void check(const Part<T>& part, int64_t samples) {
        for (int panel = 0; panel < block_.panels(); ++panel) {
            const int size = block_.width(panel) * lanes<T>;
            for (int k = 0; k < part.width; ++k)
                for (int s = 0; s < size && panel * panel_lanes<T> + s < samples; ++s)
                    checksum_ += uint64_t(int64_t(part.z[part.at(panel) + k * size + s]));
        }
    }

    /// How far the rebuilt first state is from the one that was.
    void compare(const Part<T>& part, const lv_array& start, Range range) {
        gather(block_, start, part.width, range, true, part.g);  // the costate has been handed out
        Vec<T> error = broadcast(T(error_)), size = broadcast(T(size_));
        for (int64_t at = 0; at < entries(part); at += lanes<T>) {
            const Vec<T> x = load(part.g + at), off = x - load(part.x + at);
            error = error < off ? off : error < -off ? -off : error;
            size = size < x ? x : size < -x ? -x : size;
        }
        for (int i = 0; i < lanes<T>; ++i) {
            error_ = error_ < error[i] ? error[i] : error_;
            size_ = size_ < size[i] ? size[i] : size_;
        }
    }

    int64_t entries(const Part<T>& part) const { return int64_t(block_.vectors()) * lanes<T> * part.width; }

    Rounded<T> rounded(const Part<T>& part, int64_t at, T step) {
        return {part.x + at, part.z + at, step, T(run_.spacing), T(run_.limit), &left_};
    }

    void down() {
        for (int64_t j = 0; j < run_.layers; ++j)
            for (int64_t k = 0; k < run_.stages; ++k) stage<false>(run_.stage[k], j);
    }

    void up() {
        for (int64_t j = run_.layers; j-- > 0;)
            for (int64_t k = run_.stages; k-- > 0;) stage<true>(run_.stage[k], j);
    }

    template <bool back>
    void stage(const lv_stage& stage, int64_t layer) {
        const int moved = int(stage.moved);
        const Weights<T> w = weights(moved, layer);
        if (run_.velocities[moved].kind == LV_GRADIENT)
            shear<back, Form::gradient>(w, T(stage.factor), parts_[1 - moved], parts_[moved]);
        else
            shear<back, Form::plain>(w, T(stage.factor), parts_[1 - moved], parts_[moved]);
    }

    template <bool back, Form form>
    void shear(const Weights<T>& w, T step, const Part<T>& x, const Part<T>& y) {
        if (w.W.rows == w.W.columns && w.W.rows <= kSmall)
            return with_small(w.W.rows, [&](auto M) { small<back, form, M.value>(w, step, x, y); });
        for (int panel = 0; panel < block_.panels(); ++panel)
            with_width(block_.width(panel), [&](auto C) { one<back, form, C.value>(w, step, x, y, panel); });
        if constexpr (back) weight_gradients<T, form>(block_, w, step, x.x, y.g, a_, d_);
    }

    template <bool back, Form form, int M>
    void small(const Weights<T>& w, T step, const Part<T>& x, const Part<T>& y) {
        SmallShear<T, Sigma, form, M> shear(w, step);
        for (int panel = 0; panel < block_.panels(); ++panel) {
            const int size = block_.width(panel) * lanes<T>;
            const T *from = x.x + x.at(panel), *g_y = y.g + y.at(panel);
            T* g_x = x.g + x.at(panel);
            const auto move = mover<back>(y, panel, step);
            in_flight<T>(size, [&](auto U, int at) {
                if constexpr (back)
                    shear.template backward<U.value>(from, g_x, g_y, at, size, move);
                else
                    shear.template forward<U.value>(from, at, size, move);
            });
        }
        if constexpr (back) shear.flush(w);
    }

    template <bool back, Form form, int C>
    void one(const Weights<T>& w, T step, const Part<T>& x, const Part<T>& y, int panel) {
        const int64_t scratch = int64_t(panel) * w.W.rows * panel_lanes<T>;
        const Shear<T, Sigma, form, C> shear{w, x.x + x.at(panel), a_ + scratch, d_ + scratch};
        const auto move = mover<back>(y, panel, step);
        shear.activate();
        if constexpr (back) shear.differentiate(y.g + y.at(panel));
        shear.shift(move);
        if constexpr (back) shear.pull(step, x.g + x.at(panel));
    }

    /// What moves y by a velocity, or takes it back.
    template <bool back>
    auto mover(const Part<T>& y, int panel, T step) {
        const T signed_step = back ? -step : step;
        if constexpr (exact)
            return rounded(y, y.at(panel), T(signed_step / run_.spacing));
        else
            return Floating<T>{y.x + y.at(panel), signed_step};
    }

    Weights<T> weights(int moved, int64_t layer) const {
        const lv_velocity& v = run_.velocities[moved];
        const int rows = int(v.rows), columns = int(v.columns);
        const T* K = static_cast<const T*>(v.K) + layer * v.K_stride;
        const T* b = static_cast<const T*>(v.b) + layer * v.b_stride;
        const Matrix<T> W = v.kind == LV_TRANSPOSED ? Matrix<T>{K, columns, rows, 1, columns}
                                                    : Matrix<T>{K, rows, columns, columns, 1};
        T *K_gradient = gradients_.K[moved], *b_gradient = gradients_.b[moved];
        return {W, W, b, K_gradient ? K_gradient + layer * v.K_stride : nullptr, nullptr,
                b_gradient ? b_gradient + layer * v.b_stride : nullptr};
    }
};

}  // namespace LV_ISA
