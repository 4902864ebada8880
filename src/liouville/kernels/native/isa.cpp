// Runs over depth; compiled once for each instruction set, with LV_ISA its name.
#include "call.hpp"
#include "euler.hpp"
#include "run.hpp"

namespace LV_ISA {
namespace {

template <class T, class Lot, bool exact, bool back>
void perform(lv_shear_run& run) {
    using Part = ShearRun<T, Lot, exact>;
    const int64_t width = run.parts[0].width + run.parts[1].width;
    const int64_t work = run.layers * run.stages * (run.image.taps * width * width + 16 * width);
    const int threads = useful_threads(Lot::pieces(run), Lot::vectors_of_piece(run), run.threads, work);
    Call<T, Part, lv_shear_run, back> call(run, threads, run.velocities, run.layers, threads, run.image.taps);
    call.perform();
    run.checksum = 0, run.left_range = 0, run.error = 0, run.size = 0;
    for (int t = 0; t < threads; ++t) {
        run.checksum += call.results[t].checksum;
        run.left_range |= call.results[t].left;
        run.error = call.results[t].error > run.error ? call.results[t].error : run.error;
        run.size = call.results[t].size > run.size ? call.results[t].size : run.size;
    }
}

template <class T, class Lot>
void choose_arithmetic(lv_shear_run& run, bool back) {
    if (run.spacing > 0)
        back ? perform<T, Lot, true, true>(run) : perform<T, Lot, true, false>(run);
    else
        back ? perform<T, Lot, false, true>(run) : perform<T, Lot, false, false>(run);
}

template <class T, class Sigma>
void choose_formula(lv_shear_run& run, bool back) {
    run.image.taps > 1 ? choose_arithmetic<T, Images<T, Sigma>>(run, back)
                       : choose_arithmetic<T, Panels<T, Sigma>>(run, back);
}

template <class T, class Sigma, Form form, bool back>
void perform(lv_euler_run& run) {
    using Part = EulerRun<T, Sigma, form>;
    const int64_t work = run.layers * (2 * run.width * run.weights[0].rows + 16 * run.weights[0].rows);
    const int threads = useful_threads((run.batch + lanes<T> - 1) / lanes<T>, 1, run.threads, work);
    Call<T, Part, lv_euler_run, back>(run, threads, run.weights, run.layers, threads).perform();
}

template <class T, class Sigma>
void choose_formula(lv_euler_run& run, bool back) {
    if (run.weights[1].K)
        back ? perform<T, Sigma, Form::turned, true>(run) : perform<T, Sigma, Form::turned, false>(run);
    else
        back ? perform<T, Sigma, Form::plain, true>(run) : perform<T, Sigma, Form::plain, false>(run);
}

template <class T, class Run>
void choose_activation(Run& run, bool back) {
    run.activation == LV_RELU ? choose_formula<T, Relu>(run, back) : choose_formula<T, Tanh>(run, back);
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

void euler_run(lv_euler_run& run, bool back) {
    run.type == LV_FLOAT64 ? choose_activation<double>(run, back) : choose_activation<float>(run, back);
}

void activation(int64_t type, int64_t kind, int64_t count, const void* in, void* out) {
    if (type == LV_FLOAT64)
        activate(kind, count, static_cast<const double*>(in), static_cast<double*>(out));
    else
        activate(kind, count, static_cast<const float*>(in), static_cast<float*>(out));
}

}  // namespace LV_ISA
