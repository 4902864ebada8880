// Memory that lives as long as its thread, and the sums of gradients of each thread.
#pragma once

#include <cstdlib>
#include <new>

#include "pool.hpp"
#include "problem.h"
#include "simd.hpp"

namespace LV_ISA {

constexpr int64_t kNear = 32 << 10, kFar = 512 << 10;  // bytes of the first- and second-level cache for a block

/// As many panels as the first-level cache holds, or up to eight in the second: enough work per layer to hide its start.
inline int64_t panels_in_cache(int64_t bytes) {
    const int64_t near = kNear / bytes, far = kFar / bytes < 8 ? kFar / bytes : 8;
    const int64_t most = near > far ? near : far;
    return most > 1 ? most : 1;
}

/// The same for a block that is read sequentially, a layer at a time: it may fill the second-level cache and more.
inline int64_t panels_in_turn(int64_t bytes) {
    const int64_t most = 2 * kFar / bytes;
    return most > 8 ? 8 : most > 1 ? most : 1;
}

/// Pieces of this thread's memory, aligned for vectors and valid until this thread makes the next Workspace. It is kept
/// between runs: new pages would take longer than a short run. Throws std::bad_alloc where memory
/// ends; the thread then keeps none, and its next Workspace begins anew.
class Workspace {
public:
    explicit Workspace(int64_t bytes) {
        if (bytes > memory_.size) {
            std::free(memory_.at);
            memory_.at = nullptr, memory_.size = 0;
            const int64_t size = (bytes + 4095) / 4096 * 4096;
            memory_.at = static_cast<char*>(std::aligned_alloc(4096, size));
            if (!memory_.at) throw std::bad_alloc();
            memory_.size = size;
        }
    }

    template <class T>
    T* take(int64_t count) {
        T* piece = reinterpret_cast<T*>(memory_.at + used_);
        used_ += count * int64_t(sizeof(T));
        return piece;
    }

private:
    struct Memory {
        char* at = nullptr;
        int64_t size = 0;
        ~Memory() { std::free(at); }
    };
    static thread_local Memory memory_;
    int64_t used_ = 0;
};

inline thread_local Workspace::Memory Workspace::memory_;

/// The sums of all threads: the first thread uses the caller's arrays, and the other sums are added to them in order.
/// Throws std::bad_alloc where memory ends.
template <class T>
class ThreadSums {
public:
    ThreadSums(const ThreadSums&) = delete;
    ThreadSums& operator=(const ThreadSums&) = delete;
    ~ThreadSums() { std::free(others_); }

    /// The part of the final sums that `thread` computes.
    void reduce(int thread) const {
        for (int n = 0; n < number_; ++n) {
            const int64_t from = piece_[n].size * thread / threads_, to = piece_[n].size * (thread + 1) / threads_;
            for (int t = 1; t < threads_; ++t) {
                const T* other = others_ + (t - 1) * size_ + piece_[n].at;
                for (int64_t i = from; i < to; ++i) piece_[n].sum[i] += other[i];
            }
        }
    }

protected:
    explicit ThreadSums(int threads) : threads_(threads) {}

    /// Clears the caller's array, and assigns it a place among a thread's sums; -1: not needed.
    int place(T* sum, int64_t size) {
        if (!sum) return -1;
        std::memset(sum, 0, size * sizeof(T));
        piece_[number_] = {sum, size_, size};
        size_ += size;
        return number_++;
    }

    /// After all places.
    void allocate() {
        others_ = static_cast<T*>(std::calloc((threads_ - 1) * size_ + 1, sizeof(T)));
        if (!others_) throw std::bad_alloc();
    }

    T* at(int thread, int place) const {
        if (place < 0) return nullptr;
        return thread ? others_ + (thread - 1) * size_ + piece_[place].at : piece_[place].sum;
    }

private:
    struct Piece {
        T* sum;
        int64_t at, size;
    };
    Piece piece_[8];
    int64_t size_ = 0;
    int number_ = 0, threads_;
    T* others_ = nullptr;
};

/// One thread's sums of the gradients of each velocity's weights; null: not needed.
template <class T>
struct Gradients {
    T *K[2], *b[2];
};

template <class T>
class GradientSums : public ThreadSums<T> {
public:
    GradientSums(const lv_velocity (&v)[2], int64_t layers, int threads, int64_t taps = 1) : ThreadSums<T>(threads) {
        const auto size = [layers](int64_t stride, int64_t entries) { return stride ? layers * entries : entries; };
        for (int k = 0; k < 2; ++k) {
            const bool both = k == 1 && v[1].K_gradient == v[0].K_gradient;  // the pair field: one K for two velocities
            const int64_t bias = v[k].kind == LV_TRANSPOSED ? v[k].columns : v[k].rows;
            T *K = static_cast<T*>(v[k].K_gradient), *b = static_cast<T*>(v[k].b_gradient);
            K_[k] = both ? K_[0] : this->place(K, size(v[k].K_stride, v[k].rows * v[k].columns * taps));
            b_[k] = this->place(b, size(v[k].b_stride, bias));
        }
        this->allocate();
    }

    Gradients<T> of(int thread) const {
        Gradients<T> g;
        for (int k = 0; k < 2; ++k) g.K[k] = this->at(thread, K_[k]), g.b[k] = this->at(thread, b_[k]);
        return g;
    }

private:
    int K_[2], b_[2];
};

}  // namespace LV_ISA
