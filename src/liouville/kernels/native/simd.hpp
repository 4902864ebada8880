// Vectors of floating-point lanes: the only place that depends on the instruction set.
//
// This header is compiled once for each instruction set, inside the namespace LV_ISA, so that no inline function of one
// set can be linked into another. Arithmetic is explicit (`fma` where intended, contraction off), so that forward and
// backward passes get the same bits from the same formula.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif

/// For functions that are only fast if their arrays of vectors stay in registers.
#define LV_INLINE __attribute__((always_inline)) inline

namespace LV_ISA {

#if defined(__AVX512F__)
constexpr int kBytes = 64, kRegisters = 32;
#elif defined(__AVX2__)
constexpr int kBytes = 32, kRegisters = 16;
#else
constexpr int kBytes = 16, kRegisters = 16;
#endif

template <class T, int bytes = kBytes>
struct VectorOf {
    typedef T type __attribute__((vector_size(bytes)));
};

template <class T>
using Vec = typename VectorOf<T>::type;

template <class T>
struct IntegerOf;
template <>
struct IntegerOf<float> {
    using type = int32_t;
    using without_sign = uint32_t;
};
template <>
struct IntegerOf<double> {
    using type = int64_t;
    using without_sign = uint64_t;
};

/// The integer type of the same size, for grid states.
template <class T>
using Integer = typename IntegerOf<T>::type;

template <class T>
using IntegerVec = typename VectorOf<Integer<T>>::type;

template <class T>
using UnsignedVec = typename VectorOf<typename IntegerOf<T>::without_sign>::type;

template <class T>
constexpr int lanes = kBytes / int(sizeof(T));

template <class T>
inline Vec<T> load(const T* from) {
    return *reinterpret_cast<const Vec<T>*>(from);
}

/// From any address, not only a multiple of a vector.
template <class T>
inline Vec<T> load_anywhere(const T* from) {
    typedef T Unaligned __attribute__((vector_size(kBytes), aligned(sizeof(T))));
    return *reinterpret_cast<const Unaligned*>(from);
}

template <class T>
inline void store(T* to, Vec<T> x) {
    *reinterpret_cast<Vec<T>*>(to) = x;
}

template <class T>
inline Vec<T> broadcast(T x) {
    return x - Vec<T>{};
}

/// The bits of a floating-point vector, and back.
template <class T>
inline UnsignedVec<T> as_bits(Vec<T> x) {
    return reinterpret_cast<UnsignedVec<T>&>(x);
}
template <class T>
inline Vec<T> as_floating(UnsignedVec<T> x) {
    return reinterpret_cast<Vec<T>&>(x);
}

/// a * b + c, rounded once where the machine supports it.
template <class T>
inline Vec<T> fma(Vec<T> a, Vec<T> b, Vec<T> c) {
    return a * b + c;
}

/// x within +-end; NaN stays NaN.
template <class T>
inline Vec<T> clamped(Vec<T> x, T end) {
    x = x > broadcast(end) ? broadcast(end) : x;
    return x < broadcast(-end) ? broadcast(-end) : x;
}

/// About 1 / x: to 2^-14 (AVX-512), 2^-11 (AVX2, float), or all bits.
template <class T>
inline Vec<T> reciprocal_estimate(Vec<T> x) {
    return broadcast<T>(1) / x;
}

/// Newton steps from the estimate to twice the precision of T; the error is below a tenth of an ulp.
template <class T>
constexpr int reciprocal_steps = 0;

/// To the nearest integer, ties to even.
template <class T>
inline Vec<T> nearest(Vec<T> x) {
    for (int lane = 0; lane < lanes<T>; ++lane)
        x[lane] = sizeof(T) == 4 ? __builtin_rintf(float(x[lane])) : __builtin_rint(x[lane]);
    return x;
}

#if defined(__AVX512F__)
template <>
inline Vec<float> clamped<float>(Vec<float> x, float end) {  // min and max answer with their second operand for NaN
    const __m512 above = _mm512_min_ps(__m512(broadcast(end)), __m512(x));
    return Vec<float>(_mm512_max_ps(__m512(broadcast(-end)), above));
}
template <>
inline Vec<double> clamped<double>(Vec<double> x, double end) {  // min and max answer with their second operand for NaN
    const __m512d above = _mm512_min_pd(__m512d(broadcast(end)), __m512d(x));
    return Vec<double>(_mm512_max_pd(__m512d(broadcast(-end)), above));
}
template <>
inline Vec<float> fma<float>(Vec<float> a, Vec<float> b, Vec<float> c) {
    return Vec<float>(_mm512_fmadd_ps(__m512(a), __m512(b), __m512(c)));
}
template <>
inline Vec<double> fma<double>(Vec<double> a, Vec<double> b, Vec<double> c) {
    return Vec<double>(_mm512_fmadd_pd(__m512d(a), __m512d(b), __m512d(c)));
}
template <>
inline Vec<float> reciprocal_estimate<float>(Vec<float> x) {
    return Vec<float>(_mm512_rcp14_ps(__m512(x)));
}
template <>
inline Vec<double> reciprocal_estimate<double>(Vec<double> x) {
    return Vec<double>(_mm512_rcp14_pd(__m512d(x)));
}
template <>
constexpr int reciprocal_steps<float> = 1;
template <>
constexpr int reciprocal_steps<double> = 2;
template <>
inline Vec<float> nearest<float>(Vec<float> x) {
    return Vec<float>(_mm512_roundscale_ps(__m512(x), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
template <>
inline Vec<double> nearest<double>(Vec<double> x) {
    return Vec<double>(_mm512_roundscale_pd(__m512d(x), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
#elif defined(__AVX2__)
template <>
inline Vec<float> clamped<float>(Vec<float> x, float end) {  // min and max answer with their second operand for NaN
    const __m256 above = _mm256_min_ps(__m256(broadcast(end)), __m256(x));
    return Vec<float>(_mm256_max_ps(__m256(broadcast(-end)), above));
}
template <>
inline Vec<double> clamped<double>(Vec<double> x, double end) {  // min and max answer with their second operand for NaN
    const __m256d above = _mm256_min_pd(__m256d(broadcast(end)), __m256d(x));
    return Vec<double>(_mm256_max_pd(__m256d(broadcast(-end)), above));
}
template <>
inline Vec<float> fma<float>(Vec<float> a, Vec<float> b, Vec<float> c) {
    return Vec<float>(_mm256_fmadd_ps(__m256(a), __m256(b), __m256(c)));
}
template <>
inline Vec<double> fma<double>(Vec<double> a, Vec<double> b, Vec<double> c) {
    return Vec<double>(_mm256_fmadd_pd(__m256d(a), __m256d(b), __m256d(c)));
}
template <>
inline Vec<float> nearest<float>(Vec<float> x) {
    return Vec<float>(_mm256_round_ps(__m256(x), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
template <>
inline Vec<double> nearest<double>(Vec<double> x) {
    return Vec<double>(_mm256_round_pd(__m256d(x), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
#endif

/// numerator / denominator, for a denominator >= 1 far from overflow: Newton's steps are folded into the quotient.
template <class T>
inline Vec<T> quotient(Vec<T> numerator, Vec<T> denominator) {
    if constexpr (reciprocal_steps<T> == 0) {
        return numerator / denominator;
    } else {
        const Vec<T> one = broadcast<T>(1);
        Vec<T> r = reciprocal_estimate<T>(denominator);
        for (int step = 1; step < reciprocal_steps<T>; ++step) r = fma<T>(r, fma<T>(-denominator, r, one), r);
        const Vec<T> q = numerator * r;  // and one step of the quotient itself: its residual, times 1 / denominator
        return fma<T>(fma<T>(-denominator, q, numerator), r, q);
    }
}

/// Lanes of a where bit d of their number is 0, and of b where it is 1; `swapped`: each from the lane across bit d.
template <class T, int d, bool swapped>
inline Vec<T> merged(Vec<T> a, Vec<T> b) {
    IntegerVec<T> index;
    for (int i = 0; i < lanes<T>; ++i) index[i] = (i & d ? lanes<T> : 0) + (swapped ? i ^ d : i);
    return __builtin_shuffle(a, b, index);
}

/// One level of `sums`: of `count` vectors, v and v + d become one, their lanes added across bit d.
template <class T, int d, int count>
LV_INLINE void fold(Vec<T>* v) {
#pragma GCC unroll 16
    for (int k = 0; k < d && k < count; ++k) {
        const Vec<T> other = k + d < count ? v[k + d] : v[k];
        v[k] = merged<T, d, false>(v[k], other) + merged<T, d, true>(v[k], other);
    }
}

/// Lane i < count of the result is the sum over the lanes of v[i]: a transposition that adds. `v` is overwritten.
template <class T, int count = lanes<T>>
LV_INLINE Vec<T> sums(Vec<T>* v) {
    if constexpr (lanes<T> >= 16) fold<T, 8, count>(v);
    if constexpr (lanes<T> >= 8) fold<T, 4, (count < 8 ? count : 8)>(v);
    if constexpr (lanes<T> >= 4) fold<T, 2, (count < 4 ? count : 4)>(v);
    fold<T, 1, (count < 2 ? count : 2)>(v);
    return v[0];
}

}  // namespace LV_ISA
