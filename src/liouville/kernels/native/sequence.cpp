// Runs over time; compiled once for each instruction set, with LV_ISA its name.
#include "call.hpp"
#include "sequence.hpp"

namespace LV_ISA {
namespace {

template <class T, class Sigma, bool exact, bool back>
void perform(lv_sequence_run& run) {
    using Part = SequenceRun<T, Sigma, exact>;
    const int threads = useful_threads(run.batch, 1, run.threads, Part::work_per_sample(run));
    Call<T, Part, lv_sequence_run, back> call(run, threads, run, threads);
    call.perform();
    run.checksum = 0, run.left_range = 0, run.error = 0, run.size = 0;
    for (const auto& result : call.results) {
        run.checksum += result.checksum;
        run.left_range |= result.left;
        run.error = result.error > run.error ? result.error : run.error;
        run.size = result.size > run.size ? result.size : run.size;
    }
}

template <class T, class Sigma>
void choose_formula(lv_sequence_run& run, bool back) {
    if (run.spacing > 0)
        back ? perform<T, Sigma, true, true>(run) : perform<T, Sigma, true, false>(run);
    else
        back ? perform<T, Sigma, false, true>(run) : perform<T, Sigma, false, false>(run);
}

template <class T>
void choose_activation(lv_sequence_run& run, bool back) {
    run.activation == LV_RELU ? choose_formula<T, Relu>(run, back) : choose_formula<T, Tanh>(run, back);
}

}  // namespace

void sequence_run(lv_sequence_run& run, bool back) {
    run.type == LV_FLOAT64 ? choose_activation<double>(run, back) : choose_activation<float>(run, back);
}

}  // namespace LV_ISA
