// The factors of a step from adamas.scalars.StepScalars: the same for every framework.
#pragma once

#include <array>
#include <limits>

#include "adamas.hpp"

// StepScalars in its own order: first its numbers, then what is none.
constexpr size_t kNumbers = 12;
struct Scalars {
  std::array<double, kNumbers> numbers;
  bool amsgrad, moves, cautious;
  Key key;
};

// An exponential moving average of memory `keep`, to which a new value adds `weight` = 1 - keep: see adamas.hpp.
template <class T>
Mean<T> mean_of(T keep, T weight) {
  const bool pulls = keep >= T(0.5);
  return {pulls ? T(1) : keep, pulls ? T(1) : T(0), weight};
}

template <class T>
Factors<T> factors_as(const std::array<double, kNumbers>& numbers) {
  std::array<T, kNumbers> x;
  for (size_t i = 0; i < kNumbers; ++i) x[i] = static_cast<T>(numbers[i]);
  const auto [grad_factor, l2, beta1, beta1_complement, beta2, beta2_complement, step_size, eps, eps_root, decay,
              max_factor, average] = x;
  // eps > 0 keeps 0/0 away: it must not round to 0 in a narrower type.
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
  Step step{};
  step.storage = storage;
  step.key = scalars.key;
  step.f32 = factors_as<float>(scalars.numbers);
  step.f64 = factors_as<double>(scalars.numbers);
  step.decay = step.f64.l2 != 0      ? Decay::l2
               : step.f64.decay == 0 ? Decay::none
               : scalars.cautious    ? Decay::cautious
                                     : Decay::decoupled;
  step.averages = step.f64.average.weight != 0;
  step.zero_grad = zero_grad;
  step.amsgrad = scalars.amsgrad;
  step.moves = scalars.moves;
  return step;
}
