// Which tensors belong to a parameter, under which names, and how large each must be: the same for every framework.
#pragma once

#include <algorithm>
#include <array>
#include <stdexcept>
#include <string>

#include "layout.hpp"

// The names in a parameter's state of the tensors that a step writes; those from packed16 on are stored in rows.
enum StateName { kExpAvg, kExpAvgSq, kMax, kEma, kPacked16, kPacked12, kScale, kLow, kHigh, kParamLow };
constexpr std::array<const char*, 10> kStates = {"exp_avg",         "exp_avg_sq", "max_exp_avg_sq", "ema",
                                                 "packed16",        "packed12",   "exp_avg_scale",  "exp_avg_sq_low",
                                                 "exp_avg_sq_high", "param_low"};

inline StateName state_called(const std::string& name) {
  const auto at = std::find(kStates.begin(), kStates.end(), name);
  if (at == kStates.end()) throw std::invalid_argument("no state is called " + name);
  return static_cast<StateName>(at - kStates.begin());
}

inline Moments moments_called(const std::string& name) {
  if (name == "wide") return Moments::wide;
  if (name == "bfloat16") return Moments::bfloat16;
  if (name == "packed16") return Moments::packed16;
  if (name == "packed12") return Moments::packed12;
  throw std::invalid_argument("moments='" + name + "' have no native kernel");
}

// Where the address of a state's tensor is kept.
inline void*& address_of(Tensor& tensor, StateName name) {
  switch (name) {
    case kExpAvgSq:
      return tensor.exp_avg_sq;
    case kMax:
      return tensor.max_exp_avg_sq;
    case kEma:
      return tensor.ema;
    case kScale:
      return tensor.scale;
    case kLow:
      return tensor.low;
    case kHigh:
      return tensor.high;
    case kParamLow:
      return tensor.param_low;
    default:
      return tensor.exp_avg;  // the moment itself, or the words of both moments
  }
}

// The number of elements in which blocks follow each other; the next row begins a new block.
inline int64_t row_length(const Storage& storage, const View& param) {
  const bool in_rows = storage.moments == Moments::packed16 || storage.moments == Moments::packed12;
  if (!in_rows || param.ndim == 0 || param.shape[0] == 0) return std::max<int64_t>(param.count, 1);
  return std::max<int64_t>(param.count / param.shape[0], 1);
}

// The bytes of a tensor that is stored in rows.
inline int64_t bytes_of_part(StateName name, const Storage& storage, const View& param) {
  const int64_t columns = row_length(storage, param), rows = param.count / columns;
  switch (name) {
    case kPacked16:
      return 2 * param.count;
    case kPacked12:
      return rows * (columns + columns / 256 * 128 + (columns % 256 + 1) / 2);
    case kParamLow:
      return param.count * (storage.master_bits == 24 ? 1 : 2);
    default:  // a float32 number for each block
      return rows * ((columns + 255) / 256) * static_cast<int64_t>(sizeof(float));
  }
}

// Why `view` cannot be this state of the parameter; null if it can.
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
