// A run on several threads, and how many.
#pragma once

#include <atomic>
#include <new>
#include <vector>

#include "block.hpp"
#include "pool.hpp"
#include "workspace.hpp"

namespace LV_ISA {
namespace {

/// Fewer threads where a run is too short to be worth waking them: a function of the sizes only. Threads can share
/// `pieces` of some vectors each.
int useful_threads(int64_t pieces, int64_t vectors, int64_t threads, int64_t work_per_vector) {
    const int64_t most = 1 + pieces * vectors * work_per_vector / 20000;
    threads = threads < most ? threads : most;
    threads = threads < pieces ? threads : pieces;
    return int(threads > 1 ? threads : 1);
}

/// One run on several threads, each a `Part` of it.
template <class T, class Part, class Run, bool back>
struct Call {
    Run& run;
    int threads;
    typename Part::Sums sums;
    std::vector<typename Part::Result> results;
    std::atomic<bool> out_of_memory{false};

    template <class... Sums>
    Call(Run& run, int threads, const Sums&... of) : run(run), threads(threads), sums(of...), results(threads) {}

    static void part(void* data, int index) {
        Call& call = *static_cast<Call*>(data);
        try {
            Part part(call.run, call.sums.of(index));
            const Range range = Part::part(call.run, index, call.threads);
            if (back)
                part.backward(range);
            else
                part.forward(range);
            call.results[index] = part.result();
        } catch (const std::bad_alloc&) {  // no exception may leave a thread that belongs to somebody else
            call.out_of_memory = true;
        }
    }

    static void reduce(void* data, int index) { static_cast<Call*>(data)->sums.reduce(index); }

    void perform() {
        lv::parallel(threads, part, this);
        if (out_of_memory) throw std::bad_alloc();
        if (back && threads > 1) lv::parallel(threads, reduce, this);
    }
};

}  // namespace
}  // namespace LV_ISA
