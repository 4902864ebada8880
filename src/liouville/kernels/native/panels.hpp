// Samples in panels: the storage of vectors, and of pixels without neighbours, in a run of shears.
#pragma once

#include "small.hpp"
#include "workspace.hpp"

namespace LV_ISA {

/// The samples that one thread takes through all layers at a time, and the shears on them.
template <class T, class Sigma>
class Panels {
public:
    explicit Panels(const lv_shear_run& run) : plane_(run.image.planes ? run.image.height * run.image.width : 0) {}

    /// The share of thread `index` of `threads`, in whole vectors of samples.
    static Range part(const lv_shear_run& run, int index, int threads) { return share<T>(run.batch, index, threads); }

    /// Pieces of work that threads can share, and the size of each.
    static int64_t pieces(const lv_shear_run& run) { return (run.batch + lanes<T> - 1) / lanes<T>; }
    static int64_t vectors_of_piece(const lv_shear_run&) { return 1; }

    /// use(range) for the samples of `range` in lots that fit into the cache, after allocating memory for each.
    template <class Use>
    void each(Range range, bool exact, int hidden, Part<T> (&parts)[2], Use use) {
        const int64_t features = parts[0].width + parts[1].width;
        const int64_t panel = panel_lanes<T> * int64_t(sizeof(T)) * ((2 + exact) * features + 2 * hidden);
        each_block<T>(range, panels_in_cache(panel), [&](Range lot) {
            block_ = block_of<T>(lot.count);
            const int64_t samples = block_.panels() * int64_t(panel_lanes<T>);
            Workspace memory(block_.panels() * panel);
            for (Part<T>& part : parts) {
                part.x = memory.take<T>(samples * part.width);
                part.g = memory.take<T>(samples * part.width);
                part.z = exact ? memory.take<Integer<T>>(samples * part.width) : nullptr;
            }
            a_ = memory.take<T>(samples * hidden);
            d_ = memory.take<T>(samples * hidden);
            use(lot);
        });
    }

    /// Entries of a part of this width, including padding.
    int64_t entries(int width) const { return int64_t(block_.vectors()) * lanes<T> * width; }

    template <class N>
    void enter(const lv_array& array, int width, Range range, bool repeat, N* to) const {
        gather(block_, array, width, range, repeat, to, plane_);
    }

    template <class N>
    void leave(const lv_array& array, int width, Range range, const N* from) const {
        scatter(block_, array, width, range, from, plane_);
    }

    /// The sum of all integers of real samples, which a single differing bit changes.
    uint64_t sum(const Part<T>& part, int64_t samples) const {
        uint64_t sum = 0;
        for (int panel = 0; panel < block_.panels(); ++panel) {
            const int size = block_.width(panel) * lanes<T>;
            for (int k = 0; k < part.width; ++k)
                for (int s = 0; s < size && panel * panel_lanes<T> + s < samples; ++s)
                    sum += uint64_t(int64_t(part.z[part.at(panel) + k * size + s]));
        }
        return sum;
    }

    /// A shear of y by x, or its inverse and derivative; mover(at) moves the entries of y from number `at` on.
    template <bool back, Form form, class Mover>
    void shear(const Weights<T>& w, T step, const Part<T>& x, const Part<T>& y, Mover mover) const {
        if (w.W.rows == w.W.columns && w.W.rows <= kSmall)
            return with_small(w.W.rows, [&](auto M) { small<back, form, M.value>(w, step, x, y, mover); });
        for (int panel = 0; panel < block_.panels(); ++panel)
            with_width(block_.width(panel), [&](auto C) { one<back, form, C.value>(w, step, x, y, panel, mover); });
        if constexpr (back) weight_gradients<T, form>(block_, w, step, x.x, y.g, a_, d_);
    }

private:
    const int64_t plane_;
    Block block_ = {};
    T *a_ = nullptr, *d_ = nullptr;

    template <bool back, Form form, int M, class Mover>
    void small(const Weights<T>& w, T step, const Part<T>& x, const Part<T>& y, Mover mover) const {
        SmallShear<T, Sigma, form, M> shear(w, step);
        for (int panel = 0; panel < block_.panels(); ++panel) {
            const int size = block_.width(panel) * lanes<T>;
            const T *from = x.x + x.at(panel), *g_y = y.g + y.at(panel);
            T* g_x = x.g + x.at(panel);
            const auto move = mover(y.at(panel));
            in_flight<T>(size, [&](auto U, int at) {
                if constexpr (back)
                    shear.template backward<U.value>(from, g_x, g_y, at, size, move);
                else
                    shear.template forward<U.value>(from, at, size, move);
            });
        }
        if constexpr (back) shear.flush(w);
    }

    template <bool back, Form form, int C, class Mover>
    void one(const Weights<T>& w, T step, const Part<T>& x, const Part<T>& y, int panel, Mover mover) const {
        const int64_t scratch = int64_t(panel) * w.W.rows * panel_lanes<T>;
        const Shear<T, Sigma, form, C> shear{w, x.x + x.at(panel), a_ + scratch, d_ + scratch};
        const auto move = mover(y.at(panel));
        shear.activate();
        if constexpr (back) shear.differentiate(y.g + y.at(panel));
        shear.shift(move);
        if constexpr (back) shear.pull(step, x.g + x.at(panel));
    }
};

}  // namespace LV_ISA
