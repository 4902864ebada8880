// A few threads that wait for work: torch's, or a pool; never a second OpenMP runtime, which would fight with torch's.
#pragma once

namespace lv {

using Work = void (*)(void* data, int index);

/// work(data, 0) ... work(data, number - 1), at most one per thread; returns when all are done. What an index computes
/// does not depend on who runs it: where the pool is busy with another caller, this thread runs them all.
void parallel(int number, Work work, void* data);

/// From now on on the threads of the OpenMP runtime whose GOMP_parallel this is; null: on a pool.
void use_team(void* openmp);

}  // namespace lv
