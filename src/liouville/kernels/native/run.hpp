// A whole run of shears: lots of samples through all layers, and back.
#pragma once

#include "images.hpp"
#include "panels.hpp"

namespace LV_ISA {

/// One thread's part of a run; it accumulates gradients in `gradients`. `Lot` stores the samples: Panels or Images.
template <class T, class Lot, bool exact>
class ShearRun {
public:
    using Sums = GradientSums<T>;
    struct Result {
        uint64_t checksum;
        bool left;
        double error, size;
    };

    ShearRun(const lv_shear_run& run, Gradients<T> gradients) : run_(run), gradients_(gradients), lot_(run) {
        for (int k = 0; k < 2; ++k) parts_[k].width = int(run.parts[k].width);
    }

    static Range part(const lv_shear_run& run, int index, int threads) { return Lot::part(run, index, threads); }

    void forward(Range range) {
        lot_.each(range, exact, hidden(), parts_, [this](Range lot) {
            enter(lot, false);
            down();
            leave(lot, false);
        });
    }

    void backward(Range range) {
        lot_.each(range, exact, hidden(), parts_, [this](Range lot) {
            enter(lot, true);
            up();
            leave(lot, true);
        });
    }

    Result result() const {
        bool left = false;
        for (int i = 0; i < lanes<T>; ++i) left |= left_[i] != 0;
        return {checksum_, left, error_, size_};
    }

private:
    const lv_shear_run& run_;
    const Gradients<T> gradients_;
    Lot lot_;
    IntegerVec<T> left_ = {};
    uint64_t checksum_ = 0;
    double error_ = 0, size_ = 0;
    Part<T> parts_[2] = {};

    int hidden() const {
        const auto rows = [this](int k) { return weights(k, 0).W.rows; };
        return rows(0) > rows(1) ? rows(0) : rows(1);
    }

    void enter(Range range, bool back) {
        for (int k = 0; k < 2; ++k) {
            const lv_part& part = run_.parts[k];
            if (exact && back) {
                lot_.enter(part.grid, parts_[k].width, range, true, parts_[k].z);
                image(parts_[k]);
            } else {
                lot_.enter(part.value, parts_[k].width, range, true, parts_[k].x);
                if (exact) quantise(parts_[k], range);
            }
            if (back) lot_.enter(part.costate, parts_[k].width, range, false, parts_[k].g);
        }
    }

    void leave(Range range, bool back) {
        for (int k = 0; k < 2; ++k) {
            const lv_part& part = run_.parts[k];
            if (exact && back) checksum_ += lot_.sum(parts_[k], range.count);
            if (exact && !back) lot_.leave(part.grid, parts_[k].width, range, parts_[k].z);
            if (back) {
                lot_.leave(part.costate, parts_[k].width, range, parts_[k].g);
                if (part.start.in) compare(parts_[k], part.start, range);
            } else
                lot_.leave(part.value, parts_[k].width, range, parts_[k].x);
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
        checksum_ += lot_.sum(part, range.count);
    }

    void image(const Part<T>& part) {
        const Rounded<T> round = rounded(part, 0, T(0));
        for (int64_t at = 0; at < entries(part); at += lanes<T>) round(int(at), Vec<T>{});
    }

    /// The distance of the rebuilt first state from the original one.
    void compare(const Part<T>& part, const lv_array& start, Range range) {
        lot_.enter(start, part.width, range, true, part.g);  // the costate has been returned
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

    int64_t entries(const Part<T>& part) const { return lot_.entries(part.width); }

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
        const Part<T>&x = parts_[1 - moved], &y = parts_[moved];
        const Weights<T> w = weights(moved, layer);
        const T step = T(stage.factor), signed_step = back ? -step : step;
        const auto mover = [&, this](int64_t at) {  // moves y by a velocity, or undoes it
            if constexpr (exact)
                return rounded(y, at, T(signed_step / run_.spacing));
            else
                return Floating<T>{y.x + at, signed_step};
        };
        if (run_.velocities[moved].kind == LV_GRADIENT)
            lot_.template shear<back, Form::gradient>(w, step, x, y, mover);
        else
            lot_.template shear<back, Form::plain>(w, step, x, y, mover);
    }

    Weights<T> weights(int moved, int64_t layer) const {
        const lv_velocity& v = run_.velocities[moved];
        const int rows = int(v.rows), columns = int(v.columns), taps = int(run_.image.taps);
        const T* K = static_cast<const T*>(v.K) + layer * v.K_stride + taps / 2;
        const T* b = static_cast<const T*>(v.b) + layer * v.b_stride;
        const Matrix<T> W = {K, rows, columns, columns * taps, taps};
        T *K_gradient = gradients_.K[moved], *b_gradient = gradients_.b[moved];
        return {v.kind == LV_TRANSPOSED ? transposed(W) : W, W, b,
                K_gradient ? K_gradient + layer * v.K_stride + taps / 2 : nullptr, nullptr,
                b_gradient ? b_gradient + layer * v.b_stride : nullptr};
    }
};

}  // namespace LV_ISA
