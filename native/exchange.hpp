// The part of DLPack 1.x for reading a tensor's address and layout without owning the tensor.
// Declarations follow the published ABI (https://dmlc.github.io/dlpack/latest/c_api.html).
#pragma once

#include <stdint.h>

struct DLTensor {
  void* data;
  struct {
    int32_t device_type, device_id;  // device type 1 is the CPU
  } device;
  int32_t ndim;
  struct {
    uint8_t code, bits;  // code 2 is float, 4 is bfloat16
    uint16_t lanes;
  } dtype;
  int64_t* shape;
  int64_t* strides;  // in elements
  uint64_t byte_offset;
};

struct DLPackExchangeHeader {
  uint32_t major, minor;  // version
  DLPackExchangeHeader* previous;
};

// The table of functions behind a type's `__dlpack_c_exchange_api__`; we call only dltensor_from_object.
struct DLPackExchange {
  DLPackExchangeHeader header;
  int (*allocate)(DLTensor*, void**, void*, void (*)(void*, const char*, const char*));
  int (*managed_from_object)(void*, void**);
  int (*managed_to_object)(void*, void**);
  int (*dltensor_from_object)(void*, DLTensor*);
  int (*current_stream)(int32_t, int32_t, void**);
};
