// The tensors in a parameter's state: their names, and the size that each must have. The same for every framework.
#pragma once

#include <algorithm>
#include <array>
#include <stdexcept>
#include <string>

#include "layout.hpp"

// The tensors that a step writes; those from packed16 on are stored in rows.
enum StateName { kExpAvg, kExpAvgSq, kMax, kEma, kPacked16, kPacked12, kScale, kLow, kHigh, kParamLow };
constexpr std::array kStates = {"exp_avg",         "exp_avg_sq", "max_exp_avg_sq", "ema",
                                "packed16",        "packed12",   "exp_avg_scale",  "exp_avg_sq_low",
                                "exp_avg_sq_high", "param_low"};
// Where the address of each is kept; packed words take the place of the first moment.
constexpr std::array kAddresses = {&Tensor::exp_avg, &Tensor::exp_avg_sq, &Tensor::max_exp_avg_sq, &Tensor::ema,
                                   &Tensor::exp_avg, &Tensor::exp_avg,    &Tensor::scale,          &Tensor::low,
                                   &Tensor::high,    &Tensor::param_low};
constexpr std::array kMoments = {"wide", "bfloat16", "packed16", "packed12"};

// A tensor does not fit the bucket it was put in; nothing has been written.
struct Mismatch : std::runtime_error {
  using std::runtime_error::runtime_error;
};

inline std::string place(const char* what, size_t index) { return std::string(what) + " " + std::to_string(index); }

// The value of an enum that has this name.
template <class Enum, size_t kCount>
Enum named(const std::array<const char*, kCount>& names, const std::string& name) {
  const auto at = std::find(names.begin(), names.end(), name);
  if (at == names.end()) throw std::invalid_argument("'" + name + "' has no native kernel");
  return static_cast<Enum>(at - names.begin());
}

// The number of elements in a row; the next row starts a new block. A parameter of one dimension is a single row.
inline int64_t row_length(const Storage& storage, const View& param) {
  const bool in_rows = storage.moments == Moments::packed16 || storage.moments == Moments::packed12;
  if (!in_rows || param.ndim < 2 || param.shape[0] == 0) return std::max<int64_t>(param.count, 1);
  return std::max<int64_t>(param.count / param.shape[0], 1);
}

// The number of bytes that a state stored in rows must have.
inline int64_t bytes_of_part(StateName name, const Storage& storage, const View& param) {
  const int64_t columns = row_length(storage, param), rows = param.count / columns;
  switch (name) {
    case kPacked16:
      return 2 * param.count;
    case kPacked12:
      return rows * (columns + columns / 256 * 128 + (columns % 256 + 1) / 2);
    case kParamLow:
      return param.count * (storage.master_bits == 24 ? 1 : 2);
    default:  // one float32 number for each block
      return rows * ((columns + 255) / 256) * static_cast<int64_t>(sizeof(float));
  }
}

// Returns why `view` cannot be this state of the parameter; null if it can.
inline const char* state_problem(StateName name, const Storage& storage, const View& param, const View& view) {
  const bool grid = name == kScale || name == kLow || name == kHigh;
  if (name >= kPacked16) {
    const bool integer = view.type.code == kSignedCode || view.type.code == kUnsignedCode;
    if (grid ? dtype_of(view.type) != Dtype::float32 : !integer) return " has another dtype than its storage's";
    if (view.count * view.item() != bytes_of_part(name, storage, param)) return " does not fit its parameter";
    if (!row_major(view)) return " is not row-major";
    // Words of 16 bits are read as 16-bit numbers.
    return reinterpret_cast<uintptr_t>(view.data) % (grid ? 4 : 2) ? " is misaligned" : nullptr;
  }
  const bool narrow = storage.moments == Moments::bfloat16 && (name == kExpAvg || name == kExpAvgSq);
  const Dtype wide = storage.dtype == Dtype::float64 ? Dtype::float64 : Dtype::float32;
  if (dtype_of(view.type) != (narrow ? Dtype::bfloat16 : wide)) return " has another dtype than its storage's";
  if (!same_shape(view, param)) return " has another shape than its parameter";
  if (!same_order(view, param)) return " is laid out otherwise than its parameter";
  return nullptr;
}
