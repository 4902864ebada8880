// sigma and sigma' on vectors: tanh (own, at most 4 ulp; 3.5 measured) and ReLU.
//
//   tanh x = A / (A + 2),   A = e^{2x} - 1 = 2^n (e^{2r} - 1) + (2^n - 1),   x = n ln2/2 + r,   |r| <= ln2/4
//
// with a polynomial for (e^{2r} - 1) / r of least relative error (fitted in 40 digits). Near 0, n = 0 and A keeps its
// relative precision, so no second formula and no branch is needed; far from 0 errors of A hardly change the quotient.
// Beyond +-end the correctly rounded value is +-1. NaN passes through. -0 gives 0.
#pragma once

#include "simd.hpp"

namespace LV_ISA {

template <class T>
struct Exponential;

/// 1.1e-8 relative, a sixth of an ulp. `shift` is 1.5 * 2^23 plus the exponent's bias.
template <>
struct Exponential<float> {
    static constexpr float end = 9.1f, shift = 12582912.0f + 127.0f;
    static constexpr int mantissa = 23;
    static constexpr float coefficients[] = {2.0000000212813315956f,  1.9999999248947380622f,  1.3333204873198305856f,
                                             0.66667418629649930205f, 0.26781065097439056589f, 0.088888760616580330759f};
};

/// 1.8e-17 relative, a sixth of an ulp. `shift` is 1.5 * 2^52 plus the exponent's bias.
template <>
struct Exponential<double> {
    static constexpr double end = 19.1, shift = 6755399441055744.0 + 1023.0;
    static constexpr int mantissa = 52;
    static constexpr double coefficients[] = {
        2.0000000000000000052,   2.0000000000000022264,    1.3333333333333249769,    0.66666666666517922515,
        0.26666666666875771782,  0.088888889166876588468,  0.025396825223224492033,  0.0063491851582441092509,
        0.0014109397179468197943, 0.00028289324702600032276, 0.000051305727237573023198};
};

/// c_0 + c_1 z + ... by Horner's rule.
template <class T, int n>
inline Vec<T> polynomial(const T (&c)[n], Vec<T> z) {
    Vec<T> sum = broadcast(c[n - 1]);
#pragma GCC unroll 16
    for (int k = n - 2; k >= 0; --k) sum = fma<T>(sum, z, broadcast(c[k]));
    return sum;
}

struct Tanh {
    template <class T>
    static inline Vec<T> value(Vec<T> x) {
        using E = Exponential<T>;
        const Vec<T> shift = broadcast(E::shift);
        x = clamped<T>(x, E::end);
        // adding the shift rounds to an integer n, and leaves n + bias in the low bits: shifted up, they are 2^n
        const Vec<T> shifted = fma<T>(x, broadcast(T(2.885390081777926814719849)), shift);
        const Vec<T> power = as_floating<T>(as_bits<T>(shifted) << E::mantissa);
        const Vec<T> r = fma<T>(shifted - shift, broadcast(T(-0.3465735902799726547086161)), x);
        const Vec<T> A = fma<T>(power, r * polynomial<T>(E::coefficients, r), power - broadcast<T>(1));
        return quotient<T>(A, A + broadcast<T>(2));
    }
    /// sigma' from sigma: 1 - tanh^2.
    template <class T>
    static inline Vec<T> derivative(Vec<T> s) {
        return fma<T>(-s, s, broadcast<T>(1));
    }
};

struct Relu {
    template <class T>
    static inline Vec<T> value(Vec<T> x) {
        return x < Vec<T>{} ? Vec<T>{} : x;  // this way round, NaN passes
    }
    /// 1 where sigma > 0, also for NaN: as in torch, where the gradient is masked by sigma <= 0.
    template <class T>
    static inline Vec<T> derivative(Vec<T> s) {
        return s <= Vec<T>{} ? Vec<T>{} : broadcast<T>(1);
    }
};

}  // namespace LV_ISA
