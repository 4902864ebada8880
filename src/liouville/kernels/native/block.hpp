// A block of samples during a run: state and costate feature by feature, in memory of this thread.
#pragma once

#include "problem.h"
#include "tiles.hpp"

namespace LV_ISA {

/// One part of the state of a block: x, its costate g, and in exact runs the integers z whose image x is.
template <class T>
struct Part {
    int width;
    T *x, *g;
    Integer<T>* z;

    /// Where panel number `panel` begins.
    int64_t at(int panel) const { return int64_t(panel) * width * panel_lanes<T>; }
};

/// The positions of the samples of a block in the caller's arrays.
struct Range {
    int64_t first, count;
};

/// The share of thread `index` of `threads`, in whole vectors of samples.
template <class T>
inline Range share(int64_t batch, int index, int threads) {
    const int64_t vectors = (batch + lanes<T> - 1) / lanes<T>;
    const int64_t from = vectors * index / threads * lanes<T>, to = vectors * (index + 1) / threads * lanes<T>;
    return {from, (to < batch ? to : batch) - from};
}

/// use(part) for blocks of `range` of about equal size, at most `panels` panels.
template <class T, class Use>
inline void each_block(Range range, int64_t panels, Use use) {
    const int64_t most = panels * panel_lanes<T>;
    const int number = range.count > 0 ? int((range.count + most - 1) / most) : 0;
    for (int k = 0; k < number; ++k) {
        const Range part = share<T>(range.count, k, number);
        use(Range{range.first + part.first, part.count});
    }
}

template <class T>
inline Block block_of(int64_t samples) {
    const int vectors = int((samples + lanes<T> - 1) / lanes<T>);
    const int tail = vectors % kPanel;
    return {vectors / kPanel, tail == 3 ? 4 : tail};  // widths 1, 2 and 4 are compiled
}

/// Samples with one stride in an array of the caller, whose features have another stride.
struct Strip {
    int64_t at, sample, feature;
    int count;
};

/// The longest strip from sample `first` on. `plane` is 0 where a sample's features are contiguous; else the features of
/// an image are planes of that size, which end the strip.
inline Strip strip(int64_t plane, int64_t stride, int64_t first, int count) {
    if (!plane) return {first * stride, stride, 1, count};
    const int64_t image = first / plane, at = first % plane;
    return {image * stride + at, 1, plane, plane - at < count ? int(plane - at) : count};
}

/// use(strip, panel, lane) for the strips that the samples of `range` are in an array of this plane and stride.
template <class T, class Use>
inline void each_strip(const Block& block, int64_t plane, int64_t stride, Range range, Use use) {
    for (int panel = 0; panel < block.panels(); ++panel) {
        const int size = block.width(panel) * lanes<T>;
        const int64_t done = int64_t(panel) * panel_lanes<T>;
        const int real = range.count - done < size ? int(range.count - done) : size;
        for (int lane = 0; lane < real;) {
            const Strip s = strip(plane, stride, range.first + done + lane, real - lane);
            use(s, panel, lane);
            lane += s.count;
        }
    }
}

/// Rows of the caller to panels. Lanes after the last sample repeat it, so that they have no numbers that no sample
/// has; their costate is 0, so that they add nothing to a gradient.
template <class T>
void gather(const Block& block, const lv_array& array, int width, Range range, bool repeat, T* to, int64_t plane = 0) {
    const T* from = static_cast<const T*>(array.in);
    each_strip<T>(block, plane, array.in_stride, range, [&](const Strip& s, int panel, int lane) {
        const int size = block.width(panel) * lanes<T>;
        T* out = to + int64_t(panel) * width * panel_lanes<T> + lane;
        for (int k = 0; k < width; ++k, out += size) {
            const T* in = from + s.at + k * s.feature;
            if (s.sample == 1)
                std::memcpy(out, in, s.count * sizeof(T));
            else
                for (int i = 0; i < s.count; ++i) out[i] = in[i * s.sample];
        }
    });
    const int last = block.panels() - 1, size = block.width(last) * lanes<T>;
    const int real = int(range.count - int64_t(last) * panel_lanes<T>);
    T* out = to + int64_t(last) * width * panel_lanes<T>;
    for (int k = 0; k < width; ++k, out += size)
        for (int i = real; i < size; ++i) out[i] = repeat ? out[real - 1] : T(0);
}

/// Panels to rows of the caller, if requested.
template <class T>
void scatter(const Block& block, const lv_array& array, int width, Range range, const T* from, int64_t plane = 0) {
    if (!array.out) return;
    T* to = static_cast<T*>(array.out);
    const int64_t stride = plane ? plane * width : width;
    each_strip<T>(block, plane, stride, range, [&](const Strip& s, int panel, int lane) {
        const int size = block.width(panel) * lanes<T>;
        const T* in = from + int64_t(panel) * width * panel_lanes<T> + lane;
        for (int k = 0; k < width; ++k, in += size) {
            T* out = to + s.at + k * s.feature;
            if (s.sample == 1)
                std::memcpy(out, in, s.count * sizeof(T));
            else
                for (int i = 0; i < s.count; ++i) out[i * s.sample] = in[i];
        }
    });
}

/// y += step * v, in floating point.
template <class T>
struct Floating {
    T* y;
    T step;

    void operator()(int at, Vec<T> v) const { store(y + at, fma<T>(broadcast(step), v, load(y + at))); }
};

/// y = x + step * v, in floating point, out of place.
template <class T>
struct Advance {
    const T* x;
    T *y, step;

    void operator()(int at, Vec<T> v) const { store(y + at, fma<T>(broadcast(step), v, load(x + at))); }
};

/// z += round(step * v), y = spacing * z: a bijection of the grid. Records whether a number left the range; a sum of two
/// numbers within it cannot leave it undetected.
template <class T>
struct Rounded {
    T* y;
    Integer<T>* z;
    T step, spacing, limit;
    IntegerVec<T>* left;

    void operator()(int at, Vec<T> v) const {
        const Vec<T> increment = nearest<T>(broadcast(step) * v);
        const IntegerVec<T> fits = within(increment);
        const IntegerVec<T> whole = __builtin_convertvector(fits ? increment : Vec<T>{}, IntegerVec<T>);
        // a run that has left the range is discarded, but until then its sums must be allowed to wrap around
        auto& sum = *reinterpret_cast<IntegerVec<T>*>(z + at);
        sum = IntegerVec<T>(UnsignedVec<T>(sum) + UnsignedVec<T>(whole));
        const Vec<T> image = __builtin_convertvector(sum, Vec<T>);
        store(y + at, image * broadcast(spacing));
        *left |= ~fits | ~within(image);
    }
    IntegerVec<T> within(Vec<T> x) const { return (x < broadcast(limit)) & (x > broadcast(-limit)); }
};

}  // namespace LV_ISA
