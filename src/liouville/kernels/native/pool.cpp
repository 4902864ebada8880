// The thread pool. Workers spin for a moment after a piece of work, because a training step's backward pass comes
// microseconds after its forward pass and waking a sleeping thread takes longer than many runs; then they sleep.
#include "pool.hpp"

#include <atomic>
#include <condition_variable>
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

class Pool {
public:
    void run(int number, Work work, void* data) {
        if (number < 2 || !busy_.try_lock()) return alone(number, work, data);
        while (int(threads_.size()) < number - 1) start();
        {
            std::lock_guard<std::mutex> lock(wake_);
            work_ = work, data_ = data, number_ = number;
            left_.store(int(threads_.size()), std::memory_order_relaxed);
            round_.fetch_add(1, std::memory_order_release);
        }
        if (sleeping_.load() > 0) woken_.notify_all();
        work(data, 0);
        while (left_.load(std::memory_order_acquire) > 0) pause();
        busy_.unlock();
    }

    ~Pool() {
        {
            std::lock_guard<std::mutex> lock(wake_);
            stop_ = true;
            round_.fetch_add(1, std::memory_order_release);
        }
        woken_.notify_all();
        for (std::thread& thread : threads_) thread.join();
    }

private:
    std::mutex busy_, wake_;
    std::condition_variable woken_;
    std::vector<std::thread> threads_;
    std::atomic<unsigned> round_{0};
    std::atomic<int> left_{0}, sleeping_{0};
    bool stop_ = false;
    Work work_ = nullptr;
    void* data_ = nullptr;
    int number_ = 0;

    static void alone(int number, Work work, void* data) {
        for (int index = 0; index < number; ++index) work(data, index);
    }

    void start() {
        const int index = int(threads_.size()) + 1;
        threads_.emplace_back([this, index, seen = round_.load()]() mutable {
            while (next(seen)) {
                if (index < number_) work_(data_, index);
                left_.fetch_sub(1, std::memory_order_release);
            }
        });
    }

    /// Waits for a round that this worker has not seen; false when the pool ends.
    bool next(unsigned& seen) {
        for (int spin = 0; spin < kSpins && round_.load(std::memory_order_acquire) == seen; ++spin) pause();
        if (round_.load(std::memory_order_acquire) == seen) {
            std::unique_lock<std::mutex> lock(wake_);
            sleeping_.fetch_add(1);
            woken_.wait(lock, [&] { return round_.load(std::memory_order_acquire) != seen; });
            sleeping_.fetch_sub(1);
        }
        seen = round_.load(std::memory_order_acquire);
        return !stop_;
    }
};

std::atomic<Pool*> pool{nullptr};

/// A forked child has none of its parent's threads: it gets a pool of its own, and the parent's is left where it is.
void forget() { pool.store(new Pool); }

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
    static Owner owner;  // never destroyed: a thread of another library may still compute while the process ends
    pool.load()->run(number, work, data);
}

}  // namespace lv
