// Moments and master weights in fewer bits: src/adamas/formats says what these functions do and why, bit for bit.
//
// Each works on a block of at most kBlockSize elements in the first cache, one simple loop after the other, which
// compilers vectorise. Integer and float operations only, in the order of the specification.
#pragma once

#include <stdint.h>

#include "adamas.hpp"
#include "storage.hpp"

namespace {

constexpr int kBlockSize = 256;
constexpr uint32_t kInfinity = 0x7F800000u;

inline uint32_t magnitude(uint32_t bits) { return bits & 0x7FFFFFFFu; }

// 16 of the random bits as a number in (0, 1).
inline float uniform(uint32_t bits16) { return (static_cast<float>(static_cast<int32_t>(bits16)) + 0.5f) * 0x1p-16f; }

// formats/random_bits.py: the random bits of the elements from `first` on, counted through the parameter.
inline void draw(Key key, int64_t first, int n, uint32_t* __restrict out) {
  const uint32_t low = static_cast<uint32_t>(first), high = static_cast<uint32_t>(first >> 32);
  const int before_wrap = low > UINT32_MAX - static_cast<uint32_t>(n) ? static_cast<int>(UINT32_MAX - low) + 1 : n;
  const auto span = [&](int from, int to, uint32_t second) {
    for (int i = from; i < to; ++i) {
      uint32_t x = (low + static_cast<uint32_t>(i)) ^ key.first;
      x ^= x >> 16;
      x *= 0x7FEB352Du;
      x ^= x >> 15;
      x = (x + second) * 0x846CA68Bu;
      out[i] = x ^ (x >> 16);
    }
  };
  span(0, before_wrap < n ? before_wrap : n, key.second + high * 0x9E3779B9u);
  if (before_wrap < n) span(before_wrap, n, key.second + (high + 1) * 0x9E3779B9u);
}

// formats/rounding.py: the pattern of x + rest with its lowest kCut bits rounded away without bias.
template <int kCut>
inline uint32_t rounded_bits(float x, float rest, uint32_t random) {
  constexpr uint32_t low = (1u << kCut) - 1;
  const uint32_t bits = bits_of(x), size = magnitude(bits);
  const uint32_t field = bits & kInfinity, floor = 23u << 23;
  const float per_unit = float_of((277u << 23) - (field > floor ? field : floor));
  const int32_t units = static_cast<int32_t>(rest * per_unit * 256.0f);
  const int32_t sign = static_cast<int32_t>(bits) >> 31;
  const int32_t total = static_cast<int32_t>(((bits & low) << 8) + (random & ((1u << (kCut + 8)) - 1))) +
                        ((units ^ sign) - sign);
  const uint32_t up = (bits & ~low) + (static_cast<uint32_t>(total >> (kCut + 8)) << kCut);
  const uint32_t endless = (bits & ~low) | (mask(size > kInfinity) & 0x400000u);
  const uint32_t is_endless = mask(size >= kInfinity);
  return (up & ~is_endless) | (endless & is_endless);
}

// Below 2^-14 float16's spacing is 2^-24.
inline uint16_t stochastic_float16(float x, float rest, uint32_t random) {
  const float size = float_of(magnitude(bits_of(x)));
  const float r = (static_cast<float>(static_cast<int32_t>(random & 0x1FFFu)) + 0.5f) * 0x1p-13f;
  const uint32_t is_small = mask(size < 0x1p-14f);
  const int32_t whole = static_cast<int32_t>(float_of(bits_of(size * 0x1p24f) & is_small) + r);
  const uint32_t small = bits_of(static_cast<float>(whole) * 0x1p-24f) | (bits_of(x) & 0x80000000u);
  return Float16::store(float_of((small & is_small) | (rounded_bits<13>(x, rest, random) & ~is_small)));
}

// formats/packed.py: both moments of a block in words of kV + kM bits.
template <int kV, int kM>
struct PackedBlock {
  static constexpr uint32_t intervals = (1u << kV) - 2;
  static constexpr int32_t middle = 1 << (kM - 1), most = middle - 1;

  static inline uint32_t spacing(uint32_t low, uint32_t high) {
    const uint32_t s = (high - low + (intervals - 1)) / intervals;
    return s > 1 ? s : 1;
  }

  static inline float root(uint32_t bits) { return float_of((bits >> 1) + 0x1FC00000u); }

  static void decode(const uint16_t* __restrict words, int n, float scale, float v_low, float v_high,
                     float* __restrict m, float* __restrict v) {
    const uint32_t low = bits_of(v_low), high = bits_of(v_high), step = spacing(low, high), before = low - step;
    for (int i = 0; i < n; ++i) {
      const uint32_t code = static_cast<uint32_t>(words[i]) >> kM;
      const uint32_t point = before + code * step, bits = (point < high ? point : high) & mask(code != 0);
      const int32_t steps = static_cast<int32_t>(words[i] & ((1u << kM) - 1)) - middle;
      v[i] = float_of(bits);
      m[i] = (static_cast<float>(steps) * scale) * root(bits);
    }
  }

  // `m` is overwritten.
  static void encode(float* __restrict m, const float* __restrict v, const uint32_t* __restrict random, int n,
                     uint16_t* __restrict words, float& scale, float& v_low, float& v_high) {
    uint32_t low = UINT32_MAX, high = 0;
    for (int i = 0; i < n; ++i) {
      const uint32_t bits = magnitude(bits_of(v[i])), place = bits - 1;  // zero comes last
      low = place < low ? place : low;
      high = bits > high ? bits : high;
    }
    low = high ? low + 1 : 0;
    const uint32_t step = spacing(low, high);
    const float inverse_step = 1.0f / static_cast<float>(static_cast<int32_t>(step));
    uint32_t top = 0;
    for (int i = 0; i < n; ++i) {
      const uint32_t bits = magnitude(bits_of(v[i]));
      int32_t place = static_cast<int32_t>(static_cast<float>(static_cast<int32_t>(bits - low)) * inverse_step);
      place = place > 0 ? place : 0;
      const uint32_t under = low + static_cast<uint32_t>(place) * step, over = under + step;
      const uint32_t below = under < high ? under : high, above = over < high ? over : high;
      const float gap = float_of(above) - float_of(below), part = float_of(bits) - float_of(below);
      const uint32_t up = mask(uniform(random[i] >> 16) * gap < part), positive = mask(bits != 0);
      const uint32_t point = ((above & up) | (below & ~up)) & positive;
      words[i] = static_cast<uint16_t>((static_cast<uint32_t>(place) + 1 - up) & positive);
      m[i] = m[i] / root(point);
      const uint32_t size = magnitude(bits_of(m[i]));
      top = size > top ? size : top;
    }
    const float limit = float_of(top);
    float inverse = static_cast<float>(most) / (limit == 0 ? 1.0f : limit);
    if (!(magnitude(bits_of(inverse)) < kInfinity)) inverse = 0;
    for (int i = 0; i < n; ++i) {
      const float scaled = m[i] * inverse;
      const float known = float_of(bits_of(scaled) & mask(scaled == scaled));
      int32_t code = static_cast<int32_t>((known + static_cast<float>(middle)) + uniform(random[i] & 0xFFFFu));
      code = code < 2 * middle - 1 ? code : 2 * middle - 1;
      words[i] = static_cast<uint16_t>((static_cast<uint32_t>(words[i]) << kM) | static_cast<uint32_t>(code));
    }
    scale = limit / static_cast<float>(most);
    v_low = float_of(low);
    v_high = float_of(high);
  }
};

using Packed16 = PackedBlock<9, 7>;
using Packed12 = PackedBlock<7, 5>;

// 12-bit words of a block: their upper 8 bits in `bytes`, the lower 4 of two words in each of `halves`.
inline void join12(const uint8_t* __restrict bytes, const uint8_t* __restrict halves, int n, uint16_t* __restrict words) {
  const int half = (n + 1) / 2;
  for (int i = 0; i < half; ++i) words[i] = static_cast<uint16_t>((bytes[i] << 4) | (halves[i] & 15));
  for (int i = half; i < n; ++i) words[i] = static_cast<uint16_t>((bytes[i] << 4) | (halves[i - half] >> 4));
}

inline void split12(const uint16_t* __restrict words, int n, uint8_t* __restrict bytes, uint8_t* __restrict halves) {
  const int half = (n + 1) / 2, paired = n / 2;
  for (int i = 0; i < n; ++i) bytes[i] = static_cast<uint8_t>(words[i] >> 4);
  for (int i = 0; i < paired; ++i) halves[i] = static_cast<uint8_t>((words[i] & 15) | ((words[half + i] & 15) << 4));
  if (paired < half) halves[paired] = static_cast<uint8_t>(words[paired] & 15);
}

// formats/master.py: the pattern of a weight <-> a bfloat16 parameter and the bits that it lacks.
inline float join_master(uint16_t high, int32_t low) {
  return float_of((static_cast<uint32_t>(high) << 16) + static_cast<uint32_t>(low));
}

inline uint32_t quieted(uint32_t bits) {
  const uint32_t size = magnitude(bits), endless = mask(size >= kInfinity);
  const uint32_t kept = (bits & 0xFFFF0000u) | (mask(size > kInfinity) & 0x400000u);
  return (kept & endless) | (bits & ~endless);
}

inline uint32_t nearest24(float x) {
  const uint32_t bits = bits_of(x), endless = mask(magnitude(bits) >= kInfinity);
  return (bits & endless) | (((bits + 0x80u) & ~0xFFu) & ~endless);
}

}  // namespace
