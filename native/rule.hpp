// The rule of Adam and AdamW for one element, once, for every precision and instruction set.
//
// Included by each step_<isa>.cpp and compiled there for that instruction set. Everything is in an unnamed namespace
// and nothing uses the standard library's templates: the linker would merge a shared inline function across files, and
// an old processor could run the AVX-512 code of another file.
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

// The exponential moving average after `value` is added: see Mean.
template <class T>
ADAMAS_INLINE T mean(const Mean<T>& f, T old, T value) {
  return f.keep * old + f.weight * (value - f.pull * old);
}

// The weight that decay multiplies: theta, or the largest finite number for an infinite theta, which must stay infinite
// (inf - inf would be NaN). With kCautious it is 0 where m, which has the update's sign, and theta have different
// signs; their product could underflow. On integers, because GCC compiles a minimum and a maximum to three selections.
template <bool kCautious, class T>
ADAMAS_INLINE T decaying(T m, T theta) {
  using Bits = decltype(bits_of(theta));
  constexpr Bits infinity = sizeof(T) == 4 ? Bits(0x7F800000) : static_cast<Bits>(0x7FF0000000000000);
  constexpr Bits sign = Bits(1) << (8 * sizeof(T) - 1);
  const Bits bits = bits_of(theta);
  const Bits finite = bits + mask<Bits>((bits & ~sign) == infinity);  // minus 1: one pattern below infinity
  if constexpr (!kCautious) return float_of(finite);
  const Bits opposed = mask<Bits>(((bits ^ bits_of(m)) & sign) != 0) & mask<Bits>(m != 0);
  return float_of(finite & ~opposed);
}

// Returns the change of one parameter, and updates m, v and v_max; g is the incoming gradient.
//   g     = grad_factor * g (+ l2 * theta)
//   m     = beta1 * m + (1 - beta1) * g                      see Mean
//   v     = beta2 * v + (beta2_complement * g) * g           in this order g*g, which may overflow, is never formed
//   theta = theta - change, change = step_size * m / (sqrt(v + eps_root) + eps) + decay * theta
// kSimple says that f.exp_avg.keep = f.exp_avg.pull = 1 and f.eps_root = 0, as is nearly always the case: the same bits
// with three operations fewer.
template <class T, Decay kDecay, bool kAmsgrad, bool kSimple = false>
ADAMAS_INLINE T update(const Factors<T>& f, T g, T theta, T& m, T& v, T& v_max) {
  g = g * f.grad_factor;
  if constexpr (kDecay == Decay::l2) g = g + f.l2 * theta;
  m = kSimple ? m + f.exp_avg.weight * (g - m) : mean(f.exp_avg, m, g);
  v = f.beta2 * v + (f.beta2_complement * g) * g;
  T second = v;
  if constexpr (kAmsgrad) {
    const T candidate = v * f.max_factor;
    v_max = (candidate > v_max || candidate != candidate) ? candidate : v_max;  // NaN stays NaN, as in torch.maximum
    second = v_max;
  }
  if constexpr (!kSimple) second = second + f.eps_root;
  T change = f.step_size * (m / (root(second) + f.eps));
  if constexpr (kDecay == Decay::decoupled) change = change + f.decay * decaying<false>(m, theta);
  if constexpr (kDecay == Decay::cautious) change = change + f.decay * decaying<true>(m, theta);
  return change;
}

}  // namespace
