// A tensor's address and layout, in the terms of no framework, and what the kernel must know about layouts.
#pragma once

#include <stdint.h>

#include <algorithm>
#include <memory>
#include <optional>

#include "adamas.hpp"

// The type of an element, in DLPack's terms.
struct ElementType {
  uint8_t code, bits;
  uint16_t lanes;
  bool operator==(const ElementType&) const = default;
};
constexpr uint8_t kSignedCode = 0, kUnsignedCode = 1, kFloatCode = 2, kBfloatCode = 4, kOtherCode = 255;

// The dtype of parameters, gradients or moments; empty for a type that the kernel does not compute with.
inline std::optional<Dtype> dtype_of(ElementType type) {
  if (type.lanes != 1) return std::nullopt;
  if (type.code == kBfloatCode && type.bits == 16) return Dtype::bfloat16;
  if (type.code != kFloatCode) return std::nullopt;
  if (type.bits == 32) return Dtype::float32;
  if (type.bits == 64) return Dtype::float64;
  if (type.bits == 16) return Dtype::float16;
  return std::nullopt;
}

// One tensor on the CPU, read without owning it.
struct View {
  void* data = nullptr;
  ElementType type = {kOtherCode, 8, 1};
  int ndim = 0;
  int64_t count = 1;
  const int64_t* shape = nullptr;
  const int64_t* strides = nullptr;  // in elements
  std::unique_ptr<int64_t[]> owned;  // the memory of shape and strides, if it is not the tensor's

  int64_t item() const { return type.bits / 8 * type.lanes; }  // bytes of an element
  // The number of elements from the first to the last one in memory, both included.
  int64_t span() const {
    int64_t last = 0;
    for (int d = 0; d < ndim; ++d) last += (shape[d] - 1) * strides[d];
    return count == 0 ? 0 : last + 1;
  }
};

inline bool same_shape(const View& a, const View& b) {
  return std::equal(a.shape, a.shape + a.ndim, b.shape, b.shape + b.ndim);
}

// Whether element k of one tensor has the same place in memory as element k of the other, in any order of the
// dimensions: equal strides in every dimension with more than one element.
inline bool same_order(const View& a, const View& b) {
  if (a.count == 0) return true;
  for (int d = 0; d < a.ndim; ++d) {
    if (a.shape[d] > 1 && a.strides[d] != b.strides[d]) return false;
  }
  return true;
}

// Whether the elements lie in the order of their indices, without gaps.
inline bool row_major(const View& view) {
  int64_t expected = 1;
  for (int d = view.ndim - 1; d >= 0; --d) {
    if (view.shape[d] != 1 && view.strides[d] != expected) return view.count == 0;
    expected *= view.shape[d];
  }
  return true;
}

// Whether the elements fill one block of memory, each exactly once, in some order of the dimensions.
inline bool dense(const View& view) {
  if (row_major(view)) return true;
  int64_t expected = 1;
  while (expected < view.count) {  // find the dimension with this stride; without one, the tensor is not dense
    int64_t next = 0;
    for (int d = 0; d < view.ndim; ++d) {
      if (view.shape[d] > 1 && view.strides[d] == expected) next = expected * view.shape[d];
    }
    if (next == 0) return false;
    expected = next;
  }
  return true;
}
