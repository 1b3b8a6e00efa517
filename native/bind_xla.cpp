// The native kernel as a foreign function of XLA on the CPU, which src/adamas/kernels/xla.py registers and calls.
//
// The arguments are the numbers of StepScalars, the key of random bits, the index of each tensor's first element in its
// whole parameter, and then for each tensor its gradient, parameter and states. The results are parameters and states,
// and share memory with the arguments. Numbers (float64) and indices (int64) come as pairs of uint32, because a program
// without 64-bit types cannot hold them.

#include <nanobind/nanobind.h>
#include <string.h>

#include <atomic>
#include <condition_variable>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include "scalars.hpp"
#include "states.hpp"
#include "table.hpp"
#include "xla_ffi.hpp"

namespace {

constexpr int kStrings = 4, kScalars = 3, kInvalidArgument = 3, kExecute = 3, kMetadata = 1;
constexpr int64_t kBefore = 3;  // arguments before those of the tensors

ElementType type_of(xla::Type type) {
  switch (type) {
    case xla::Type::f32:
      return {kFloatCode, 32, 1};
    case xla::Type::f64:
      return {kFloatCode, 64, 1};
    case xla::Type::f16:
      return {kFloatCode, 16, 1};
    case xla::Type::bf16:
      return {kBfloatCode, 16, 1};
    case xla::Type::s8:
      return {kSignedCode, 8, 1};
    case xla::Type::u8:
      return {kUnsignedCode, 8, 1};
    default:
      return {kOtherCode, 8, 1};
  }
}

// XLA's arrays of a foreign function are row-major.
View view_of(const xla::Buffer& buffer) {
  View view;
  view.data = buffer.data;
  view.type = type_of(buffer.type);
  view.ndim = static_cast<int>(buffer.rank);
  view.shape = buffer.dims;
  view.owned = std::make_unique<int64_t[]>(static_cast<size_t>(buffer.rank));
  for (int d = view.ndim - 1; d >= 0; --d) {
    view.owned[d] = view.count;
    view.count *= buffer.dims[d];
  }
  view.strides = view.owned.get();
  return view;
}

// The attributes of a call.
class Options {
 public:
  explicit Options(const xla::Attributes& attributes) : attributes_(attributes) {}
  std::string text(const std::string& name) const {
    const auto* span = static_cast<const xla::ByteSpan*>(find(name, kStrings));
    return {span->data, span->size};
  }
  int64_t number(const std::string& name) const {
    const auto* scalar = static_cast<const xla::Scalar*>(find(name, kScalars));
    if (scalar->type != xla::Type::s64) throw Mismatch("attribute " + name + " is not an int64");
    return *static_cast<const int64_t*>(scalar->value);
  }

 private:
  const void* find(const std::string& name, int type) const {
    for (int64_t i = 0; i < attributes_.size; ++i) {
      const xla::ByteSpan& span = *attributes_.names[i];
      if (name == std::string(span.data, span.size) && attributes_.types[i] == type) return attributes_.values[i];
    }
    throw Mismatch("attribute " + name + " is missing");
  }
  const xla::Attributes& attributes_;
};

// The steps of one call, with all that its parts need.
struct Work {
  StepRange range = nullptr;
  std::vector<Step> steps;
  std::vector<Tensor> tensors;
};

const xla::Buffer& argument(const xla::CallFrame& frame, int64_t i, xla::Type type, int64_t count) {
  const xla::Buffer& buffer = *frame.arguments.values[i];
  if (buffer.type != type || view_of(buffer).count != count)
    throw Mismatch(place("argument", static_cast<size_t>(i)) + " has another dtype or shape than is expected");
  return buffer;
}

Step read_step(const xla::CallFrame& frame, const Options& options, const Storage& storage) {
  Scalars scalars{};
  memcpy(scalars.numbers.data(), argument(frame, 0, xla::Type::u32, 2 * kNumbers).data, sizeof scalars.numbers);
  const auto* key = static_cast<const uint32_t*>(argument(frame, 1, xla::Type::u32, 2).data);
  scalars.key = {key[0], key[1]};
  scalars.amsgrad = options.number("amsgrad") != 0;
  scalars.cautious = options.number("cautious") != 0;
  scalars.moves = scalars.numbers[6] != 0;  // the step size is 0 exactly where lr is
  return step_of(scalars, storage, false);
}

// Checks one tensor and its states; results that XLA put elsewhere than the arguments become copies of these.
Tensor read_tensor(const xla::CallFrame& frame, int64_t i, const std::vector<StateName>& kept, Storage& storage) {
  const int64_t width = 2 + static_cast<int64_t>(kept.size());
  xla::Buffer* const* from = frame.arguments.values + kBefore + i * width;
  xla::Buffer* const* to = frame.results.values + i * (width - 1);
  const auto index = static_cast<size_t>(i);
  const View grad = view_of(*from[0]);
  View param = view_of(*from[1]);
  const std::optional<Dtype> dtype = dtype_of(param.type);
  if (!dtype || (i > 0 && *dtype != storage.dtype)) throw Mismatch(place("param", index) + ": dtypes differ");
  storage.dtype = *dtype;
  if (dtype_of(grad.type) != dtype || !same_shape(grad, param))
    throw Mismatch(place("grad", index) + " has another dtype or shape than its parameter");
  Tensor tensor{};
  tensor.grad = grad.data;
  tensor.count = param.count;
  for (size_t k = 0; k <= kept.size(); ++k) {
    const View view = view_of(*from[1 + k]);
    const char* problem = k ? state_problem(kept[k - 1], storage, param, view) : nullptr;
    if (problem) throw Mismatch(place(kStates[kept[k - 1]], index) + problem);
    if (!same_shape(view, view_of(*to[k])) || from[1 + k]->type != to[k]->type)
      throw Mismatch(place("result", index) + " has another dtype or shape than its argument");
    if (to[k]->data != view.data) memcpy(to[k]->data, view.data, static_cast<size_t>(view.count * view.item()));
    (k ? tensor.*kAddresses[kept[k - 1]] : tensor.param) = to[k]->data;
  }
  if (!storage.plain()) tensor.columns = row_length(storage, param);
  return tensor;
}

Work read_work(const xla::CallFrame& frame) {
  const Options options(frame.attributes);
  std::vector<StateName> kept;
  std::istringstream names(options.text("names"));
  for (std::string name; names >> name;) kept.push_back(named<StateName>(kStates, name));
  Storage storage{Dtype::float32, named<Moments>(kMoments, options.text("moments")),
                  static_cast<int>(options.number("master_bits")), options.number("stochastic") != 0};
  const int64_t width = 2 + static_cast<int64_t>(kept.size()), count = (frame.arguments.size - kBefore) / width;
  if (frame.arguments.size != kBefore + count * width || frame.results.size != count * (width - 1))
    throw Mismatch("a call has another number of arguments or results than its names need");
  std::vector<int64_t> first(static_cast<size_t>(count));
  memcpy(first.data(), argument(frame, 2, xla::Type::u32, 2 * count).data, first.size() * sizeof first[0]);
  Work work;
  for (int64_t i = 0; i < count; ++i) {
    work.tensors.push_back(read_tensor(frame, i, kept, storage));
    work.tensors.back().first = first[static_cast<size_t>(i)];
  }
  work.steps = {read_step(frame, options, storage)};
  const Isa& isa = isa_named("");
  work.range = storage.plain() ? isa.step[static_cast<int>(storage.dtype)] : isa.stored;
  return work;
}

// Parts of a work that several threads share. Each takes the next part until none is left. The caller takes parts too,
// and so never waits for a thread that has not begun: a pool whose threads all wait could otherwise stand still.
struct Shared {
  Work work;
  int64_t count = 1;
  std::atomic<int64_t> next = 0;
  int64_t done = 0;
  std::mutex mutex;
  std::condition_variable all_done;

  void take_parts() {
    for (int64_t part; (part = next++) < count;) {
      run_part(work.range, work.steps, work.tensors, part, count);
      const std::lock_guard lock(mutex);
      if (++done == count) all_done.notify_all();
    }
  }
};

void run_task(void* data) {
  const std::unique_ptr<std::shared_ptr<Shared>> shared(static_cast<std::shared_ptr<Shared>*>(data));
  (*shared)->take_parts();
}

void drop(const xla::CallFrame& frame, xla::Error* error) {
  xla::ErrorDestroy destroy{sizeof(xla::ErrorDestroy), nullptr, error};
  frame.api->error_destroy(&destroy);
}

// Runs the work on XLA's threads and waits for it. Where XLA has no pool, the calling thread does all.
void run_on_pool(const xla::CallFrame& frame, Work work) {
  int64_t threads = 1;
  xla::NumThreads ask{sizeof(xla::NumThreads), nullptr, frame.context, &threads};
  if (xla::Error* error = frame.api->num_threads(&ask)) {
    drop(frame, error);
    threads = 1;
  }
  const auto shared = std::make_shared<Shared>();
  shared->count = threads_for(work.tensors, static_cast<int>(threads));
  shared->work = std::move(work);
  for (int64_t i = 1; i < shared->count; ++i) {
    auto data = std::make_unique<std::shared_ptr<Shared>>(shared);
    xla::Schedule schedule{sizeof(xla::Schedule), nullptr, frame.context, run_task, data.get()};
    if (xla::Error* error = frame.api->schedule(&schedule)) {
      drop(frame, error);
      break;
    }
    data.release();
  }
  shared->take_parts();
  std::unique_lock lock(shared->mutex);
  shared->all_done.wait(lock, [&] { return shared->done == shared->count; });
}

// XLA asks once which version of the interface this function was built for: any, as far as it is declared here.
bool answers_metadata(const xla::CallFrame& frame) {
  for (const xla::Extension* each = frame.extension_start; each; each = each->next) {
    if (each->type != kMetadata) continue;
    xla::Metadata* metadata = reinterpret_cast<const xla::MetadataExtension*>(each)->metadata;
    metadata->api_version.major_version = frame.api ? frame.api->api_version.major_version : 0;
    metadata->api_version.minor_version = frame.api ? frame.api->api_version.minor_version : 1;
    metadata->traits = 0;
    return true;
  }
  return false;
}

extern "C" xla::Error* adamas_xla_step(xla::CallFrame* frame) {
  if (answers_metadata(*frame) || frame->stage != kExecute) return nullptr;
  std::string message;
  try {
    run_on_pool(*frame, read_work(*frame));
    return nullptr;
  } catch (const std::exception& error) {
    message = error.what();
  }
  xla::ErrorCreate create{sizeof(xla::ErrorCreate), nullptr, message.c_str(), kInvalidArgument};
  return frame->api->error_create(&create);
}

}  // namespace

void bind_xla(nanobind::module_& m) {
  m.attr("xla_step") = nanobind::capsule(reinterpret_cast<void*>(adamas_xla_step));
}
