// Images under 3 x 3 stencils: their storage in a run of shears, and their shears.
//
// A lot is a few images that pass through all layers together, each channel as four quarters (see stencil.hpp).
// Everything outside the images is zero and stays zero, which is the padding: results are masked, and sigma(0) = 0.
#pragma once

#include "stencil.hpp"
#include "workspace.hpp"

namespace LV_ISA {

template <class T>
struct Put {
    T* to;
    void operator()(int at, Vec<T> x) const { store(to + at, x); }
};

/// a = sigma(u)
template <class T, class Sigma>
struct Activate {
    T* a;
    void operator()(int at, Vec<T> u) const { store(a + at, Sigma::template value<T>(u)); }
};

/// d = w sigma'(u), where a = sigma(u)
template <class T, class Sigma>
struct Differentiate {
    const T* a;
    T* d;
    void operator()(int at, Vec<T> w) const { store(d + at, w * Sigma::template derivative<T>(load(a + at))); }
};

template <class T, class Sigma>
class Images {
public:
    explicit Images(const lv_shear_run& run)
        : image_(run.image), pitch_(int((run.image.width + 1) / 2) + 1), rows_(int((run.image.height + 1) / 2) + 1) {}

    /// The share of thread `index` of `threads`, in whole images.
    static Range part(const lv_shear_run& run, int index, int threads) {
        const int64_t images = pieces(run), from = images * index / threads, to = images * (index + 1) / threads;
        return {from, to - from};
    }

    static int64_t pieces(const lv_shear_run& run) { return run.batch / (run.image.height * run.image.width); }
    static int64_t vectors_of_piece(const lv_shear_run& run) {
        return (run.image.height * run.image.width + lanes<T> - 1) / lanes<T>;
    }

    /// use(range) for the images of `range` in lots, after allocating memory for each.
    template <class Use>
    void each(Range range, bool exact, int hidden, Part<T> (&parts)[2], Use use) {
        const int64_t most = images_in_cache(exact, hidden, parts);
        const int64_t number = (range.count + most - 1) / most;
        for (int64_t k = 0, lot = 0; k < number; ++k) {
            const int64_t first = range.count * k / number, count = range.count * (k + 1) / number - first;
            if (lot != count) prepare(int(lot = count), exact, hidden, parts);
            use(Range{range.first + first, count});
        }
    }

    int64_t entries(int width) const { return tiling_.entries(width); }

    /// From the caller's array to the quarters.
    template <class N>
    void enter(const lv_array& array, int width, Range range, bool, N* to) const {
        const N* from = static_cast<const N*>(array.in);
        each_row(array.in_stride, width, range, [&](int64_t at, int64_t pixel, int64_t quarters, int number) {
            const N* in = from + at;
            N *even = to + quarters, *odd = even + tiling_.quarter;
            for (int c = 0; c < number / 2; ++c) even[c] = in[2 * c * pixel], odd[c] = in[(2 * c + 1) * pixel];
            if (number % 2) even[number / 2] = in[(number - 1) * pixel];
        });
    }

    /// And back, if requested.
    template <class N>
    void leave(const lv_array& array, int width, Range range, const N* from) const {
        if (!array.out) return;
        N* to = static_cast<N*>(array.out);
        const int64_t stride = image_.planes ? width * image_.height * image_.width : width;
        each_row(stride, width, range, [&](int64_t at, int64_t pixel, int64_t quarters, int number) {
            N* out = to + at;
            const N *even = from + quarters, *odd = even + tiling_.quarter;
            for (int c = 0; c < number / 2; ++c) out[2 * c * pixel] = even[c], out[(2 * c + 1) * pixel] = odd[c];
            if (number % 2) out[(number - 1) * pixel] = even[number / 2];
        });
    }

    uint64_t sum(const Part<T>& part, int64_t) const {
        uint64_t sum = 0;
        for (int64_t at = 0; at < entries(part.width); ++at) sum += uint64_t(int64_t(part.z[at]));
        return sum;
    }

    /// A shear of y by x, or its inverse and derivative; mover(at) moves the entries of y from number `at` on.
    template <bool back, Form form, class Mover>
    void shear(const Weights<T>& w, T step, const Part<T>& x, const Part<T>& y, Mover mover) const {
        const int rows = w.W.rows, columns = w.W.columns;
        const int64_t stride = padded(int64_t(rows) * columns);
        const Factors3x3 K = {weights_, stride, rows, columns, false}, K_T = {weights_, stride, rows, columns, true};
        weights_to_factors(w.W, weights_, stride);
        convolve(K, w.b, x.x, back ? x_factors_ : nullptr, Activate<T, Sigma>{a_});
        if constexpr (back && form == Form::plain)
            for (int64_t at = 0; at < entries(rows); at += lanes<T>)
                Differentiate<T, Sigma>{a_, d_}(int(at), load(y.g + at));
        if constexpr (back && form != Form::plain)
            convolve(K, nullptr, y.g, g_factors_, Differentiate<T, Sigma>{a_, d_});
        if constexpr (form == Form::plain) {
            const auto move = mover(0);
            for (int64_t at = 0; at < entries(rows); at += lanes<T>) move(int(at), load(a_ + at));
        } else {
            convolve(K_T, nullptr, a_, nullptr, mover(0));
        }
        if constexpr (back) {
            if (w.W_gradient) gradient<form>(w, step);
            if (w.b_gradient) sum_bias(w, step);
            convolve(K_T, nullptr, d_, nullptr, Floating<T>{x.g, step});
        }
    }

private:
    /// The 16 matrices of K, or of its transpose.
    struct Factors3x3 {
        const T* at;
        int64_t stride;
        int rows, columns;
        bool turned;

        /// The factors of a panel's results from the factors of its inputs.
        template <int C>
        void products(const T* in, int64_t in_stride, T* out, int64_t out_stride) const {
            each_tile(of(0).rows, [&](auto R, int first) {
                for (int f = 0; f < kFactors; ++f) {
                    const Put<T> put = {out + f * out_stride};
                    tile<T, R.value, C>(of(f), first, static_cast<const T*>(nullptr), in + f * in_stride, put);
                }
            });
        }

        Matrix<T> of(int f) const {
            const int j = f / 4, l = f % 4;
            const auto flip = [](int n) { return n == 0 ? 3 : n == 3 ? 0 : n; };
            const Matrix<T> W = {at + (turned ? 4 * flip(j) + flip(l) : f) * stride, rows, columns, columns, 1};
            return turned ? transposed(W) : W;
        }
    };

    const lv_image image_;
    const int pitch_, rows_;  // of one image; the last of each is empty
    Tiling tiling_ = {};
    T *a_, *d_, *inside_, *weights_, *sums_, *in_, *out_, *x_factors_, *g_factors_, *a_factors_, *d_factors_;

    static int64_t padded(int64_t count) { return (count + lanes<T> - 1) / lanes<T> * lanes<T>; }

    /// The number of entries of one factor over all positions.
    int64_t of_factor(int channels) const { return int64_t(tiling_.block.vectors()) * lanes<T> * channels; }

    /// As many images as the second-level cache holds, and enough to amortise the work per lot and layer: weights are
    /// transformed for at least 16 vectors.
    int64_t images_in_cache(bool exact, int hidden, Part<T> (&parts)[2]) {
        const int64_t one = lay_out(1, exact, hidden, parts, 0), more = lay_out(9, exact, hidden, parts, 0) - one;
        const int64_t fit = 8 * kFar / (more + 1);  // small images may need no more than one
        const int64_t enough = 16 * lanes<T> / (rows_ * pitch_), most = fit < 8 ? fit : 8;
        return most < enough ? enough : most > 1 ? most : 1;
    }

    void prepare(int images, bool exact, int hidden, Part<T> (&parts)[2]) {
        const int64_t bytes = lay_out(images, exact, hidden, parts, 0);
        char* at = Workspace(bytes).take<char>(bytes);
        std::memset(at, 0, bytes);
        lay_out(images, exact, hidden, parts, reinterpret_cast<uintptr_t>(at));
        for (int64_t b = 0; b < images; ++b)
            for (int64_t r = 0; r < image_.height; ++r)
                for (int64_t c = 0; c < image_.width; ++c) {
                    T* inside = inside_ + (r % 2 * 2 + c % 2) * tiling_.quarter;
                    std::memset(inside + (b * rows_ + r / 2) * pitch_ + c / 2, 0xff, sizeof(T));
                }
    }

    /// Assigns memory from an address on; returns the number of bytes.
    int64_t lay_out(int images, bool exact, int hidden, Part<T> (&parts)[2], uintptr_t from) {
        const int64_t gap = padded(pitch_ + 1);  // empty entries after a quarter, and before the first
        const Block block = block_of<T>(int64_t(images) * rows_ * pitch_ - pitch_);
        tiling_ = {pitch_, int(block.vectors() * lanes<T> + gap), block};
        uintptr_t at = from;
        const auto place = [&](int64_t before, int64_t count) {
            const uintptr_t here = at + before * sizeof(T);
            at = here + padded(count) * sizeof(T);
            return here;
        };
        const auto take = [&](int64_t count) { return reinterpret_cast<T*>(place(0, count)); };
        const auto take_channels = [&](int count) { return reinterpret_cast<T*>(place(gap, entries(count))); };
        int widest = hidden;
        for (Part<T>& part : parts) {
            widest = part.width > widest ? part.width : widest;
            part.x = take_channels(part.width);
            part.g = take_channels(part.width);
            part.z = exact ? reinterpret_cast<Integer<T>*>(take_channels(part.width)) : nullptr;
        }
        a_ = take_channels(hidden), d_ = take_channels(hidden), inside_ = take_channels(1);
        weights_ = take(kFactors * padded(int64_t(hidden) * widest));
        sums_ = take(kFactors * padded(int64_t(hidden) * widest));
        in_ = take(kFactors * widest * panel_lanes<T>), out_ = take(kFactors * widest * panel_lanes<T>);
        x_factors_ = take(kFactors * of_factor(widest)), g_factors_ = take(kFactors * of_factor(widest));
        a_factors_ = take(4 * of_factor(hidden)), d_factors_ = take(4 * of_factor(hidden));
        return int64_t(at - from);
    }

    /// use(entry of the caller's array, distance of its pixels, entry of the quarters, pixels) for each row of pixels;
    /// the even ones of a row are in the quarter at that entry, the odd ones in the next.
    template <class Use>
    void each_row(int64_t stride, int width, Range range, Use use) const {
        const int64_t plane = image_.height * image_.width;
        for (int64_t b = 0; b < range.count; ++b)
            for (int64_t k = 0; k < width; ++k)
                for (int64_t r = 0; r < image_.height; ++r) {
                    const int64_t image = range.first + b, pixel = r * image_.width;
                    const int64_t quarters = (k * 4 + r % 2 * 2) * tiling_.quarter + (b * rows_ + r / 2) * pitch_;
                    if (image_.planes)
                        use(image * stride + k * plane + pixel, 1, quarters, int(image_.width));
                    else
                        use((image * plane + pixel) * stride + k, stride, quarters, int(image_.width));
                }
    }

    /// use(entry, numbers) for all of K in, plus a bias; stores the factors of `in` if there is memory for them.
    template <class Use>
    void convolve(const Factors3x3& K, const T* bias, const T* in, T* kept, Use use) const {
        const int from = K.of(0).columns, to = K.of(0).rows;
        const int64_t stride = kept ? of_factor(from) : from * panel_lanes<T>, out_stride = to * panel_lanes<T>;
        for (int panel = 0; panel < tiling_.block.panels(); ++panel) {
            T* factors = kept ? kept + int64_t(panel) * from * panel_lanes<T> : in_;
            with_width(tiling_.block.width(panel), [&](auto C) {
                input_to_factors<T, C.value>(tiling_, in, from, panel, factors, stride);
                K.template products<C.value>(factors, stride, out_, out_stride);
                factors_to_result<T, C.value>(tiling_, out_, out_stride, to, panel, bias, inside_, use);
            });
        }
    }

    template <Form form>
    void gradient(const Weights<T>& w, T step) const {
        const int rows = w.W.rows, columns = w.W.columns;
        const int64_t size = padded(int64_t(rows) * columns), left = of_factor(rows), right = of_factor(columns);
        const Matrix<T> shape = {nullptr, rows, columns, columns, 1};
        std::memset(sums_, 0, kFactors * size * sizeof(T));
        for (int f = 0; f < kFactors; ++f) {
            if (f % 4 == 0) costate(f / 4, d_, rows, d_factors_);
            if (f % 4 == 0 && form != Form::plain) costate(f / 4, a_, rows, a_factors_);
            const Factors<T> d = {d_factors_ + f % 4 * left, x_factors_ + f * right};
            const Factors<T> a = {a_factors_ + f % 4 * left, g_factors_ + f * right};
            const Factors<T> one[] = {d}, both[] = {d, a};
            if constexpr (form == Form::plain)
                outer<T, 1>(tiling_.block, one, shape, step, sums_ + f * size);
            else
                outer<T, 2>(tiling_.block, both, shape, step, sums_ + f * size);
        }
        factors_to_gradient(w.W, sums_, size, w.W_gradient);
    }

    void costate(int row, const T* in, int channels, T* to) const {
        const int64_t stride = of_factor(channels);
        switch (row) {
            case 0: return costate_to_factors<T, 0>(tiling_, in, channels, to, stride);
            case 1: return costate_to_factors<T, 1>(tiling_, in, channels, to, stride);
            case 2: return costate_to_factors<T, 2>(tiling_, in, channels, to, stride);
            default: return costate_to_factors<T, 3>(tiling_, in, channels, to, stride);
        }
    }

    void sum_bias(const Weights<T>& w, T step) const {
        for (int i = 0; i < w.W.rows; ++i) {
            Vec<T> sum = {};
            for (int64_t at = entries(i); at < entries(i + 1); at += lanes<T>) sum += load(d_ + at);
            T total = 0;
            for (int lane = 0; lane < lanes<T>; ++lane) total += sum[lane];
            w.b_gradient[i] += step * total;
        }
    }
};

}  // namespace LV_ISA
