// The numbers of a bucket's steps, which live in a float32 tensor of each parameter and are counted on in place.
#pragma once

#include <math.h>
#include <stdint.h>

#include <optional>
#include <unordered_map>
#include <vector>

// float32 stops counting at 2**24: the integer beside it goes on as long as the tensor holds its float32.
struct Count {
  float* at = nullptr;  // null where the parameter takes no step
  int64_t steps = 0;

  // Reads the tensor; false where no step can follow what it holds.
  bool read(float* from) {
    at = from;
    const float held = *from;
    if (!(held >= 0 && held < 0x1p53f)) return false;
    if (static_cast<float>(steps) != held) steps = static_cast<int64_t>(held);
    return true;
  }
  void advance() { *at = static_cast<float>(++steps); }
};

// The numbers of the coming steps, each once, and for each parameter the index of its own; no indices where there is
// but one number. Parameters that take no step have index 0.
struct Upcoming {
  std::vector<int64_t> numbers;
  std::optional<std::vector<size_t>> which;
};

inline Upcoming upcoming_of(const std::vector<Count>& counts) {
  std::optional<int64_t> first;
  bool same = true;
  for (const Count& count : counts) {
    if (!count.at) continue;
    if (!first) first = count.steps;
    same = same && count.steps == *first;
  }
  if (same) return {{first.value_or(0) + 1}, std::nullopt};
  Upcoming found{{}, std::vector<size_t>(counts.size())};
  std::unordered_map<int64_t, size_t> places;
  for (size_t i = 0; i < counts.size(); ++i) {
    if (!counts[i].at) continue;
    const auto [place, is_new] = places.try_emplace(counts[i].steps, found.numbers.size());
    if (is_new) found.numbers.push_back(counts[i].steps + 1);
    (*found.which)[i] = place->second;
  }
  return found;
}
