// Reads the scalars of a step from Python. Needs the GIL.
#pragma once

#include <nanobind/nanobind.h>

#include "scalars.hpp"
#include "states.hpp"

namespace nb = nanobind;

// Reads adamas.scalars.StepScalars by position; `random` tells whether the storage draws random bits.
inline Scalars read_scalars(const nb::tuple& from, bool random) {
  constexpr size_t kRandom = kNumbers + 2, kCautious = kNumbers + 4;
  Scalars scalars{};
  for (size_t i = 0; i < kNumbers; ++i) scalars.numbers[i] = nb::cast<double>(from[i]);
  scalars.amsgrad = nb::cast<bool>(from[kNumbers]);
  scalars.moves = nb::cast<bool>(from[kNumbers + 1]);
  scalars.cautious = nb::len(from) > kCautious && nb::cast<bool>(from[kCautious]);
  const nb::handle key = from[kRandom];
  if (!key.is_none()) {
    scalars.key = {nb::cast<uint32_t>(key[0]), nb::cast<uint32_t>(key[1])};
  } else if (random) {
    throw Mismatch("random=None: stochastic rounding needs the key of a seed");
  }
  return scalars;
}
