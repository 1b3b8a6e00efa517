// The factors of a step from adamas.scalars.StepScalars, the same for every framework.
#pragma once

#include <array>
#include <limits>

#include "adamas.hpp"

// The fields of StepScalars in their order: first the numbers, then the other fields.
constexpr size_t kNumbers = 12;
struct Scalars {
  std::array<double, kNumbers> numbers;
  bool amsgrad, moves, cautious;
  Key key;
};

// An exponential moving average with this memory, and weight = 1 - memory for a new value: see adamas.hpp.
template <class T>
Mean<T> mean_of(T memory, T weight) {
  const bool pulls = memory >= T(0.5);
  return {pulls ? T(1) : memory, pulls ? T(1) : T(0), weight};
}

template <class T>
Factors<T> factors_as(const std::array<double, kNumbers>& numbers) {
  std::array<T, kNumbers> x;
  for (size_t i = 0; i < kNumbers; ++i) x[i] = static_cast<T>(numbers[i]);
  const auto [grad_factor, l2, beta1, beta1_complement, beta2, beta2_complement, step_size, eps, eps_root, decay,
              max_factor, average] = x;
  // A positive eps prevents 0/0: it must not round to 0 in a narrower type.
  constexpr T smallest = std::numeric_limits<T>::min();
  return {grad_factor,
          l2,
          beta2,
          beta2_complement,
          step_size,
          numbers[7] > 0 && eps < smallest ? smallest : eps,
          eps_root,
          decay,
          max_factor,
          mean_of(beta1, beta1_complement),
          mean_of(static_cast<T>(1 - numbers[11]), average)};
}

inline Step step_of(const Scalars& scalars, const Storage& storage, bool zero_grad) {
  const Factors<double> f64 = factors_as<double>(scalars.numbers);
  const Decay decay = f64.l2 != 0        ? Decay::l2
                      : f64.decay == 0   ? Decay::none
                      : scalars.cautious ? Decay::cautious
                                         : Decay::decoupled;
  const bool averages = f64.average.weight != 0;
  return {factors_as<float>(scalars.numbers),
          f64,
          storage,
          scalars.key,
          decay,
          scalars.amsgrad,
          scalars.moves,
          averages,
          zero_grad};
}
