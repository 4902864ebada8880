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

/// One thread's sums of the gradients of each velocity's weights; null: not needed.
template <class T>
struct Gradients {
    T *K[2], *b[2];
};

/// The sums of all threads: the first thread uses the caller's arrays, and the other sums are added to them in order.
/// Throws std::bad_alloc where memory ends.
template <class T>
class GradientSums {
public:
    GradientSums(const lv_velocity (&v)[2], int64_t layers, int threads, int64_t taps = 1) : threads_(threads) {
        for (int k = 0; k < 2; ++k) {
            first_.K[k] = static_cast<T*>(v[k].K_gradient);
            first_.b[k] = static_cast<T*>(v[k].b_gradient);
            const bool both = k == 1 && first_.K[0] == first_.K[1];  // the pair field: one K for two velocities
            const int64_t bias = v[k].kind == LV_TRANSPOSED ? v[k].columns : v[k].rows;
            K_[k] = both ? K_[0] : place(first_.K[k], v[k].K_stride, v[k].rows * v[k].columns * taps, layers);
            b_[k] = place(first_.b[k], v[k].b_stride, bias, layers);
        }
        others_ = static_cast<T*>(std::calloc((threads - 1) * size_ + 1, sizeof(T)));
        if (!others_) throw std::bad_alloc();
    }
    ~GradientSums() { std::free(others_); }
    GradientSums(const GradientSums&) = delete;
    GradientSums& operator=(const GradientSums&) = delete;

    Gradients<T> of(int thread) const {
        if (thread == 0) return first_;
        T* base = others_ + (thread - 1) * size_;
        Gradients<T> g = {};
        for (int k = 0; k < 2; ++k) {
            g.K[k] = first_.K[k] ? base + K_[k] : nullptr;
            g.b[k] = first_.b[k] ? base + b_[k] : nullptr;
        }
        return g;
    }

    /// The part of the final sum that `thread` computes.
    void reduce(int thread) const {
        for (int n = 0; n < number_; ++n) {
            const int64_t from = piece_[n].size * thread / threads_, to = piece_[n].size * (thread + 1) / threads_;
            for (int t = 1; t < threads_; ++t) {
                const T* other = others_ + (t - 1) * size_ + piece_[n].at;
                for (int64_t i = from; i < to; ++i) piece_[n].sum[i] += other[i];
            }
        }
    }

private:
    struct Piece {
        T* sum;
        int64_t at, size;
    };
    Gradients<T> first_ = {};
    int64_t K_[2] = {}, b_[2] = {}, size_ = 0;
    Piece piece_[4];
    int number_ = 0, threads_;
    T* others_;

    /// Clears the caller's array, and assigns it a place among a thread's sums.
    int64_t place(T* sum, int64_t stride, int64_t entries, int64_t layers) {
        const int64_t at = size_;
        if (sum) {
            const int64_t size = stride ? layers * entries : entries;
            std::memset(sum, 0, size * sizeof(T));
            piece_[number_++] = {sum, at, size};
            size_ += size;
        }
        return at;
    }
};

}  // namespace LV_ISA
