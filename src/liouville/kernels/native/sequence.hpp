// A sequence: depth is time, with one weight and a forced bias in every step; lots of samples through all steps, and back.
//
// Going back, the states are read where all were kept, inverted where the velocities are shears, and else rebuilt, a
// segment at a time, from those that were kept.
#pragma once

#include <cmath>

#include "forced.hpp"

namespace LV_ISA {

template <class T>
class SequenceSums : public ThreadSums<T> {
public:
    SequenceSums(const lv_sequence_run& run, int threads) : ThreadSums<T>(threads) {
        for (int k = 0; k < run.parts; ++k) {
            const lv_forced& v = run.velocity[k];
            const auto place = [this](void* sum, int64_t size) { return this->place(static_cast<T*>(sum), size); };
            const bool both = k == 1 && v.K_gradient == run.velocity[0].K_gradient;  // one K for two velocities
            const int64_t inner = v.kind == LV_TRANSPOSED ? v.columns : v.rows;
            place_[k][0] = both ? place_[0][0] : place(v.K_gradient, v.rows * v.columns);
            place_[k][1] = place(v.G_gradient, v.rows * v.columns);
            place_[k][2] = place(v.b_gradient, inner);
            place_[k][3] = place(v.W_gradient, inner * run.inputs);
        }
        this->allocate();
    }

    struct Gradients {
        ForcedGradients<T> of[2];
    };
    Gradients of(int thread) const {
        Gradients all = {};
        for (int k = 0; k < 2; ++k) {
            const auto at = [&](int n) { return this->at(thread, place_[k][n]); };
            all.of[k] = {at(0), at(1), at(2), at(3)};
        }
        return all;
    }

private:
    int place_[2][4] = {{-1, -1, -1, -1}, {-1, -1, -1, -1}};
};

/// One thread's part of a run; it accumulates gradients.
template <class T, class Sigma>
class SequenceRun {
public:
    using Sums = SequenceSums<T>;
    struct Result {
        double error = 0, size = 0;
    };

    SequenceRun(const lv_sequence_run& run, const typename Sums::Gradients& gradients)
        : run_(run), parts_(int(run.parts)), kept_(run.part[0].output.in), segmented_(parts_ == 1 && !kept_) {
        for (int k = 0; k < parts_; ++k) {
            const int64_t width = run.part[k].width;
            width_[k] = padded<T>(width);
            v_[k] = Forced<T, Sigma>(run.velocity[k], gradients.of[k], run.inputs, width);
            has_first_[k] = -1;
        }
        for (int s = 0; s < run.stages; ++s) {
            const int k = int(run.stage[s].moved);
            ++v_[k].per;
            if (has_first_[k] < 0) has_first_[k] = s;
        }
    }

    static Range part(const lv_sequence_run& run, int index, int threads) {
        const int64_t from = run.batch * index / threads, to = run.batch * (index + 1) / threads;
        return {from, to - from};
    }

    static int64_t work_per_sample(const lv_sequence_run& run) {
        int64_t work = 16;
        for (int k = 0; k < run.parts; ++k)
            work += run.velocity[k].rows * (2 * run.velocity[k].columns + run.inputs) / lanes<T>;
        return run.steps * work;
    }

    void forward(Range range) {
        each_lot(range, false, [this](Range lot) {
            for (int k = 0; k < parts_; ++k) load(run_.part[k].value, lot, k, x_[k]);
            for (int64_t from = 0, to; from < run_.steps; from = to) {
                to = from + steps_ < run_.steps ? from + steps_ : run_.steps;
                force(lot, from, to);
                for (int64_t t = from; t < to; ++t) {
                    keep(lot, t);
                    advance(lot, t, t - from);
                    for (int k = 0; k < parts_; ++k) write(run_.part[k].output, t, lot, k, x_[k]);
                }
            }
            for (int k = 0; k < parts_; ++k) unload(run_.part[k].value.out, lot, k, x_[k]);
        });
    }

    void backward(Range range) {
        each_lot(range, true, [this](Range lot) {
            for (int k = 0; k < parts_; ++k) {
                if (run_.part[k].costate.in)
                    load(run_.part[k].costate, lot, k, g_[k]);
                else
                    std::memset(g_[k], 0, lot.count * width_[k] * sizeof(T));
                if (kept_)
                    read(run_.part[k].output, run_.steps - 1, lot, k, x_[k]);
                else if (!segmented_)
                    load(run_.part[k].value, lot, k, x_[k]);
            }
            for (int64_t to = run_.steps, from; to > 0; to = from) {
                from = segmented_ ? (to - 1) / steps_ * steps_ : to > steps_ ? to - steps_ : 0;
                force(lot, from, to);
                if (segmented_) rebuild(lot, from, to);
                for (int64_t t = to; t-- > from;) back(lot, t, t - from);
                collect(lot, from, to);
            }
            for (int k = 0; k < parts_; ++k) unload(run_.part[k].costate.out, lot, k, g_[k]);
            if (!kept_ && !segmented_) compare(lot);
        });
        if (range.count > 0)
            for (int k = 0; k < parts_; ++k) v_[k].finish();
    }

    Result result() const { return result_; }

private:
    const lv_sequence_run& run_;
    const int parts_;
    const bool kept_, segmented_;
    int64_t width_[2] = {}, has_first_[2] = {}, steps_ = 0;
    Forced<T, Sigma> v_[2];
    T *x_[2] = {}, *g_[2] = {}, *forth_ = nullptr, *back_ = nullptr, *input_ = nullptr;
    Result result_;

    /// use(lot) for the samples of `range` in lots: the work of some steps fits into the second-level cache.
    template <class Use>
    void each_lot(Range range, bool back, Use use) {
        if (range.count <= 0) return;
        int64_t numbers = 0;
        for (int k = 0; k < parts_; ++k) numbers += v_[k].numbers();
        const int64_t fits = kFar * 3 / 4 / (numbers * int64_t(sizeof(T)) + 1), rows = fits < 64 ? 64 : fits > 512 ? 512 : fits;
        const bool whole = back && segmented_;
        const int64_t most = whole && rows / run_.segment < 64 ? (rows / run_.segment > 8 ? rows / run_.segment : 8) : 64;
        const int64_t lots = (range.count + most - 1) / most, samples = (range.count + lots - 1) / lots;
        steps_ = whole ? run_.segment : rows / samples > 1 ? rows / samples : 1;
        if (steps_ > run_.steps) steps_ = run_.steps;
        Counter counter;
        place(counter, samples, back);
        Workspace memory(counter.bytes);
        place(memory, samples, back);
        for (int k = 0; k < parts_; ++k) v_[k].pack(back);
        for (int64_t n = 0; n < lots; ++n) {
            const int64_t from = range.count * n / lots, to = range.count * (n + 1) / lots;
            use(Range{range.first + from, to - from});
        }
    }

    template <class Memory>
    void place(Memory& memory, int64_t samples, bool back) {
        forth_ = memory.template take<T>(padded<T>(samples));
        back_ = memory.template take<T>(padded<T>(samples));
        for (int k = 0; k < parts_; ++k) {
            x_[k] = memory.template take<T>(samples * width_[k]);
            g_[k] = memory.template take<T>(samples * width_[k]);
            v_[k].place(memory, samples, steps_, back);
        }
        if (run_.input.out) input_ = memory.template take<T>(samples * steps_ * padded<T>(run_.inputs));
    }

    // ---- one step ------------------------------------------------------------------------------------------------

    Step<T> step(Range lot, int64_t t, int stage) {
        const double factor = run_.stage[stage].factor;
        const auto* tau = static_cast<const T*>(run_.tau);
        for (int64_t s = 0; s < lot.count; ++s) {
            forth_[s] = T(tau ? factor * tau[t * run_.tau_time + (lot.first + s) * run_.tau_sample] : factor);
            back_[s] = -forth_[s];
        }
        return {lot.count, forth_, back_};
    }

    /// The part that the velocity of part `moved` reads.
    int source(int moved) const { return parts_ == 2 ? 1 - moved : moved; }

    T* u(const Forced<T, Sigma>& v, int64_t samples, int64_t row) const { return v.u + row * samples * v.inner(); }

    void advance(Range lot, int64_t t, int64_t row) {
        for (int s = 0; s < run_.stages; ++s) {
            const int k = int(run_.stage[s].moved);
            const T* x = x_[source(k)];
            if (!v_[k].drifts) v_[k].activate(x, u(v_[k], lot.count, row), v_[k].a, lot.count);
            v_[k].shift(x, v_[k].a, x_[k], step(lot, t, s).forth, lot.count);
        }
    }

    /// The states and activations of the steps from ... to - 1, kept as their events.
    void rebuild(Range lot, int64_t from, int64_t to) {
        auto& v = v_[0];
        const int64_t state = lot.count * width_[0], inner = lot.count * v.inner();
        if (from)
            load({static_cast<const T*>(run_.kept) + (from / steps_ - 1) * run_.batch * run_.part[0].width,
                  run_.part[0].width, nullptr},
                 lot, 0, v.x);
        else
            load(run_.part[0].start, lot, 0, v.x);
        for (int64_t t = from, e = 0; t < to; ++t, ++e) {
            T *x = v.x + e * state, *a = v.a + e * inner;
            v.activate(x, u(v, lot.count, e), a, lot.count);
            if (t + 1 == to) return;
            std::memcpy(x + state, x, state * sizeof(T));
            v.shift(x, a, x + state, step(lot, t, 0).forth, lot.count);
        }
    }

    /// The costates through step t, and the states before it.
    void back(Range lot, int64_t t, int64_t row) {
        int64_t event[2];
        for (int k = 0; k < parts_; ++k) {
            event[k] = (row + 1) * v_[k].per;
            add(run_.part[k].given, t, lot, k, g_[k]);
        }
        for (int s = int(run_.stages); s-- > 0;) {
            const int k = int(run_.stage[s].moved), from = source(k);
            auto& v = v_[k];
            const int64_t e = --event[k];
            const Step<T> step = this->step(lot, t, s);
            if (parts_ == 1 && kept_) before(lot, t, 0);
            const T* x = segmented_ ? v.x + e * lot.count * v.in() : x_[from];
            T* a = v.a + e * lot.count * v.inner();
            if (!v.drifts && !segmented_) v.activate(x, u(v, lot.count, row), a, lot.count);
            if (parts_ == 2) {
                if (kept_ && has_first_[k] == s)
                    before(lot, t, k);
                else
                    v.shift(x, a, x_[k], step.back, lot.count);
            }
            v.pull(e, x, g_[k], g_[from], step);
        }
    }

    /// x = the part before step t, where the states were kept.
    void before(Range lot, int64_t t, int k) {
        if (t)
            read(run_.part[k].output, t - 1, lot, k, x_[k]);
        else
            load(run_.part[k].start, lot, k, x_[k]);
    }

    // ---- inputs and gradients ------------------------------------------------------------------------------------

    /// use(input, rows, first) for the rows of the input of the steps from ... to - 1.
    template <class Use>
    void each_input(Range lot, int64_t from, int64_t to, Use use) const {
        const lv_series& input = run_.input;
        const T* at = static_cast<const T*>(input.in) + from * input.time + lot.first * input.sample;
        if (lot.count == 1) return use(Rows<T>{at, input.time}, to - from, 0);
        if (input.time == lot.count * input.sample) return use(Rows<T>{at, input.sample}, (to - from) * lot.count, 0);
        for (int64_t t = from; t < to; ++t, at += input.time)
            use(Rows<T>{at, input.sample}, lot.count, (t - from) * lot.count);
    }

    void force(Range lot, int64_t from, int64_t to) {
        for (int k = 0; k < parts_; ++k) {
            auto& v = v_[k];
            if (v.drifts) continue;
            for (int64_t t = from; t < to; ++t) v.bias(t, lot, u(v, lot.count, t - from));
            if (v.reads_input())
                each_input(lot, from, to, [&v](Rows<T> in, int64_t rows, int64_t first) { v.add_input(in, rows, first); });
        }
    }

    void collect(Range lot, int64_t from, int64_t to) {
        const int64_t rows = (to - from) * lot.count, inputs = padded<T>(run_.inputs);
        if (input_) std::memset(input_, 0, rows * inputs * sizeof(T));
        for (int k = 0; k < parts_; ++k) {
            auto& v = v_[k];
            if (v.drifts) continue;
            v.collect(to - from, lot.count);
            for (int64_t t = from; t < to; ++t) v.to_forcing(t, lot, (t - from) * lot.count);
            if (!v.reads_input()) continue;
            each_input(lot, from, to, [&v](Rows<T> in, int64_t n, int64_t first) { v.collect_input(in, n, first); });
            if (input_) v.to_input(rows, input_);
        }
        auto* to_caller = static_cast<T*>(run_.input.out);
        for (int64_t t = from, r = 0; input_ && t < to; ++t)
            for (int64_t s = 0; s < lot.count; ++s, ++r)
                std::memcpy(to_caller + t * run_.input_time + (lot.first + s) * run_.input_sample, input_ + r * inputs,
                            run_.inputs * sizeof(T));
    }

    /// The largest difference of the rebuilt first state.
    void compare(Range lot) {
        for (int k = 0; k < parts_; ++k) {
            const lv_array& start = run_.part[k].start;
            for (int64_t s = 0; start.in && s < lot.count; ++s) {
                const T* row = static_cast<const T*>(start.in) + (lot.first + s) * start.in_stride;
                for (int64_t j = 0; j < run_.part[k].width; ++j) {
                    const double size = std::fabs(double(row[j]));
                    const double error = std::fabs(double(x_[k][s * width_[k] + j]) - double(row[j]));
                    result_.size = size > result_.size ? size : result_.size;
                    result_.error = error > result_.error ? error : result_.error;
                }
            }
        }
    }

    // ---- rows of the caller --------------------------------------------------------------------------------------

    void load(const lv_array& from, Range lot, int k, T* to) const {
        take(static_cast<const T*>(from.in) + lot.first * from.in_stride, from.in_stride, lot.count, k, to);
    }

    void read(const lv_series& from, int64_t t, Range lot, int k, T* to) const {
        take(static_cast<const T*>(from.in) + t * from.time + lot.first * from.sample, from.sample, lot.count, k, to);
    }

    void take(const T* from, int64_t stride, int64_t samples, int k, T* to) const {
        const int64_t width = run_.part[k].width;
        for (int64_t s = 0; s < samples; ++s, from += stride, to += width_[k]) {
            std::memcpy(to, from, width * sizeof(T));
            std::memset(to + width, 0, (width_[k] - width) * sizeof(T));
        }
    }

    void unload(void* to, Range lot, int k, const T* from) const {
        if (to) write({nullptr, to, 0, run_.part[k].width}, 0, lot, k, from);
    }

    void write(const lv_series& to, int64_t t, Range lot, int k, const T* from) const {
        if (!to.out) return;
        T* at = static_cast<T*>(to.out) + t * to.time + lot.first * to.sample;
        for (int64_t s = 0; s < lot.count; ++s, at += to.sample, from += width_[k])
            std::memcpy(at, from, run_.part[k].width * sizeof(T));
    }

    void add(const lv_series& given, int64_t t, Range lot, int k, T* to) const {
        if (!given.in) return;
        const T* at = static_cast<const T*>(given.in) + t * given.time + lot.first * given.sample;
        for (int64_t s = 0; s < lot.count; ++s, at += given.sample, to += width_[k])
            for (int64_t j = 0; j < run_.part[k].width; ++j) to[j] += at[j];
    }

    /// Before step t: keeps the state, where it is one of those.
    void keep(Range lot, int64_t t) const {
        if (!run_.kept || t == 0 || t % run_.segment) return;
        const int64_t width = run_.part[0].width;
        write({nullptr, run_.kept, run_.batch * width, width}, t / run_.segment - 1, lot, 0, x_[0]);
    }
};

}  // namespace LV_ISA
