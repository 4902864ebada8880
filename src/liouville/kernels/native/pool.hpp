// A few threads that wait for work: torch's, or a pool; never a second OpenMP runtime, which would compete with torch's.
#pragma once

namespace lv {

using Work = void (*)(void* data, int index);

/// work(data, 0) ... work(data, number - 1), at most one per thread; returns when all are done. The result of an index
/// does not depend on the thread: if the pool is busy with another caller, this thread runs them all.
void parallel(int number, Work work, void* data);

/// Use the threads of the OpenMP runtime of this GOMP_parallel from now on; null: use a pool.
void use_team(void* openmp);

}  // namespace lv
