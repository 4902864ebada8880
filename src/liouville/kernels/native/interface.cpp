// The C interface, and the choice of the instruction set: once, when the library is loaded.
#include <cstdlib>
#include <cstring>
#include <new>

#include "pool.hpp"
#include "problem.h"

#define LV_DECLARE(isa)                                                                       \
    namespace isa {                                                                           \
    void shear_run(lv_shear_run& run, bool back);                                             \
    void euler_run(lv_euler_run& run, bool back);                                             \
    void sequence_run(lv_sequence_run& run, bool back);                                       \
    void activation(int64_t type, int64_t kind, int64_t count, const void* in, void* out);    \
    }

LV_DECLARE(portable)
#if defined(LV_X86)
LV_DECLARE(avx2)
LV_DECLARE(avx512)
#endif

namespace {

struct Isa {
    const char* name;
    void (*shear_run)(lv_shear_run&, bool);
    void (*euler_run)(lv_euler_run&, bool);
    void (*sequence_run)(lv_sequence_run&, bool);
    void (*activation)(int64_t, int64_t, int64_t, const void*, void*);
};

#define LV_TABLE(isa) \
    Isa { #isa, isa::shear_run, isa::euler_run, isa::sequence_run, isa::activation }

/// The best instruction set of this machine; LIOUVILLE_ISA=portable or avx2 selects a lower one, for tests.
Isa choose() {
#if defined(LV_X86)
    const char* asked = std::getenv("LIOUVILLE_ISA");
    const auto wanted = [asked](const char* name) { return !asked || !std::strcmp(asked, name); };
    __builtin_cpu_init();
    const bool fma = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    const bool wide = fma && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
    if (wide && wanted("avx512")) return LV_TABLE(avx512);
    if (fma && (wanted("avx2") || (asked && !std::strcmp(asked, "avx512")))) return LV_TABLE(avx2);
#endif
    return LV_TABLE(portable);
}

const Isa& isa() {
    static const Isa chosen = choose();
    return chosen;
}

template <class Run>
int64_t attempt(void (*run)(Run&, bool), Run& of, bool back) {
    try {
        run(of, back);
        return LV_DONE;
    } catch (const std::bad_alloc&) {
        return LV_OUT_OF_MEMORY;
    }
}

}  // namespace

extern "C" {

#define LV_EXPORT __attribute__((visibility("default")))

/// The layout of problem.h; the Python side refuses a library that was built from another one.
LV_EXPORT int64_t lv_version(void) { return 6; }
LV_EXPORT int64_t lv_shear_run_size(void) { return sizeof(lv_shear_run); }
LV_EXPORT int64_t lv_euler_run_size(void) { return sizeof(lv_euler_run); }
LV_EXPORT int64_t lv_sequence_run_size(void) { return sizeof(lv_sequence_run); }
LV_EXPORT const char* lv_isa(void) { return isa().name; }

/// GOMP_parallel of the OpenMP runtime whose threads to use; null: threads of this library.
LV_EXPORT void lv_use_openmp(void* parallel) { lv::use_team(parallel); }

/// 0, or LV_OUT_OF_MEMORY: then nothing of what the run was to write may be read, and another run may be tried.
LV_EXPORT int64_t lv_shear_forward(lv_shear_run* run) { return attempt(isa().shear_run, *run, false); }
LV_EXPORT int64_t lv_shear_backward(lv_shear_run* run) { return attempt(isa().shear_run, *run, true); }
LV_EXPORT int64_t lv_euler_forward(lv_euler_run* run) { return attempt(isa().euler_run, *run, false); }
LV_EXPORT int64_t lv_euler_backward(lv_euler_run* run) { return attempt(isa().euler_run, *run, true); }
LV_EXPORT int64_t lv_sequence_forward(lv_sequence_run* run) { return attempt(isa().sequence_run, *run, false); }
LV_EXPORT int64_t lv_sequence_backward(lv_sequence_run* run) { return attempt(isa().sequence_run, *run, true); }

/// sigma of `count` numbers, for tests.
LV_EXPORT void lv_activation(int64_t type, int64_t kind, int64_t count, const void* in, void* out) {
    isa().activation(type, kind, count, in, out);
}
}
