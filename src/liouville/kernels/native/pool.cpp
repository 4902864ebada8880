// Threads of torch's OpenMP runtime if it was given, else of a pool.
//
// Torch's threads spin for milliseconds after their work; a second set of threads would then share its cores with them,
// at half the speed. The pool is used without such a runtime, and in a forked child, which has none of its parent's
// threads. Its workers spin for a moment, because a training step's backward pass comes microseconds after its forward
// pass and waking a sleeping thread takes longer than many runs; then they sleep.
#include "pool.hpp"

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#endif

namespace lv {
namespace {

constexpr int kSpins = 2000;

inline void pause() {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#endif
}

/// The pieces of a round that are not taken yet, in one word that is changed by compare-and-swap: so a late worker
/// cannot take a piece of another round, and the caller takes the pieces that no worker has begun.
struct Ticket {
    uint32_t round;
    uint16_t number, next;
};

class Pool {
public:
    void run(int number, Work work, void* data) {
        if (number < 2 || number > kMost || !busy_.try_lock()) return alone(number, work, data);
        try {
            while (int(threads_.size()) < number - 1) start();
        } catch (const std::exception&) {  // no memory for another thread: those that there are do all pieces
        }
        work_.store(work, std::memory_order_relaxed);
        data_.store(data, std::memory_order_relaxed);
        done_.store(0, std::memory_order_relaxed);
        {
            std::lock_guard<std::mutex> lock(wake_);  // a worker is either asleep, or sees the new round
            ticket_.store({ticket_.load().round + 1, uint16_t(number), 0});
        }
        if (sleeping_.load() > 0) woken_.notify_all();
        take();
        while (done_.load(std::memory_order_acquire) < number) pause();
        busy_.unlock();
    }

private:
    static constexpr int kMost = 60000;
    std::mutex busy_, wake_;
    std::condition_variable woken_;
    std::vector<std::thread> threads_;
    std::atomic<Ticket> ticket_{Ticket{0, 0, 0}};
    std::atomic<int> done_{0}, sleeping_{0};
    std::atomic<Work> work_{nullptr};
    std::atomic<void*> data_{nullptr};

    static void alone(int number, Work work, void* data) {
        for (int index = 0; index < number; ++index) work(data, index);
    }

    /// Runs pieces of the present round until none is left. While one is left, no thread can begin the next round: so
    /// values read before the swap belong to the piece that the swap took.
    void take() {
        Ticket ticket = ticket_.load(std::memory_order_acquire);
        while (ticket.next < ticket.number) {
            const Work work = work_.load(std::memory_order_relaxed);
            void* data = data_.load(std::memory_order_relaxed);
            const Ticket taken = {ticket.round, ticket.number, uint16_t(ticket.next + 1)};
            if (ticket_.compare_exchange_weak(ticket, taken, std::memory_order_acq_rel)) {
                work(data, ticket.next);
                done_.fetch_add(1, std::memory_order_release);
                ticket = ticket_.load(std::memory_order_acquire);
            }
        }
    }

    void start() {
        threads_.emplace_back([this, seen = ticket_.load().round]() mutable {
            for (;;) {
                wait(seen);
                take();
            }
        });
        threads_.back().detach();
    }

    /// Waits until a round begins that this worker has not seen.
    void wait(uint32_t& seen) {
        const auto begun = [&] { return ticket_.load(std::memory_order_acquire).round != seen; };
        for (int spin = 0; spin < kSpins && !begun(); ++spin) pause();
        if (!begun()) {
            std::unique_lock<std::mutex> lock(wake_);
            sleeping_.fetch_add(1);
            woken_.wait(lock, begun);
            sleeping_.fetch_sub(1);
        }
        seen = ticket_.load(std::memory_order_acquire).round;
    }
};

/// GOMP_parallel(work, data, threads, flags): work(data) on every thread of a team, which may be smaller.
using Team = void (*)(void (*)(void*), void*, unsigned, unsigned);

std::atomic<Team> team{nullptr};
std::atomic<Pool*> pool{nullptr};

struct Shared {
    Work work;
    void* data;
    int number;
    std::atomic<int> next{0};

    static void take(void* shared) {
        auto& self = *static_cast<Shared*>(shared);
        for (int index; (index = self.next.fetch_add(1, std::memory_order_relaxed)) < self.number;)
            self.work(self.data, index);
    }
};

/// A forked child gets its own pool, and the parent's is left untouched.
void forget() {
    team.store(nullptr);
    pool.store(new Pool);
}

struct Owner {
    Owner() {
        pool.store(new Pool);
#if defined(__unix__) || defined(__APPLE__)
        pthread_atfork(nullptr, nullptr, forget);
#endif
    }
};

}  // namespace

void parallel(int number, Work work, void* data) {
    static Owner owner;  // its pool is never destroyed: a thread may still compute while the process ends
    const Team openmp = number > 1 ? team.load() : nullptr;
    if (!openmp) return pool.load()->run(number, work, data);
    Shared shared{work, data, number};
    openmp(Shared::take, &shared, unsigned(number), 0);
}

void use_team(void* openmp) { team.store(reinterpret_cast<Team>(openmp)); }

}  // namespace lv
