// Parameters and gradients in memory <-> the type in which the rule is computed.
// float and double are not converted; bfloat16 and float16 are widened exactly, and rounded to nearest, ties to even.
// These are integer and float operations only: every compiler can vectorise them, and all instruction sets agree.
#pragma once

#include <stdint.h>

#include "bits.hpp"

namespace {

template <class T>
struct Plain {
  using Stored = T;
  using Compute = T;
  static inline T load(T x) { return x; }
  static inline T store(T x) { return x; }
};

struct BFloat16 {
  using Stored = uint16_t;
  using Compute = float;
  static inline float load(uint16_t h) { return float_of(static_cast<uint32_t>(h) << 16); }
  static inline uint16_t store(float x) {
    const uint32_t u = bits_of(x);
    const uint32_t rounded = (u + 0x7FFFu + ((u >> 16) & 1u)) >> 16;  // halves to even; a carry may give infinity
    const uint32_t quiet = (u >> 16) | 0x40u;
    return static_cast<uint16_t>((u & 0x7FFFFFFFu) > 0x7F800000u ? quiet : rounded);
  }
};

struct Float16 {
  using Stored = uint16_t;
  using Compute = float;
  static inline float load(uint16_t h) {
    // Shift the 15 magnitude bits to their place in a float. The exponent is then too small by 127 - 15; one exact
    // multiplication corrects this, and also normalises float16's subnormals.
    const uint32_t u = h;
    const uint32_t magnitude = (u & 0x7FFFu) << 13;
    const uint32_t finite = bits_of(float_of(magnitude) * 0x1p112f);
    const uint32_t inf_or_nan = mask(magnitude >= (0x7C00u << 13)) & 0x7F800000u;
    return float_of(finite | inf_or_nan | ((u & 0x8000u) << 16));
  }
  static inline uint16_t store(float x) {
    const uint32_t u = bits_of(x);
    const uint32_t magnitude = u & 0x7FFFFFFFu;
    const uint32_t rounded = (magnitude - (112u << 23) + 0xFFFu + ((magnitude >> 13) & 1u)) >> 13;
    const uint32_t normal = rounded < 0x7C00u ? rounded : 0x7C00u;
    // Below 2^-14, adding 0.5 leaves float16's subnormal, correctly rounded, in the low bits of the sum.
    const uint32_t subnormal = bits_of(float_of(magnitude) + 0.5f) - bits_of(0.5f);
    const uint32_t small = mask(magnitude < (113u << 23));
    const uint32_t quiet = mask(magnitude > 0x7F800000u) & 0x0200u;
    return static_cast<uint16_t>((subnormal & small) | (normal & ~small) | quiet | ((u >> 16) & 0x8000u));
  }
};

}  // namespace
