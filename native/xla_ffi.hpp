// The part of XLA's foreign function interface for reading a call on the CPU and using XLA's threads.
// Declarations follow the published C interface (openxla/xla, xla/ffi/api/c_api.h, major version 0).
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace xla {

struct Extension {
  size_t struct_size;
  int type;  // 1: the caller asks for the handler's metadata and calls nothing
  Extension* next;
};

struct Version {
  size_t struct_size;
  Extension* extension_start;
  int major_version, minor_version;
};

struct Metadata {
  size_t struct_size;
  Version api_version;
  uint32_t traits;
};

struct MetadataExtension {
  Extension base;
  Metadata* metadata;
};

// xla::PrimitiveType, as far as arrays of these types are stepped.
enum class Type : int { s8 = 2, s64 = 5, u8 = 6, u32 = 8, f16 = 10, f32 = 11, f64 = 12, bf16 = 16 };

struct Buffer {
  size_t struct_size;
  Extension* extension_start;
  Type type;
  void* data;
  int64_t rank;
  int64_t* dims;
};

struct Values {  // arguments and results
  size_t struct_size;
  Extension* extension_start;
  int64_t size;
  int* types;  // 1 is a buffer
  Buffer** values;
};

struct ByteSpan {
  const char* data;
  size_t size;
};

struct Scalar {
  Type type;
  void* value;
};

struct Attributes {
  size_t struct_size;
  Extension* extension_start;
  int64_t size;
  int* types;  // 3 is a Scalar, 4 a ByteSpan
  ByteSpan** names;
  void** values;
};

struct Error;
struct Context;

struct ErrorCreate {
  size_t struct_size;
  Extension* extension_start;
  const char* message;
  int code;
};

struct ErrorDestroy {
  size_t struct_size;
  Extension* extension_start;
  Error* error;
};

struct Schedule {
  size_t struct_size;
  Extension* extension_start;
  Context* context;
  void (*task)(void*);
  void* data;
};

struct NumThreads {
  size_t struct_size;
  Extension* extension_start;
  Context* context;
  int64_t* num_threads;
};

struct Api {
  size_t struct_size;
  Extension* extension_start;
  Version api_version;
  const void* internal;
  Error* (*error_create)(ErrorCreate*);
  void (*error_get_message)(void*);
  void (*error_destroy)(ErrorDestroy*);
  void (*not_used[8])();  // handlers, streams, types, contexts, states and device memory
  Error* (*schedule)(Schedule*);
  Error* (*num_threads)(NumThreads*);
};

struct CallFrame {
  size_t struct_size;
  Extension* extension_start;
  const Api* api;
  Context* context;
  int stage;  // 3: execute
  Values arguments, results;
  Attributes attributes;
};

}  // namespace xla
