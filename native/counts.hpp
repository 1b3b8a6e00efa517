// The step counts of a bucket: a float32 tensor for each parameter, increased in place.
#pragma once

#include <math.h>
#include <stdint.h>

#include <optional>
#include <unordered_map>
#include <utility>
#include <vector>

// float32 stops counting at 2**24. The integer goes on, as long as the tensor holds the same number as float32.
struct Count {
  float* at = nullptr;  // null if the parameter takes no step
  int64_t steps = 0;

  // Reads the tensor; returns false if its value is no number of steps.
  bool read(float* from) {
    at = from;
    const float held = *from;
    if (!(held >= 0 && held < 0x1p53f)) return false;
    if (static_cast<float>(steps) != held) steps = static_cast<int64_t>(held);
    return true;
  }
  void advance() { *at = static_cast<float>(++steps); }
};

// The numbers of the coming steps, each once, and for each parameter the index of its own; no indices if there is one
// number. A parameter that takes no step has index 0.
using Upcoming = std::pair<std::vector<int64_t>, std::optional<std::vector<size_t>>>;

inline Upcoming upcoming_of(const std::vector<Count>& counts) {
  std::vector<int64_t> numbers;
  std::vector<size_t> which;  // empty while there is one number
  std::unordered_map<int64_t, size_t> indices;
  for (size_t i = 0; i < counts.size(); ++i) {
    const int64_t next = counts[i].steps + 1;
    if (!counts[i].at || (!numbers.empty() && next == numbers.front())) continue;
    const auto [found, is_new] = indices.try_emplace(next, numbers.size());
    if (is_new) numbers.push_back(next);
    if (numbers.size() > 1) which.resize(counts.size());
    if (numbers.size() > 1) which[i] = found->second;
  }
  if (numbers.empty()) numbers.push_back(1);
  return {numbers, which.empty() ? std::nullopt : std::optional(which)};
}
