// Moments and master weights in fewer bits: src/adamas/formats specifies these functions bit for bit.
//
// Each works on a block of at most kBlockSize elements in the first cache, in simple loops that compilers vectorise.
// These are integer and float operations only, in the order of the specification.
#pragma once

#include <stdint.h>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "adamas.hpp"
#include "storage.hpp"

namespace {

constexpr int kBlockSize = 256;

// Prefetches the memory that a later block will read, in parts: a core has about a dozen outstanding requests, and
// waits if it makes more.
struct Prefetcher {
  static constexpr int kStreams = 5, kParts = 4;
  struct Stream {
    const char* next;
    int64_t bytes;  // the size of a part
  } streams[kStreams];
  int count = 0;
  void add(const void* from, int64_t bytes) { streams[count++] = {static_cast<const char*>(from), bytes / kParts}; }
  inline void next_part() {
    for (int s = 0; s < count; ++s) {
      const char* const from = streams[s].next;
      for (int64_t line = 0; line < streams[s].bytes; line += 64) __builtin_prefetch(from + line);
      streams[s].next = from + streams[s].bytes;
    }
  }
};
constexpr uint32_t kInfinity = 0x7F800000u;

inline uint32_t magnitude(uint32_t bits) { return bits & 0x7FFFFFFFu; }

// (k + 1/2) / 2^16 for the 16-bit number k in bits 7 to 22, which becomes the mantissa of a float in [1, 2).
inline float uniform(uint32_t shifted) { return float_of((shifted & 0x7FFF80u) | 0x3F800040u) - 1.0f; }
inline float uniform_of_high(uint32_t random) { return uniform(random >> 9); }
inline float uniform_of_low(uint32_t random) { return uniform(random << 7); }

// formats/random_bits.py: the random bits of elements whose indices share their upper 32 bits.
constexpr uint32_t kGolden = 0x9E3779B9u;

// i * kGolden for the elements of a block: reading a product is cheaper than multiplying.
struct Multiples {
  alignas(64) uint32_t of[kBlockSize];
  constexpr Multiples() : of() {
    for (uint32_t i = 0; i < kBlockSize; ++i) of[i] = i * kGolden;
  }
};
constexpr Multiples kMultiples;

struct Draw {
  uint32_t first, second;
  // operator()(i) then draws for element at + i - from of the parameter.
  Draw(Key key, int64_t at, int from)
      : first(key.first + (static_cast<uint32_t>(at) - static_cast<uint32_t>(from)) * kGolden),
        second(key.second + static_cast<uint32_t>(at >> 32) * kGolden) {}
  inline uint32_t operator()(int i) const {
    uint32_t x = first + kMultiples.of[i];
    x ^= (x >> 15) ^ second;
    x *= 0x846CA68Bu;
    return x ^ (x >> 16);
  }
};

inline uint32_t for_weights(uint32_t random) { return random * kGolden; }

// How many of the n elements from `at` on share the upper 32 bits of their indices.
inline int before_wrap(int64_t at, int n) {
  const int64_t left = (int64_t{1} << 32) - (at & 0xFFFFFFFF);
  return left < n ? static_cast<int>(left) : n;
}

// Returns `rounded`; if `bits` are an infinity or NaN, returns the upper half of `bits`, with NaN made quiet.
inline uint32_t keep_nonfinite(uint32_t bits, uint32_t rounded) {
  const uint32_t size = magnitude(bits);
  const uint32_t nonfinite = (bits & 0xFFFF0000u) | (mask(size > kInfinity) & 0x400000u);
  return size >= kInfinity ? nonfinite : rounded;
}

// formats/rounding.py: x rounded stochastically to bfloat16, with 16 random bits.
inline uint16_t round_to_bfloat16(float x, uint32_t random16) {
  return static_cast<uint16_t>(keep_nonfinite(bits_of(x), bits_of(x) + random16) >> 16);
}

// formats/rounding.py: weight - change with its lowest kCut bits rounded away stochastically; nothing for kCut = 0.
template <int kCut, uint32_t kSmallest = 0>
inline float stepped(float weight, float change, uint32_t random) {
  if constexpr (kCut == 0) return weight - change;
  constexpr float spacing = 1.0f / static_cast<float>(1u << (23 - kCut)), half = 0x1p-24f;
  const uint32_t near = bits_of(weight - change);
  uint32_t power = near & 0xFF800000u;
  if constexpr (kSmallest) {
    const uint32_t exponent = near & kInfinity;
    power = (near & 0x80000000u) | (exponent > kSmallest ? exponent : kSmallest);
  }
  const float drawn = float_of((random >> 9) | 0x3F800000u) * spacing - (spacing + half);
  // As integers, without regard to NaN: the pattern of a negative float is a negative integer.
  const int32_t drawn_bits = static_cast<int32_t>(bits_of(drawn)), least = 87 << 23;  // 2^-40
  const float part = float_of(static_cast<uint32_t>(drawn_bits > least ? drawn_bits : least));
  return float_of(bits_of(weight - (change - part * float_of(power))) & ~((1u << kCut) - 1));
}

// formats/rounding.py: weight - change rounded stochastically to float16, whose spacing below 2^-14 is 2^-24.
inline float stepped_float16(float weight, float change, uint32_t random) {
  float value = stepped<13, (113u << 23)>(weight, change, random);
  const uint32_t most = bits_of(65504.0f), drawn = bits_of(value);
  if (magnitude(drawn) < bits_of(65520.0f) && magnitude(drawn) > most) value = float_of((drawn & 0x80000000u) | most);
  const uint32_t bits = bits_of(value), is_small = mask(magnitude(bits) < (113u << 23));
  const int32_t whole = static_cast<int32_t>(float_of(bits & is_small) * 0x1p24f);
  const uint32_t small = bits_of(static_cast<float>(whole) * 0x1p-24f) | (bits & 0x80000000u);
  return float_of((small & is_small) | (bits & ~is_small));
}

// The three numbers of a packed block.
struct Grids {
  float *scale, *low, *high;
  Grids(const Tensor& tensor, int64_t k)
      : scale(static_cast<float*>(tensor.scale) + k),
        low(static_cast<float*>(tensor.low) + k),
        high(static_cast<float*>(tensor.high) + k) {}
};

// formats/packed.py: both moments of a block in words of kV + kM bits.
template <int kV, int kM>
struct PackedBlock {
  static constexpr bool kPacked = true;
  static constexpr uint32_t intervals = (1u << kV) - 2;
  static constexpr int32_t middle = 1 << (kM - 1);
  static constexpr float most = static_cast<float>(middle - 1) - 0x1p-15f;

  static inline uint32_t spacing(uint32_t low, uint32_t high) {
    const uint32_t s = (high - low + (intervals - 1)) / intervals;
    return s > 1 ? s : 1;
  }

  static inline float root(uint32_t bits) { return float_of((bits >> 1) + 0x1FC00000u); }

  // Decodes the elements of a block, one by one.
  const uint16_t* words;
  float scale;
  uint32_t high, step, before;
  PackedBlock(const uint16_t* from, const Grids& grids)
      : words(from), scale(*grids.scale), high(bits_of(*grids.high)), step(spacing(bits_of(*grids.low), high)) {
    before = bits_of(*grids.low) - step;
  }
  inline void load(int i, float& m, float& v) const {
    const uint32_t code = static_cast<uint32_t>(words[i]) >> kM;
    const uint32_t point = before + code * step, bits = code ? (point < high ? point : high) : 0;
    const int32_t steps = static_cast<int32_t>(words[i] & ((1u << kM) - 1)) - middle;
    v = float_of(bits);
    m = (static_cast<float>(steps) * scale) * root(bits);
  }

  // Encodes v of a block of n elements, whose patterns lie between v_low and v_high, and divides m by the root of v.
  template <class Block>
  static void encode_v(Block& block, int n) {
    if (block.v_low && block.v_high < kInfinity) return encode_v_as<true>(block, n);
    uint32_t low = UINT32_MAX;
    for (int i = 0; i < n; ++i) {
      const uint32_t place = bits_of(block.v[i]) - 1;  // zeros come last
      low = place < low ? place : low;
    }
    block.v_low = block.v_high ? low + 1 : 0;
    encode_v_as<false>(block, n);
  }

  // The same, with the pattern of the smallest positive v in v_low. kAllPositive: all v are positive and finite.
  template <bool kAllPositive, class Block>
  static void encode_v_as(Block& block, int n) {
    float* __restrict m = block.m;
    const float* __restrict v = block.v;
    const uint32_t* __restrict random = block.random;
    uint32_t* __restrict codes = block.codes;
    const uint32_t low = block.v_low, high = block.v_high, step = spacing(low, high), before = low - step;
    const float inverse_step = 1.0f / static_cast<float>(static_cast<int32_t>(step));
    uint32_t top = 0;
    for (int i = 0; i < n; ++i) {  // for v = 0 only `point` and the code are used
      const uint32_t bits = bits_of(v[i]);
      const float places = static_cast<float>(static_cast<int32_t>(bits - low)) * inverse_step;
      const uint32_t code = static_cast<uint32_t>(static_cast<int32_t>(places)) + 1;  // the code of the point below
      const uint32_t under = before + code * step, over = under + step;
      const uint32_t below = under < high ? under : high, above = over < high ? over : high;
      const float gap = float_of(above) - float_of(below), part = float_of(bits) - float_of(below);
      const float threshold = uniform_of_high(random[i]) * gap;
      uint32_t point;
      if constexpr (kAllPositive) {
        const uint32_t up = mask(threshold < part);
        point = (above & up) | (below & ~up);
        codes[i] = code - up;
      } else {
        // An infinity or NaN is rounded up, to itself.
        const uint32_t up = mask(!(part - threshold <= 0)), positive = mask(bits != 0);
        const uint32_t next = code - up, last = intervals + 1;
        point = ((above & up) | (below & ~up)) & positive;
        codes[i] = (next < last ? next : last) & positive;
      }
      const float unit = m[i] / root(point);
      m[i] = unit;
      const uint32_t size = magnitude(bits_of(unit));
      top = size > top ? size : top;
    }
    block.top = float_of(top);
    block.inverse = most / (block.top == 0 ? 1.0f : block.top);
    if (!(magnitude(bits_of(block.inverse)) < kInfinity)) block.inverse = 0;
  }

  // Encodes m after v, and writes the words and the three numbers of the block.
  template <class Block>
  static void encode_m(const Block& block, int n, uint16_t* __restrict words, const Grids& grids) {
    const float* __restrict m = block.m;
    const uint32_t* __restrict random = block.random;
    const uint32_t* __restrict codes = block.codes;
    const float inverse = block.inverse;
    for (int i = 0; i < n; ++i) {
      // A NaN converts to an integer whose lower bits are 0 on every processor: code 0.
      const float place = (m[i] * inverse + static_cast<float>(middle)) + uniform_of_low(random[i]);
      words[i] = static_cast<uint16_t>((codes[i] << kM) | static_cast<uint32_t>(static_cast<int32_t>(place)));
    }
    *grids.scale = block.top / static_cast<float>(middle - 1);
    *grids.low = float_of(block.v_low);
    *grids.high = float_of(block.v_high);
  }
};

using Packed16 = PackedBlock<9, 7>;
using Packed12 = PackedBlock<7, 5>;

// The 12-bit words of a block: the upper 8 bits of each in `bytes`, the lower 4 bits of two words in each of `halves`.
inline void join12(const uint8_t* __restrict bytes, const uint8_t* __restrict halves, int n,
                   uint16_t* __restrict words) {
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

// formats/master.py: a weight <-> a bfloat16 parameter and its low bits. Low bits that a user's write to the parameter
// left with an infinity, or with a zero, make no NaN.
inline float join_master(uint16_t high, int32_t low) {
  const uint32_t upper = static_cast<uint32_t>(high) << 16, bits = upper + static_cast<uint32_t>(low);
  return float_of(magnitude(bits) >= kInfinity ? upper : bits);
}

// With intrinsics, because compilers turn a loop over bytes into three times as many instructions.
inline void join_masters24(const uint16_t* __restrict high, const int8_t* __restrict low, int n,
                           float* __restrict theta) {
  int i = 0;
#if defined(__AVX512F__)
  for (; i + 16 <= n; i += 16) {
    const __m512i upper = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(high + i)));
    const __m512i lower = _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(low + i)));
    const __m512i whole = _mm512_slli_epi32(upper, 16);
    const __m512i bits = _mm512_add_epi32(whole, _mm512_slli_epi32(lower, 8));
    const __mmask16 inf_or_nan = _mm512_cmpge_epi32_mask(_mm512_and_si512(bits, _mm512_set1_epi32(0x7FFFFFFF)),
                                                         _mm512_set1_epi32(static_cast<int>(kInfinity)));
    _mm512_storeu_ps(theta + i, _mm512_castsi512_ps(_mm512_mask_mov_epi32(bits, inf_or_nan, whole)));
  }
#elif defined(__AVX2__)
  for (; i + 8 <= n; i += 8) {
    const __m256i upper = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(high + i)));
    const __m256i lower = _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(low + i)));
    const __m256i whole = _mm256_slli_epi32(upper, 16);
    const __m256i bits = _mm256_add_epi32(whole, _mm256_slli_epi32(lower, 8));
    const __m256i inf_or_nan = _mm256_cmpgt_epi32(_mm256_and_si256(bits, _mm256_set1_epi32(0x7FFFFFFF)),
                                                  _mm256_set1_epi32(static_cast<int>(kInfinity - 1)));
    _mm256_storeu_ps(theta + i, _mm256_castsi256_ps(_mm256_blendv_epi8(bits, whole, inf_or_nan)));
  }
#endif
  for (; i < n; ++i) theta[i] = join_master(high[i], static_cast<int32_t>(low[i]) * 256);
}

inline float quiet_nonfinite(uint32_t bits) { return float_of(keep_nonfinite(bits, bits)); }

inline uint32_t nearest24(float x) {
  const uint32_t bits = bits_of(x), inf_or_nan = mask(magnitude(bits) >= kInfinity);
  return (bits & inf_or_nan) | (((bits + 0x80u) & ~0xFFu) & ~inf_or_nan);
}

}  // namespace
