// Python's view of the native kernel: `Table` turns lists of tensors into pointers, checking everything before anything
// is written, and steps them. See src/adamas/kernels/native.py for the side that calls it.

#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <array>
#include <limits>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "exchange.hpp"
#include "table.hpp"

namespace nb = nanobind;

namespace {

// A tensor does not fit the bucket it was put in; nothing has been written.
struct Mismatch : std::runtime_error {
  using std::runtime_error::runtime_error;
};

const DLPackExchange* exchange = nullptr;  // torch's, where it has one (2.10 and later)

// One tensor's address and layout, read without owning it.
struct View {
  void* data = nullptr;
  std::optional<Dtype> dtype;  // empty for what this kernel does not know
  int64_t item = 0;            // bytes of an element
  int64_t count = 1;
  const int64_t* shape = nullptr;
  const int64_t* strides = nullptr;
  int ndim = 0;
  std::vector<int64_t> owned;  // what shape and strides point to, where the tensor does not lend them
};

std::optional<Dtype> dtype_of(DLDataType type) {
  if (type.lanes != 1) return std::nullopt;
  if (type.code == 4 && type.bits == 16) return Dtype::bfloat16;
  if (type.code != 2) return std::nullopt;
  if (type.bits == 32) return Dtype::float32;
  if (type.bits == 64) return Dtype::float64;
  if (type.bits == 16) return Dtype::float16;
  return std::nullopt;
}

int64_t bytes_of(Dtype dtype) { return dtype == Dtype::float64 ? 8 : dtype == Dtype::float32 ? 4 : 2; }

std::string place(const char* what, size_t index) { return std::string(what) + " " + std::to_string(index); }

// The names in a parameter's state of the tensors that a step writes.
enum StateName { kExpAvg, kExpAvgSq, kMax, kEma, kPacked16, kPacked12, kScale, kLow, kHigh, kParamLow };
constexpr std::array<const char*, 10> kStates = {"exp_avg",         "exp_avg_sq", "max_exp_avg_sq", "ema",
                                                 "packed16",        "packed12",   "exp_avg_scale",  "exp_avg_sq_low",
                                                 "exp_avg_sq_high", "param_low"};

// dict[key], borrowed; null where there is none. A third of PyDict_GetItem's time, which guards pending errors.
PyObject* item(PyObject* dict, PyObject* key) {
  PyObject* value = PyDict_GetItemWithError(dict, key);
  if (!value && PyErr_Occurred()) nb::raise_python_error();
  return value;
}

// What we call of torch. Never released: static objects would be, after the interpreter is gone.
struct Torch {
  nb::handle tensor, parameter, data_ptr, is_neg, grad;
  std::array<nb::handle, kStates.size()> keys;  // kStates as Python's strings
} torch;

nb::object call(nb::handle method, nb::handle tensor) {
  if (!method.is_valid()) throw std::runtime_error("call use_torch first");
  PyObject* argument = tensor.ptr();
  nb::object result = nb::steal(PyObject_Vectorcall(method.ptr(), &argument, 1, nullptr));
  if (!result.is_valid()) nb::raise_python_error();
  return result;
}

// Whether the tensor stands for the negative of what is in its memory, as the imaginary part of a conjugate does.
bool is_neg(nb::handle tensor) { return call(torch.is_neg, tensor).ptr() == Py_True; }

// Neither a subclass with a dispatch of its own nor a wrapper of other tensors.
bool plain(nb::handle tensor) {
  PyObject* type = reinterpret_cast<PyObject*>(Py_TYPE(tensor.ptr()));
  return type == torch.tensor.ptr() || type == torch.parameter.ptr();
}

// Fills `raw`; false for a tensor without dense memory: sparse, quantised, without storage.
bool exchanged(nb::handle tensor, DLTensor& raw) {
  if (exchange->dltensor_from_object(tensor.ptr(), &raw) == 0) return true;
  PyErr_Clear();
  return false;
}

void* start(const DLTensor& raw) { return static_cast<char*>(raw.data) + raw.byte_offset; }

// Where a tensor's elements begin; null where that cannot be told.
void* address(nb::handle tensor) {
  if (!exchange) return PyLong_AsVoidPtr(call(torch.data_ptr, tensor).ptr());
  DLTensor raw;
  return exchanged(tensor, raw) ? start(raw) : nullptr;
}

View read_by_exchange(nb::handle tensor, const char* what, size_t index) {
  DLTensor raw;
  if (!exchanged(tensor, raw)) {
    throw Mismatch(place(what, index) + " has no memory that can be read as a dense tensor");
  }
  if (raw.device.device_type != 1) throw Mismatch(place(what, index) + " is not on the CPU");
  View view;
  view.dtype = dtype_of(raw.dtype);
  view.item = raw.dtype.bits / 8;
  view.data = start(raw);
  view.ndim = raw.ndim;
  view.shape = raw.shape;
  view.strides = raw.strides;
  for (int d = 0; d < view.ndim; ++d) view.count *= view.shape[d];
  return view;
}

// The same through Python attributes, for a torch without an exchange table: slower, nothing else differs.
View read_attributes(nb::handle tensor, const char* what, size_t index) {
  const nb::object type = tensor.attr("device").attr("type"), dtype = tensor.attr("dtype");
  if (std::string(nb::str(type).c_str()) != "cpu") throw Mismatch(place(what, index) + " is not on the CPU");
  View view;
  const std::string name = nb::str(dtype).c_str();
  if (name == "torch.float32") view.dtype = Dtype::float32;
  if (name == "torch.float64") view.dtype = Dtype::float64;
  if (name == "torch.bfloat16") view.dtype = Dtype::bfloat16;
  if (name == "torch.float16") view.dtype = Dtype::float16;
  view.item = nb::cast<int64_t>(tensor.attr("element_size")());
  view.data = address(tensor);
  for (const char* numbers : {"size", "stride"}) {
    for (nb::handle number : nb::tuple(tensor.attr(numbers)())) view.owned.push_back(nb::cast<int64_t>(number));
  }
  view.ndim = static_cast<int>(view.owned.size() / 2);
  view.shape = view.owned.data();  // a vector's memory stays where it is when the view is moved
  view.strides = view.shape + view.ndim;
  for (int d = 0; d < view.ndim; ++d) view.count *= view.shape[d];
  return view;
}

View read_by_attributes(nb::handle tensor, const char* what, size_t index) {
  try {
    return read_attributes(tensor, what, index);
  } catch (nb::python_error&) {  // sparse, quantised, without storage
    throw Mismatch(place(what, index) + " has no memory that can be read as a dense tensor");
  }
}

View read(nb::handle tensor, const char* what, size_t index) {
  return exchange ? read_by_exchange(tensor, what, index) : read_by_attributes(tensor, what, index);
}

bool same_shape(const View& a, const View& b) {
  if (a.ndim != b.ndim) return false;
  for (int d = 0; d < a.ndim; ++d) {
    if (a.shape[d] != b.shape[d]) return false;
  }
  return true;
}

// Equal strides wherever a dimension has more than one element: element k of one then lies where element k of the other
// does, in any order of the dimensions.
bool same_order(const View& a, const View& b) {
  if (a.count == 0) return true;
  for (int d = 0; d < a.ndim; ++d) {
    if (a.shape[d] > 1 && a.strides[d] != b.strides[d]) return false;
  }
  return true;
}

// Whether the elements lie in the order of their indices, without gaps.
bool row_major(const View& view) {
  int64_t expected = 1;
  for (int d = view.ndim - 1; d >= 0; --d) {
    if (view.shape[d] != 1 && view.strides[d] != expected) return view.count == 0;
    expected *= view.shape[d];
  }
  return true;
}

// Whether the elements fill one block of memory, each exactly once, in some order of the dimensions.
bool dense(const View& view) {
  if (view.count == 0) return true;
  int64_t expected = 1;
  bool row_major = true;
  for (int d = view.ndim - 1; d >= 0 && row_major; --d) {
    if (view.shape[d] == 1) continue;
    row_major = view.strides[d] == expected;
    expected *= view.shape[d];
  }
  if (row_major) return true;
  expected = 1;
  while (expected < view.count) {  // the dimension whose stride is `expected` multiplies it; without one, not dense
    int64_t next = 0;
    for (int d = 0; d < view.ndim; ++d) {
      if (view.shape[d] > 1 && view.strides[d] == expected) next = expected * view.shape[d];
    }
    if (next == 0) return false;
    expected = next;
  }
  return true;
}

constexpr size_t kFactors = 12;  // of adamas.scalars.StepScalars; its flags follow

// An exponential moving average of memory `keep`, to which a new value adds `weight` = 1 - keep: see adamas.hpp.
template <class T>
Mean<T> mean_of(T keep, T weight) {
  const bool pulls = keep >= T(0.5);
  return {pulls ? T(1) : keep, pulls ? T(1) : T(0), weight};
}

template <class T>
Factors<T> factors(const nb::tuple& scalars) {
  std::array<T, kFactors> x;
  for (size_t i = 0; i < kFactors; ++i) x[i] = static_cast<T>(nb::cast<double>(scalars[i]));
  const auto [grad_factor, l2, beta1, beta1_complement, beta2, beta2_complement, step_size, eps, eps_root, decay,
              max_factor, average] = x;
  // eps > 0 keeps 0/0 away: it must not round to 0 in a narrower type.
  const bool vanishes = nb::cast<double>(scalars[7]) > 0 && eps < std::numeric_limits<T>::min();
  return {grad_factor,
          l2,
          beta2,
          beta2_complement,
          step_size,
          vanishes ? std::numeric_limits<T>::min() : eps,
          eps_root,
          decay,
          max_factor,
          mean_of(beta1, beta1_complement),
          mean_of(static_cast<T>(1 - nb::cast<double>(scalars[11])), average)};
}

// Addresses of a bucket's tensors. Holds no Python object: the caller keeps parameters, states and gradients alive from
// `take` to the end of `step`, and Python's garbage collector sees all references.
class Table {
 public:
  // `names` are those of the tensors kept of each parameter, in the kernels' order.
  Table(const std::vector<std::string>& names, const std::string& moments, int master_bits, bool stochastic)
      : storage_{Dtype::float32, moments_of(moments), master_bits, stochastic} {
    for (const std::string& name : names) {
      const auto at = std::find(kStates.begin(), kStates.end(), name);
      if (at == kStates.end()) throw std::invalid_argument("no state is called " + name);
      kept_.push_back(static_cast<StateName>(at - kStates.begin()));
    }
  }

  // Reads and checks every tensor of a step; nothing is written. Returns the indices of gradients that must be copied
  // into their parameter's layout before `step`.
  std::vector<size_t> take(nb::list params, nb::list states, nb::list grads) {
    ready_ = false;
    const size_t count = nb::len(params);
    if (nb::len(states) != count || nb::len(grads) != count) throw Mismatch("lists differ in length");
    rows_.resize(count);
    tensors_.resize(count);
    std::vector<size_t> copy;
    for (size_t i = 0; i < count; ++i) {
      if (!take_one(i, params[i], states[i], grads[i])) copy.push_back(i);
    }
    ready_ = copy.empty();
    return copy;
  }

  // The sum of squares of each gradient taken.
  std::vector<double> squares(int threads, const std::string& isa) const {
    if (!ready_) throw Mismatch("no gradients were taken for this step");
    if (!dtype_) return {};  // no gradient was ever taken
    const Isa& chosen = isa_named(isa);
    nb::gil_scoped_release released;
    return square_all(chosen.square[static_cast<int>(*dtype_)], tensors_, threads);
  }

  // Tensor i takes the step of scalars[which[i]], or of the only scalars where `which` is None.
  void step(nb::list scalars, std::optional<nb::list> which, bool zero_grad, int threads, const std::string& isa) {
    if (!ready_) throw Mismatch("no gradients were taken for this step");
    ready_ = false;
    if (!dtype_) return;
    std::vector<Step> steps;
    for (nb::handle each : scalars) steps.push_back(read_step(nb::cast<nb::tuple>(each), zero_grad));
    if (steps.empty() || (!which && steps.size() != 1)) throw Mismatch("several scalars need to know whose they are");
    if (which && nb::len(*which) != tensors_.size()) throw Mismatch("which and the tensors differ in number");
    for (size_t i = 0; i < tensors_.size(); ++i) {
      const auto index = which ? nb::cast<size_t>((*which)[i]) : size_t{0};
      if (index >= steps.size()) throw Mismatch("which names scalars that are not there");
      tensors_[i].step = static_cast<int32_t>(index);
    }
    const Isa& chosen = isa_named(isa);
    nb::gil_scoped_release released;
    run_all(storage_.plain() ? chosen.step[static_cast<int>(*dtype_)] : chosen.stored, steps, tensors_, threads);
  }

  // Moves the bytes of a step, for measuring what the memory allows.
  void touch(int threads, const std::string& isa) const {
    if (!ready_) throw Mismatch("no gradients were taken for this step");
    if (!storage_.plain()) throw Mismatch("touch is for float32 or wider moments and weights as they are");
    if (!dtype_) return;
    const Isa& chosen = isa_named(isa);
    nb::gil_scoped_release released;
    run_all(chosen.touch[static_cast<int>(*dtype_)], {Step{}}, tensors_, threads);
  }

 private:
  // The layout that a parameter had when its states were last checked against it.
  struct Row {
    std::vector<int64_t> layout;
    bool matches(const View& view) const {
      if (layout.size() != 2 * static_cast<size_t>(view.ndim)) return false;
      return std::equal(view.shape, view.shape + view.ndim, layout.begin()) &&
             std::equal(view.strides, view.strides + view.ndim, layout.begin() + view.ndim);
    }
    void keep(const View& view) {
      layout.assign(view.shape, view.shape + view.ndim);
      layout.insert(layout.end(), view.strides, view.strides + view.ndim);
    }
  };

  static Moments moments_of(const std::string& name) {
    if (name == "wide") return Moments::wide;
    if (name == "bfloat16") return Moments::bfloat16;
    if (name == "packed16") return Moments::packed16;
    if (name == "packed12") return Moments::packed12;
    throw std::invalid_argument("moments='" + name + "' have no native kernel");
  }

  static Key key_of(nb::handle key) { return {nb::cast<uint32_t>(key[0]), nb::cast<uint32_t>(key[1])}; }

  bool keeps(StateName name) const { return std::find(kept_.begin(), kept_.end(), name) != kept_.end(); }

  Step read_step(const nb::tuple& scalars, bool zero_grad) const {
    Step step{};
    step.storage = storage_;
    step.storage.dtype = *dtype_;
    if (!scalars[kFactors + 2].is_none()) {
      step.key = key_of(scalars[kFactors + 2]);
    } else if (storage_.stochastic || storage_.moments != Moments::wide) {
      throw Mismatch("random rounding needs a seed");
    }
    step.f32 = factors<float>(scalars);
    step.f64 = factors<double>(scalars);
    step.l2 = step.f64.l2 != 0;
    step.decoupled = step.f64.decay != 0;
    step.averages = step.f64.average.weight != 0;
    step.zero_grad = zero_grad;
    step.amsgrad = nb::cast<bool>(scalars[kFactors]);
    step.moves = nb::cast<bool>(scalars[kFactors + 1]);
    if (step.amsgrad != keeps(kMax)) throw Mismatch("max_exp_avg_sq is kept with amsgrad and only then");
    if (step.averages != keeps(kEma)) throw Mismatch("ema is kept with ema_decay and only then");
    return step;
  }

  // Whether the gradient can be used where it is.
  bool take_one(size_t i, nb::handle param_object, nb::handle state, nb::handle grad_object) {
    Tensor& tensor = tensors_[i];
    tensor.count = 0;
    tensor.grad = nullptr;
    tensor.step = 0;
    const bool absent = grad_object.is_none();
    if (absent && !keeps(kEma)) return true;  // without an average, nothing of this tensor is looked at
    const View param = read(param_object, "param", i);
    if (!dtype_) dtype_ = param.dtype;
    if (!dtype_) throw Mismatch(place("param", i) + " has a dtype without a native kernel");
    if (param.dtype != dtype_) throw Mismatch(place("param", i) + ": dtypes differ");
    if (param.data == nullptr && param.count > 0) throw Mismatch(place("param", i) + " has no memory");
    const bool known = tensor.param == param.data && rows_[i].matches(param);
    if (!known && !dense(param)) throw Mismatch(place("param", i) + " has gaps or overlaps in memory");
    if (!known && !storage_.plain() && !row_major(param)) throw Mismatch(place("param", i) + " is not row-major");
    for (const StateName name : kept_) {
      void*& kept = address_of(tensor, name);
      kept = state_address(name, i, state, param, known ? kept : nullptr);
    }
    // Only now, when every state has been checked against it, is this the parameter's known place and layout.
    if (!known) rows_[i].keep(param);
    tensor.param = param.data;
    tensor.count = param.count;
    if (!storage_.plain()) tensor.columns = row_of(param);
    if (absent) return true;
    const View grad = read(grad_object, "grad", i);
    if (!plain(grad_object)) throw Mismatch(place("grad", i) + " is a tensor subclass");
    if (grad.dtype != dtype_) throw Mismatch(place("grad", i) + ": dtypes differ");
    if (!same_shape(grad, param)) throw Mismatch(place("grad", i) + " has another shape than its parameter");
    tensor.grad = grad.data;
    return same_order(grad, param) && !is_neg(grad_object) && (grad.data != nullptr || grad.count == 0);
  }

  // Where a tensor of this name is kept; floats' addresses are of the same size and are only carried.
  static void*& address_of(Tensor& tensor, StateName name) {
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
        return tensor.exp_avg;  // itself, or the words in its place
    }
  }

  // Elements in which blocks follow each other without beginning anew.
  int64_t row_of(const View& param) const {
    const bool in_rows = storage_.moments == Moments::packed16 || storage_.moments == Moments::packed12;
    if (!in_rows || param.ndim == 0 || param.shape[0] == 0) return std::max<int64_t>(param.count, 1);
    return std::max<int64_t>(param.count / param.shape[0], 1);
  }

  // The bytes of a part that is stored in rows; 0 for what is laid out as the parameter.
  int64_t bytes_of_part(StateName name, const View& param) const {
    const int64_t columns = row_of(param), rows = param.count / columns;
    switch (name) {
      case kPacked16:
        return 2 * param.count;
      case kPacked12:
        return rows * (columns + columns / 256 * 128 + (columns % 256 + 1) / 2);
      case kScale:
      case kLow:
      case kHigh:
        return rows * ((columns + 255) / 256) * static_cast<int64_t>(sizeof(float));
      case kParamLow:
        return param.count * (storage_.master_bits == 24 ? 1 : 2);
      default:
        return 0;
    }
  }

  // The address of a state's tensor: `known` if it is still there, else after checking that it fits the parameter.
  void* state_address(StateName name, size_t i, nb::handle state, const View& param, void* known) {
    const char* what = kStates[name];
    const nb::handle tensor = item(state.ptr(), torch.keys[name].ptr());
    if (!tensor.is_valid()) throw Mismatch(place(what, i) + " is missing");
    if (known && address(tensor) == known) return known;
    const View view = read(tensor, what, i);
    if (view.data == nullptr && view.count > 0) throw Mismatch(place(what, i) + " has no memory");
    if (name >= kPacked16) {
      const bool even = reinterpret_cast<uintptr_t>(view.data) % 2 == 0;  // words of 16 bits are read as such
      if (view.count * view.item != bytes_of_part(name, param) || !row_major(view) || !even) {
        throw Mismatch(place(what, i) + " does not fit its parameter");
      }
      return view.data;
    }
    const bool brief = storage_.moments == Moments::bfloat16 && (name == kExpAvg || name == kExpAvgSq);
    const Dtype wanted = brief ? Dtype::bfloat16 : *dtype_ == Dtype::float64 ? Dtype::float64 : Dtype::float32;
    if (view.dtype != wanted) throw Mismatch(place(what, i) + " has another dtype than its storage's");
    if (!same_shape(view, param)) throw Mismatch(place(what, i) + " has another shape than its parameter");
    if (!same_order(view, param)) throw Mismatch(place(what, i) + " is laid out otherwise than its parameter");
    return view.data;
  }

  std::vector<Tensor> tensors_;
  std::vector<Row> rows_;
  std::optional<Dtype> dtype_;
  Storage storage_;
  std::vector<StateName> kept_;  // which of the states there are
  bool ready_ = false;
};

// torch is taken apart once: `tensor` and `parameter` are its classes, `capsule` its exchange table or None.
void use_torch(nb::handle tensor, nb::handle parameter, std::optional<nb::capsule> capsule) {
  torch = {tensor.inc_ref(),
           parameter.inc_ref(),
           nb::getattr(tensor, "data_ptr").release(),
           nb::getattr(tensor, "is_neg").release(),
           PyUnicode_InternFromString("grad"),
           {}};
  for (size_t k = 0; k < kStates.size(); ++k) torch.keys[k] = PyUnicode_InternFromString(kStates[k]);
  exchange = nullptr;
  if (!capsule) return;
  const auto* table = static_cast<const DLPackExchange*>(PyCapsule_GetPointer(capsule->ptr(), "dlpack_exchange_api"));
  if (!table) nb::raise_python_error();
  if (table->header.version.major == 1 && table->dltensor_from_object) exchange = table;
}

// Whether `a[i] is b[i]` for all i.
bool same_objects(nb::list a, nb::list b) {
  const size_t count = nb::len(a);
  if (nb::len(b) != count) return false;
  for (size_t i = 0; i < count; ++i) {
    if (nb::handle(a[i]).ptr() != nb::handle(b[i]).ptr()) return false;
  }
  return true;
}

// [tensor.grad for tensor in tensors]
nb::list grads_of(nb::list tensors) {
  nb::list grads;
  for (nb::handle tensor : tensors) grads.append(nb::getattr(tensor, torch.grad));
  return grads;
}

// The indices of those that are None.
std::vector<size_t> absent(nb::list objects) {
  std::vector<size_t> found;
  for (size_t i = 0; i < nb::len(objects); ++i) {
    if (nb::handle(objects[i]).is_none()) found.push_back(i);
  }
  return found;
}

// Whether no two of the tensors, of which some may be None, share memory; false where that cannot be told.
bool disjoint(nb::list tensors) {
  std::vector<std::pair<const char*, const char*>> spans;
  for (nb::handle tensor : tensors) {
    if (tensor.is_none()) continue;
    try {
      const View view = read(tensor, "tensor", spans.size());
      if (!view.dtype) return false;
      if (view.count == 0) continue;
      int64_t last = 0;
      for (int d = 0; d < view.ndim; ++d) last += (view.shape[d] - 1) * view.strides[d];
      const char* begin = static_cast<const char*>(view.data);
      spans.emplace_back(begin, begin + (last + 1) * bytes_of(*view.dtype));
    } catch (const Mismatch&) {  // not on the CPU
      return false;
    }
  }
  std::sort(spans.begin(), spans.end());
  for (size_t i = 1; i < spans.size(); ++i) {
    if (spans[i].first < spans[i - 1].second) return false;
  }
  return true;
}

// Whether `dicts[i][key] is values[i]` for all i.
bool items_are(nb::list dicts, nb::str key, nb::list values) {
  const size_t count = nb::len(dicts);
  if (nb::len(values) != count) return false;
  for (size_t i = 0; i < count; ++i) {
    if (item(dicts[i].ptr(), key.ptr()) != nb::handle(values[i]).ptr()) return false;
  }
  return true;
}

std::vector<std::string> isas() {
  std::vector<std::string> names;
  for (const Isa* isa : usable_isas()) names.emplace_back(isa->name);
  return names;
}

}  // namespace

NB_MODULE(_native, m) {
  nb::set_leak_warnings(false);  // an interpreter that ends with a traceback at hand still holds an optimizer
  m.doc() = "The native kernel: see adamas.kernels.native.";
  nb::exception<Mismatch>(m, "Mismatch", PyExc_ValueError);
  m.def("isas", &isas, "Instruction sets this processor can run, best first.");
  m.def("use_torch", &use_torch, nb::arg("tensor"), nb::arg("parameter"), nb::arg("exchange").none(),
        "Name torch's classes and the table by which to read tensors; without one they are read by attributes.");
  m.def("same_objects", &same_objects, nb::arg("a"), nb::arg("b"), "Whether a[i] is b[i] for all i.");
  m.def("grads_of", &grads_of, nb::arg("tensors"), "[tensor.grad for tensor in tensors]");
  m.def("absent", &absent, nb::arg("objects"), "The indices of those that are None.");
  m.def("disjoint", &disjoint, nb::arg("tensors"), "Whether no two of the tensors share memory.");
  m.def("items_are", &items_are, nb::arg("dicts"), nb::arg("key"), nb::arg("values"),
        "Whether dicts[i][key] is values[i] for all i.");
  nb::class_<Table>(m, "Table", "Addresses of the tensors of one bucket.")
      .def(nb::init<const std::vector<std::string>&, const std::string&, int, bool>(), nb::arg("names"),
           nb::arg("moments") = "wide", nb::arg("master_bits") = 0, nb::arg("stochastic") = false)
      .def(
          "take", &Table::take, nb::arg("params"), nb::arg("states"), nb::arg("grads"),
          "Check every tensor of a step; returns indices of gradients that must be copied to their parameter's layout.")
      .def("squares", &Table::squares, nb::arg("threads"), nb::arg("isa") = "", "Each gradient's sum of squares.")
      .def("step", &Table::step, nb::arg("scalars"), nb::arg("which").none(), nb::arg("zero_grad"), nb::arg("threads"),
           nb::arg("isa") = "",
           "Apply adamas.scalars.StepScalars, tuples, to every tensor: scalars[which[i]] to tensor i.")
      .def("touch", &Table::touch, nb::arg("threads"), nb::arg("isa") = "",
           "Read and write what a step would, and change nothing: a measure of the memory.");
}
