// Everything that depends on the instruction set; compiled once for each, with LV_ISA its name.
#include "run.hpp"

namespace LV_ISA {
namespace {

/// Fewer threads where a run is too short to be worth waking them: a function of the sizes alone.
int useful_threads(const lv_shear_run& run, int64_t vectors) {
    const int64_t width = run.parts[0].width + run.parts[1].width;
    const int64_t work = vectors * run.layers * run.stages * (width * width + 16 * width);
    const int64_t most = 1 + work / 20000;
    const int64_t threads = run.threads < most ? run.threads : most;
    return int(threads < vectors ? threads : vectors);
}

template <class T, class Sigma, bool exact, bool back>
struct Call {
    lv_shear_run& run;
    int threads;
    GradientSums<T> sums;
    struct Result {
        uint64_t checksum;
        bool left;
        double error, size;
    };
    Result* results;

    static void part(void* data, int index) {
        Call& call = *static_cast<Call*>(data);
        ShearRun<T, Sigma, exact> part(call.run, call.sums.of(index));
        const Range range = share<T>(call.run.batch, index, call.threads);
        if (back)
            part.backward(range);
        else
            part.forward(range);
        call.results[index] = {part.checksum(), part.left_range(), part.error(), part.size()};
    }

    static void reduce(void* data, int index) { static_cast<Call*>(data)->sums.reduce(index); }
};

template <class T, class Sigma, bool exact, bool back>
void perform(lv_shear_run& run) {
    using Run = Call<T, Sigma, exact, back>;
    const int64_t vectors = (run.batch + lanes<T> - 1) / lanes<T>;
    const int threads = vectors ? useful_threads(run, vectors) : 1;
    auto* results = static_cast<typename Run::Result*>(std::calloc(threads, sizeof(typename Run::Result)));
    Run call{run, threads, {run.velocities, run.layers, threads}, results};
    lv::parallel(threads, Run::part, &call);
    if (back && threads > 1) lv::parallel(threads, Run::reduce, &call);
    run.checksum = 0, run.left_range = 0, run.error = 0, run.size = 0;
    for (int t = 0; t < threads; ++t) {
        run.checksum += results[t].checksum;
        run.left_range |= results[t].left;
        run.error = results[t].error > run.error ? results[t].error : run.error;
        run.size = results[t].size > run.size ? results[t].size : run.size;
    }
    std::free(results);
}

template <class T, class Sigma>
void choose_arithmetic(lv_shear_run& run, bool back) {
    if (run.spacing > 0)
        back ? perform<T, Sigma, true, true>(run) : perform<T, Sigma, true, false>(run);
    else
        back ? perform<T, Sigma, false, true>(run) : perform<T, Sigma, false, false>(run);
}

template <class T>
void choose_activation(lv_shear_run& run, bool back) {
    run.activation == LV_RELU ? choose_arithmetic<T, Relu>(run, back) : choose_arithmetic<T, Tanh>(run, back);
}

template <class T>
void activate(int64_t activation, int64_t count, const T* in, T* out) {
    for (int64_t at = 0; at < count; at += lanes<T>) {
        const int number = count - at < lanes<T> ? int(count - at) : lanes<T>;
        Vec<T> x = {};
        std::memcpy(&x, in + at, number * sizeof(T));
        x = activation == LV_RELU ? Relu::value<T>(x) : Tanh::value<T>(x);
        std::memcpy(out + at, &x, number * sizeof(T));
    }
}

}  // namespace

void shear_run(lv_shear_run& run, bool back) {
    run.type == LV_FLOAT64 ? choose_activation<double>(run, back) : choose_activation<float>(run, back);
}

void activation(int64_t type, int64_t kind, int64_t count, const void* in, void* out) {
    if (type == LV_FLOAT64)
        activate(kind, count, static_cast<const double*>(in), static_cast<double*>(out));
    else
        activate(kind, count, static_cast<const float*>(in), static_cast<float*>(out));
}

}  // namespace LV_ISA
