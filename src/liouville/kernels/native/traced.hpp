// One part of the state of a sequence in one thread, and its rows in the caller's memory.
#pragma once

#include <cmath>

#include "problem.h"
#include "rows.hpp"

namespace LV_ISA {

/// x and its costate g of the samples of a lot, in padded rows; in exact runs also the integers z whose image x is.
template <class T, bool exact>
class Traced {
public:
    T *x = nullptr, *g = nullptr;
    Integer<T>* z = nullptr;

    Traced() = default;
    Traced(const lv_traced& part, double spacing, double limit)
        : row(padded<T>(part.width)), part_(&part), width_(part.width), spacing_(T(spacing)), limit_(T(limit)) {}

    int64_t row = 0;  // numbers of a sample, with their padding

    template <class Memory>
    void place(Memory& memory, int64_t samples) {
        x = memory.template take<T>(samples * row);
        g = memory.template take<T>(samples * row);
        if (exact) z = memory.template take<Integer<T>>(samples * row);
    }

    /// Moves x, or the state at `to`, by v times `steps` for each sample; in exact runs these are over the spacing.
    auto mover(T* to, const T* steps) {
        if constexpr (exact)
            return MoveRounded<T>{to, z, row, steps, spacing_, limit_, &left_, &largest_};
        else
            return Move<T>{to, row, steps};
    }

    // ---- the first and the last state ----------------------------------------------------------------------------

    /// x = y_0; `steps` has room for a number of each sample.
    void begin(Range lot, T* steps) {
        load(part_->value, lot, x);
        if (!exact) return;
        for (int64_t s = 0; s < lot.count; ++s) steps[s] = T(1) / spacing_;
        std::memset(static_cast<void*>(z), 0, lot.count * row * sizeof(T));
        const auto round = mover(x, steps);
        for (int64_t s = 0; s < lot.count; ++s)
            for (int64_t at = 0; at < row; at += lanes<T>) round(s, at, ::LV_ISA::load(x + s * row + at));
        checksum_ += sum(lot);
    }

    void end(Range lot) const {
        unload(part_->value.out, lot, x);
        if (exact) unload(part_->grid.out, lot, z);
    }

    /// x = y_T from its integers, and without them.
    void enter(Range lot) {
        if (!exact) return load(part_->value, lot, x);
        take(static_cast<const Integer<T>*>(part_->grid.in) + lot.first * part_->grid.in_stride, part_->grid.in_stride,
             lot.count, z);
        for (int64_t at = 0; at < lot.count * row; ++at) x[at] = T(z[at]) * spacing_;
    }

    /// The costate of y_T.
    void costate(Range lot) {
        if (part_->costate.in)
            load(part_->costate, lot, g);
        else
            std::memset(g, 0, lot.count * row * sizeof(T));
    }

    /// The costate of y_0; x is y_0 as it was rebuilt, if it was.
    void leave(Range lot, bool rebuilt) {
        unload(part_->costate.out, lot, g);
        if (exact) checksum_ += sum(lot);
        if (!exact && rebuilt && part_->start.in) compare(lot);
    }

    // ---- the states and costates between -------------------------------------------------------------------------

    /// After step t.
    void write(int64_t t, Range lot) const {
        if (part_->output.out) put(at(part_->output.out, part_->output, t, lot), part_->output.sample, lot.count, x);
    }

    /// x, or the state at `to`, before step t, where all were kept.
    void before(int64_t t, Range lot) {
        if (t == 0) return load(part_->start, lot, x);
        take(at(const_cast<void*>(part_->output.in), part_->output, t - 1, lot), part_->output.sample, lot.count, x);
    }

    void start(Range lot, T* to) const { load(part_->start, lot, to); }

    /// g += the costate of the state after step t.
    void add(int64_t t, Range lot) {
        if (!part_->given.in) return;
        const T* from = at(const_cast<void*>(part_->given.in), part_->given, t, lot);
        T* to = g;
        for (int64_t s = 0; s < lot.count; ++s, from += part_->given.sample, to += row)
            for (int64_t j = 0; j < width_; ++j) to[j] += from[j];
    }

    /// The state number k of those that were kept besides, (.., batch, width).
    void keep(void* kept, int64_t k, int64_t batch, Range lot) const {
        put(static_cast<T*>(kept) + (k * batch + lot.first) * width_, width_, lot.count, x);
    }
    void kept(const void* kept, int64_t k, int64_t batch, Range lot, T* to) const {
        take(static_cast<const T*>(kept) + (k * batch + lot.first) * width_, width_, lot.count, to);
    }

    // ---- what was found ------------------------------------------------------------------------------------------

    uint64_t checksum() const { return checksum_; }
    double error() const { return error_; }
    double size() const {
        double size = size_;
        for (int i = 0; i < lanes<T>; ++i) size = double(largest_[i]) > size ? double(largest_[i]) : size;
        return size;
    }
    bool left() const {
        bool left = false;
        for (int i = 0; i < lanes<T>; ++i) left |= left_[i] != 0;
        return left;
    }

private:
    const lv_traced* part_ = nullptr;
    int64_t width_ = 0;
    T spacing_ = 0, limit_ = 0;
    IntegerVec<T> left_ = {};
    Vec<T> largest_ = {};
    uint64_t checksum_ = 0;
    double error_ = 0, size_ = 0;

    static T* at(void* rows, const lv_series& series, int64_t t, Range lot) {
        return static_cast<T*>(rows) + t * series.time + lot.first * series.sample;
    }

    void load(const lv_array& from, Range lot, T* to) const {
        take(static_cast<const T*>(from.in) + lot.first * from.in_stride, from.in_stride, lot.count, to);
    }

    template <class N>
    void take(const N* from, int64_t stride, int64_t samples, N* to) const {
        for (int64_t s = 0; s < samples; ++s, from += stride, to += row) {
            std::memcpy(to, from, width_ * sizeof(N));
            std::memset(to + width_, 0, (row - width_) * sizeof(N));
        }
    }

    template <class N>
    void unload(void* to, Range lot, const N* from) const {
        if (to) put(static_cast<N*>(to) + lot.first * width_, width_, lot.count, from);
    }

    template <class N>
    void put(N* to, int64_t stride, int64_t samples, const N* from) const {
        for (int64_t s = 0; s < samples; ++s, to += stride, from += row) std::memcpy(to, from, width_ * sizeof(N));
    }

    /// The sum of all integers, which a single differing bit changes.
    uint64_t sum(Range lot) const {
        uint64_t sum = 0;
        for (int64_t s = 0; s < lot.count; ++s)
            for (int64_t j = 0; j < width_; ++j) sum += uint64_t(int64_t(z[s * row + j]));
        return sum;
    }

    /// The largest difference of the rebuilt first state.
    void compare(Range lot) {
        const T* from = static_cast<const T*>(part_->start.in) + lot.first * part_->start.in_stride;
        for (int64_t s = 0; s < lot.count; ++s, from += part_->start.in_stride)
            for (int64_t j = 0; j < width_; ++j) {
                const double size = std::fabs(double(from[j]));
                const double error = std::fabs(double(x[s * row + j]) - double(from[j]));
                size_ = size > size_ ? size : size_;
                error_ = error > error_ ? error : error_;
            }
    }
};

}  // namespace LV_ISA
