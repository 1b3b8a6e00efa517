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

namespace {

inline float root(float x) { return sqrtf(x); }
inline double root(double x) { return sqrt(x); }

// The exponential moving average that `f` describes, after `value` has come in.
template <class T>
inline T mean(const Mean<T>& f, T old, T value) {
  return f.keep * old + f.weight * (value - f.pull * old);
}

// The change of one parameter. m, v, v_max are read and written; g is the incoming gradient.
//   g     = grad_factor * g (+ l2 * theta)
//   m     = beta1 * m + (1 - beta1) * g                      see Mean
//   v     = beta2 * v + (beta2_complement * g) * g           in this order g*g, which may overflow, is never formed
//   theta = theta - change, change = step_size * m / (sqrt(v + eps_root) + eps) + decay * theta
// kUsual says that f.exp_avg.keep = pull = 1 and eps_root = 0, as nearly always: the same bits without three
// operations.
template <class T, bool kL2, bool kDecoupled, bool kAmsgrad, bool kUsual = false>
inline T update(const Factors<T>& f, T g, T theta, T& m, T& v, T& v_max) {
  g = g * f.grad_factor;
  if constexpr (kL2) g = g + f.l2 * theta;
  m = kUsual ? m + f.exp_avg.weight * (g - m) : mean(f.exp_avg, m, g);
  v = f.beta2 * v + (f.beta2_complement * g) * g;
  T second = v;
  if constexpr (kAmsgrad) {
    const T candidate = v * f.max_factor;
    v_max = (candidate > v_max || candidate != candidate) ? candidate : v_max;  // NaN stays, as in torch.maximum
    second = v_max;
  }
  if constexpr (!kUsual) second = second + f.eps_root;
  T change = f.step_size * (m / (root(second) + f.eps));
  if constexpr (kDecoupled) change = change + f.decay * theta;
  return change;
}

}  // namespace
