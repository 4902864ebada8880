// A sequence: depth is time, with one weight and a forced bias in every step; lots of samples through all steps, and back.
//
// Going back, the states are read where all were kept, inverted where the velocities are shears, and else rebuilt, a
// segment at a time, from those that were kept.
#pragma once

#include "forced.hpp"
#include "traced.hpp"

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
template <class T, class Sigma, bool exact>
class SequenceRun {
public:
    using Sums = SequenceSums<T>;
    struct Result {
        uint64_t checksum;
        bool left;
        double error, size;
    };

    SequenceRun(const lv_sequence_run& run, const typename Sums::Gradients& gradients)
        : run_(run), parts_(int(run.parts)), kept_(run.part[0].output.in), segmented_(parts_ == 1 && !kept_) {
        for (int k = 0; k < parts_; ++k) {
            y_[k] = Traced<T, exact>(run.part[k], run.spacing, run.limit);
            v_[k] = Forced<T, Sigma>(run.velocity[k], gradients.of[k], run.inputs, run.part[k].width);
            first_[k] = -1;
        }
        for (int s = 0; s < run.stages; ++s) {
            const int k = int(run.stage[s].moved);
            ++v_[k].per;
            if (first_[k] < 0) first_[k] = s;
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
            for (int k = 0; k < parts_; ++k) y_[k].begin(lot, moves_);
            for (int64_t from = 0, to; from < run_.steps; from = to) {
                to = from + steps_ < run_.steps ? from + steps_ : run_.steps;
                force(lot, from, to);
                for (int64_t t = from; t < to; ++t) {
                    if (run_.kept && t && t % run_.segment == 0)
                        y_[0].keep(run_.kept, t / run_.segment - 1, run_.batch, lot);
                    advance(lot, t, t - from);
                    for (int k = 0; k < parts_; ++k) y_[k].write(t, lot);
                }
            }
            for (int k = 0; k < parts_; ++k) y_[k].end(lot);
        });
    }

    void backward(Range range) {
        each_lot(range, true, [this](Range lot) {
            for (int k = 0; k < parts_; ++k) {
                y_[k].costate(lot);
                if (kept_)
                    y_[k].before(run_.steps, lot);
                else if (!segmented_)
                    y_[k].enter(lot);
            }
            for (int64_t to = run_.steps, from; to > 0; to = from) {
                from = (to - 1) / steps_ * steps_;  // as forward: the same sums in the same order
                force(lot, from, to);
                if (segmented_) rebuild(lot, from, to);
                for (int64_t t = to; t-- > from;) back(lot, t, t - from);
                collect(lot, from, to);
            }
            for (int k = 0; k < parts_; ++k) y_[k].leave(lot, !kept_ && !segmented_);
        });
        if (range.count > 0)
            for (int k = 0; k < parts_; ++k) v_[k].finish();
    }

    Result result() const {
        Result all = {0, false, 0, 0};
        for (int k = 0; k < parts_; ++k) {
            all.checksum += y_[k].checksum();
            all.left |= y_[k].left();
            all.error = y_[k].error() > all.error ? y_[k].error() : all.error;
            all.size = y_[k].size() > all.size ? y_[k].size() : all.size;
        }
        return all;
    }

private:
    const lv_sequence_run& run_;
    const int parts_;
    const bool kept_, segmented_;
    int first_[2] = {};  // the stage of a step that moves each part first
    int64_t steps_ = 0;  // whose work is kept at a time
    Traced<T, exact> y_[2];
    Forced<T, Sigma> v_[2];
    T *factor_ = nullptr, *moves_ = nullptr, *input_ = nullptr;

    /// use(lot) for the samples of `range` in lots: the work of some steps fits into the second-level cache.
    template <class Use>
    void each_lot(Range range, bool back, Use use) {
        if (range.count <= 0) return;
        int64_t numbers = 1;
        for (int k = 0; k < parts_; ++k) numbers += v_[k].numbers();
        const int64_t fits = kFar * 3 / 4 / (numbers * int64_t(sizeof(T)));
        const int64_t rows = fits < 64 ? 64 : fits > 512 ? 512 : fits;
        int64_t most = 64;
        if (back && segmented_) most = rows / run_.segment < 8 ? 8 : rows / run_.segment < 64 ? rows / run_.segment : 64;
        const int64_t lots = (range.count + most - 1) / most, samples = (range.count + lots - 1) / lots;
        steps_ = back && segmented_ ? run_.segment : rows / samples > 1 ? rows / samples : 1;
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
        factor_ = memory.template take<T>(padded<T>(samples));
        moves_ = memory.template take<T>(padded<T>(samples));
        for (int k = 0; k < parts_; ++k) {
            y_[k].place(memory, samples);
            v_[k].place(memory, samples, steps_, back);
        }
        if (run_.input.out) input_ = memory.template take<T>(samples * steps_ * padded<T>(run_.inputs));
    }

    // ---- one step ------------------------------------------------------------------------------------------------

    /// The length of a stage for each sample, and that by which a part moves: back with `sign` -1.
    Step<T> step(Range lot, int64_t t, int stage, double sign) {
        const double factor = run_.stage[stage].factor, move = exact ? sign / run_.spacing : sign;
        const auto* tau = static_cast<const T*>(run_.tau);
        for (int64_t s = 0; s < lot.count; ++s) {
            const double length = tau ? factor * tau[t * run_.tau_time + (lot.first + s) * run_.tau_sample] : factor;
            factor_[s] = T(length), moves_[s] = T(move * length);
        }
        return {lot.count, factor_};
    }

    /// The part that the velocity of part `moved` reads.
    int source(int moved) const { return parts_ == 2 ? 1 - moved : moved; }

    T* u(const Forced<T, Sigma>& v, Range lot, int64_t row) const { return v.u + row * lot.count * v.inner(); }

    void advance(Range lot, int64_t t, int64_t row) {
        for (int s = 0; s < run_.stages; ++s) {
            const int k = int(run_.stage[s].moved);
            const T* x = y_[source(k)].x;
            step(lot, t, s, 1);
            if (!v_[k].drifts) v_[k].activate(x, u(v_[k], lot, row), v_[k].a, lot.count);
            v_[k].shift(x, v_[k].a, lot.count, y_[k].mover(y_[k].x, moves_));
        }
    }

    /// The states and activations of the steps from ... to - 1, kept as their events.
    void rebuild(Range lot, int64_t from, int64_t to) {
        auto& v = v_[0];
        auto& y = y_[0];
        if (from)
            y.kept(run_.kept, from / run_.segment - 1, run_.batch, lot, v.x);
        else
            y.start(lot, v.x);
        const int64_t state = lot.count * y.row, inner = lot.count * v.inner();
        for (int64_t t = from, e = 0; t < to; ++t, ++e) {
            T *x = v.x + e * state, *a = v.a + e * inner;
            v.activate(x, u(v, lot, e), a, lot.count);
            if (t + 1 == to) return;
            std::memcpy(x + state, x, state * sizeof(T));
            step(lot, t, 0, 1);
            v.shift(x, a, lot.count, y.mover(x + state, moves_));
        }
    }

    /// The costates through step t, and the states before it.
    void back(Range lot, int64_t t, int64_t row) {
        int64_t event[2];
        for (int k = 0; k < parts_; ++k) {
            event[k] = (row + 1) * v_[k].per;
            y_[k].add(t, lot);
        }
        if (parts_ == 1 && kept_) y_[0].before(t, lot);
        for (int s = int(run_.stages); s-- > 0;) {
            const int k = int(run_.stage[s].moved), from = source(k);
            auto& v = v_[k];
            const int64_t e = --event[k];
            const Step<T> step = this->step(lot, t, s, -1);
            const T* x = segmented_ ? v.x + e * lot.count * v.in() : y_[from].x;
            T* a = v.a + e * lot.count * v.inner();
            if (!v.drifts && !segmented_) v.activate(x, u(v, lot, row), a, lot.count);
            if (parts_ == 2 && kept_ && first_[k] == s)
                y_[k].before(t, lot);
            else if (parts_ == 2)
                v.shift(x, a, lot.count, y_[k].mover(y_[k].x, moves_));
            v.pull(e, x, y_[k].g, y_[from].g, step);
        }
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
            v.bias((to - from) * lot.count);
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
            if (!v.reads_input()) continue;
            each_input(lot, from, to, [&v](Rows<T> in, int64_t n, int64_t first) { v.collect_input(in, n, first); });
            if (input_) v.to_input(rows, input_);
        }
        auto* gradient = static_cast<T*>(run_.input.out);
        for (int64_t t = from, r = 0; input_ && t < to; ++t)
            for (int64_t s = 0; s < lot.count; ++s, ++r)
                std::memcpy(gradient + t * run_.input_time + (lot.first + s) * run_.input_sample, input_ + r * inputs,
                            run_.inputs * sizeof(T));
    }
};

}  // namespace LV_ISA
