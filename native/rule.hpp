// The rule of Adam and AdamW for one element, once, for every precision and instruction set.
//
// Included by each step_<isa>.cpp and compiled there for that instruction set. Everything is in an unnamed namespace
// and nothing comes from the standard library's templates: a shared inline function would be merged by the linker
// across files, and an old processor could end up running another file's AVX-512.
//
// The same bits everywhere: one order of evaluation, IEEE square root and division, no contraction to fused
// multiply-add (-ffp-contract=off), no fast-math. Rounding happens in T after each operation and nowhere else.
#pragma once

#include <math.h>

#include "adamas.hpp"
#include "bits.hpp"

namespace {

ADAMAS_INLINE float root(float x) { return sqrtf(x); }
ADAMAS_INLINE double root(double x) { return sqrt(x); }

// The exponential moving average that `f` describes, after `value` has come in.
template <class T>
ADAMAS_INLINE T mean(const Mean<T>& f, T old, T value) {
  return f.keep * old + f.weight * (value - f.pull * old);
}

// The weight that decay acts on: theta, or the largest number for an infinite one, which decay must leave infinite
// (inf - inf would be NaN). With kCautious it is 0 where m, which has the update's sign, and theta have different
// signs; their product could underflow. As integers, since GCC makes three selections of a minimum and a maximum.
template <bool kCautious, class T>
ADAMAS_INLINE T decaying(T m, T theta) {
  using Bits = decltype(bits_of(theta));
  constexpr Bits infinity = sizeof(T) == 4 ? Bits(0x7F800000) : static_cast<Bits>(0x7FF0000000000000);
  constexpr Bits sign = Bits(1) << (8 * sizeof(T) - 1);
  const Bits bits = bits_of(theta);
  const Bits finite = bits + mask<Bits>((bits & ~sign) == infinity);  // one below infinity
  if constexpr (!kCautious) return float_of(finite);
  const Bits opposed = mask<Bits>(((bits ^ bits_of(m)) & sign) != 0) & mask<Bits>(m != 0);
  return float_of(finite & ~opposed);
}

// The change of one parameter. m, v, v_max are read and written; g is the incoming gradient.
//   g     = grad_factor * g (+ l2 * theta)
//   m     = beta1 * m + (1 - beta1) * g                      see Mean
//   v     = beta2 * v + (beta2_complement * g) * g           in this order g*g, which may overflow, is never formed
//   theta = theta - change, change = step_size * m / (sqrt(v + eps_root) + eps) + decay * theta
// kSimpleMeans says that f.exp_avg.keep = pull = 1 and eps_root = 0, as nearly always: the same bits without three
// operations.
template <class T, Decay kDecay, bool kAmsgrad, bool kSimpleMeans = false>
ADAMAS_INLINE T update(const Factors<T>& f, T g, T theta, T& m, T& v, T& v_max) {
  g = g * f.grad_factor;
  if constexpr (kDecay == Decay::l2) g = g + f.l2 * theta;
  m = kSimpleMeans ? m + f.exp_avg.weight * (g - m) : mean(f.exp_avg, m, g);
  v = f.beta2 * v + (f.beta2_complement * g) * g;
  T second = v;
  if constexpr (kAmsgrad) {
    const T candidate = v * f.max_factor;
    v_max = (candidate > v_max || candidate != candidate) ? candidate : v_max;  // NaN stays, as in torch.maximum
    second = v_max;
  }
  if constexpr (!kSimpleMeans) second = second + f.eps_root;
  T change = f.step_size * (m / (root(second) + f.eps));
  if constexpr (kDecay == Decay::decoupled) change = change + f.decay * decaying<false>(m, theta);
  if constexpr (kDecay == Decay::cautious) change = change + f.decay * decaying<true>(m, theta);
  return change;
}

}  // namespace
