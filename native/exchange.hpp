// The part of DLPack 1.x that reads a tensor's address and layout without owning it.
// Declarations follow the published ABI (https://dmlc.github.io/dlpack/latest/c_api.html).
#pragma once

#include <stdint.h>

struct DLDevice {
  int32_t device_type;  // 1 is the CPU
  int32_t device_id;
};

struct DLDataType {
  uint8_t code;  // 2 is float, 4 is bfloat16
  uint8_t bits;
  uint16_t lanes;
};

struct DLTensor {
  void* data;
  DLDevice device;
  int32_t ndim;
  DLDataType dtype;
  int64_t* shape;
  int64_t* strides;  // in elements
  uint64_t byte_offset;
};

struct DLPackVersion {
  uint32_t major, minor;
};

struct DLPackExchangeHeader {
  DLPackVersion version;
  DLPackExchangeHeader* previous;
};

// The type's table behind `__dlpack_c_exchange_api__`; we call only dltensor_from_object.
struct DLPackExchange {
  DLPackExchangeHeader header;
  int (*allocate)(DLTensor*, void**, void*, void (*)(void*, const char*, const char*));
  int (*managed_from_object)(void*, void**);
  int (*managed_to_object)(void*, void**);
  int (*dltensor_from_object)(void*, DLTensor*);
  int (*current_stream)(int32_t, int32_t, void**);
};
