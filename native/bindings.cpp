// Python's view of the native kernel: `Table` turns lists of tensors into pointers, checking everything before anything
// is written, and steps them. See src/adamas/kernels/native.py for the side that calls it.

#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <array>
#include <limits>
#include <optional>
#include <stdexcept>
#include <string>
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

std::string place(const char* what, size_t index) { return std::string(what) + " " + std::to_string(index); }

// torch.Tensor.data_ptr: a third of the time of a full read, for tensors whose layout is known.
// Never released: a static object would be, after the interpreter is gone.
nb::handle data_ptr;

void* address(nb::handle tensor) {
  if (!data_ptr.is_valid()) throw std::runtime_error("call use_torch first");
  PyObject* argument = tensor.ptr();
  const nb::object number = nb::steal(PyObject_Vectorcall(data_ptr.ptr(), &argument, 1, nullptr));
  if (!number.is_valid()) nb::raise_python_error();
  return PyLong_AsVoidPtr(number.ptr());
}

View read_by_exchange(nb::handle tensor, const char* what, size_t index) {
  DLTensor raw;
  if (exchange->dltensor_from_object(tensor.ptr(), &raw) != 0) {
    PyErr_Clear();  // sparse, quantised, without storage
    throw Mismatch(place(what, index) + " has no memory that can be read as a dense tensor");
  }
  if (raw.device.device_type != 1) throw Mismatch(place(what, index) + " is not on the CPU");
  View view;
  view.dtype = dtype_of(raw.dtype);
  view.data = static_cast<char*>(raw.data) + raw.byte_offset;
  view.ndim = raw.ndim;
  view.shape = raw.shape;
  view.strides = raw.strides;
  for (int d = 0; d < view.ndim; ++d) view.count *= view.shape[d];
  return view;
}

// The same through Python attributes, for a torch without an exchange table: slower, nothing else differs.
View read_by_attributes(nb::handle tensor, const char* what, size_t index) {
  const nb::object type = tensor.attr("device").attr("type"), dtype = tensor.attr("dtype");
  if (std::string(nb::str(type).c_str()) != "cpu") throw Mismatch(place(what, index) + " is not on the CPU");
  View view;
  const std::string name = nb::str(dtype).c_str();
  if (name == "torch.float32") view.dtype = Dtype::float32;
  if (name == "torch.float64") view.dtype = Dtype::float64;
  if (name == "torch.bfloat16") view.dtype = Dtype::bfloat16;
  if (name == "torch.float16") view.dtype = Dtype::float16;
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

View read(nb::handle tensor, const char* what, size_t index) {
  if (tensor.is_none()) throw Mismatch(place(what, index) + " is missing");
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

template <class T>
Average<T> average(double complement) {
  const double beta = 1 - complement;
  return complement < 0.5 ? Average<T>{T(1), T(complement), T(1)} : Average<T>{T(beta), T(complement), T(0)};
}

template <class T>
Factors<T> factors(const nb::tuple& scalars) {
  std::array<double, 9> x;
  for (size_t i = 0; i < x.size(); ++i) x[i] = nb::cast<double>(scalars[i]);
  Factors<T> f{T(x[0]), T(x[1]), average<T>(x[2]), average<T>(x[3]), T(x[4]), T(x[5]), T(x[6]), T(x[7]), T(x[8])};
  // eps > 0 keeps 0/0 away: it must not round to 0 in a narrower type.
  constexpr T smallest = std::numeric_limits<T>::min();
  if (x[5] > 0 && f.eps < smallest) f.eps = smallest;
  return f;
}

class Table {
 public:
  Table(nb::list params, nb::list exp_avgs, nb::list exp_avg_sqs, nb::list max_exp_avg_sqs)
      : params_(params), moments_{exp_avgs, exp_avg_sqs, max_exp_avg_sqs} {
    amsgrad_ = nb::len(max_exp_avg_sqs) > 0;
    tensors_.resize(nb::len(params));
    for (const nb::list& list : moments_) {
      const size_t wanted = &list == &moments_[2] && !amsgrad_ ? 0 : tensors_.size();
      if (nb::len(list) != wanted) throw Mismatch("lists differ in length");
    }
  }

  // Takes this step's gradients and checks every tensor; nothing is written. Returns the indices of gradients laid out
  // otherwise than their parameter, which must be copied before `step`.
  std::vector<size_t> take(nb::list grads) {
    ready_ = false;
    if (nb::len(grads) != tensors_.size()) throw Mismatch("lists differ in length");
    std::vector<size_t> relayout;
    for (size_t i = 0; i < tensors_.size(); ++i) {
      const View param = read(params_[i], "param", i), grad = read(grads[i], "grad", i);
      if (!dtype_) dtype_ = param.dtype;
      if (!dtype_) throw Mismatch(place("param", i) + " has a dtype without a native kernel");
      if (param.dtype != dtype_ || grad.dtype != dtype_) throw Mismatch(place("grad", i) + ": dtypes differ");
      if (!dense(param)) throw Mismatch(place("param", i) + " has gaps or overlaps in memory");
      if (!same_shape(grad, param)) throw Mismatch(place("grad", i) + " has another shape than its parameter");
      if (!same_order(grad, param)) relayout.push_back(i);
      Tensor& tensor = tensors_[i];
      const bool known = tensor.param == param.data && tensor.count == param.count;
      tensor.param = param.data;
      tensor.grad = grad.data;
      tensor.count = param.count;
      tensor.exp_avg = moment(0, "exp_avg", i, param, known ? tensor.exp_avg : nullptr);
      tensor.exp_avg_sq = moment(1, "exp_avg_sq", i, param, known ? tensor.exp_avg_sq : nullptr);
      if (amsgrad_) {
        tensor.max_exp_avg_sq = moment(2, "max_exp_avg_sq", i, param, known ? tensor.max_exp_avg_sq : nullptr);
      }
    }
    grads_ = grads;
    ready_ = relayout.empty();
    return relayout;
  }

  void step(const nb::tuple& scalars, int threads, const std::string& isa) {
    if (!ready_) throw Mismatch("no gradients were taken for this step");
    ready_ = false;
    const nb::object grads = std::move(grads_);  // held until the step is done, released after it
    if (tensors_.empty()) return;
    Step step;
    step.f32 = factors<float>(scalars);
    step.f64 = factors<double>(scalars);
    step.l2 = step.f64.l2 != 0;
    step.decoupled = step.f64.decay != 0;
    step.amsgrad = nb::cast<bool>(scalars[9]);
    step.moves = nb::cast<bool>(scalars[10]);
    if (step.amsgrad != amsgrad_) throw Mismatch("max_exp_avg_sqs are kept with amsgrad and only then");
    const Isa& chosen = isa_named(isa);
    nb::gil_scoped_release released;
    step_all(chosen, *dtype_, step, tensors_, threads);
  }

 private:
  // The address of a moment: `known` if it is still there, else after checking that it fits the parameter.
  void* moment(size_t list, const char* what, size_t i, const View& param, void* known) {
    const nb::handle tensor = moments_[list][i];
    if (known && address(tensor) == known) return known;
    const View view = read(tensor, what, i);
    const Dtype wanted = *dtype_ == Dtype::float64 ? Dtype::float64 : Dtype::float32;
    if (view.dtype != wanted) throw Mismatch(place(what, i) + " has another dtype than float32 (float64)");
    if (!same_shape(view, param)) throw Mismatch(place(what, i) + " has another shape than its parameter");
    if (!same_order(view, param)) throw Mismatch(place(what, i) + " is laid out otherwise than its parameter");
    return view.data;
  }

  // Keep the tensors alive, whatever other threads drop while the GIL is released.
  nb::list params_;
  std::array<nb::list, 3> moments_;
  nb::object grads_;
  std::vector<Tensor> tensors_;
  std::optional<Dtype> dtype_;
  bool amsgrad_ = false, ready_ = false;
};

void use_torch(nb::object data_ptr_method, std::optional<nb::capsule> capsule) {
  data_ptr = data_ptr_method.inc_ref();
  exchange = nullptr;
  if (!capsule) return;
  const auto* table = static_cast<const DLPackExchange*>(PyCapsule_GetPointer(capsule->ptr(), "dlpack_exchange_api"));
  if (!table) nb::raise_python_error();
  if (table->header.version.major == 1 && table->dltensor_from_object) exchange = table;
}

// Whether `dicts[i][key] is values[i]` for all i.
bool items_are(nb::list dicts, nb::str key, nb::list values) {
  const size_t count = nb::len(dicts);
  if (nb::len(values) != count) return false;
  for (size_t i = 0; i < count; ++i) {
    if (PyDict_GetItem(dicts[i].ptr(), key.ptr()) != nb::handle(values[i]).ptr()) return false;
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
  m.doc() = "The native kernel: see adamas.kernels.native.";
  nb::exception<Mismatch>(m, "Mismatch", PyExc_ValueError);
  m.def("isas", &isas, "Instruction sets this processor can run, best first.");
  m.def("use_torch", &use_torch, nb::arg("data_ptr"), nb::arg("exchange").none(),
        "Read tensors by torch.Tensor.data_ptr and __dlpack_c_exchange_api__, or by attributes if that is None.");
  m.def("items_are", &items_are, nb::arg("dicts"), nb::arg("key"), nb::arg("values"),
        "Whether dicts[i][key] is values[i] for all i.");
  nb::class_<Table>(m, "Table", "The tensors of one bucket.")
      .def(nb::init<nb::list, nb::list, nb::list, nb::list>(), nb::arg("params"), nb::arg("exp_avgs"),
           nb::arg("exp_avg_sqs"), nb::arg("max_exp_avg_sqs"))
      .def("take", &Table::take, nb::arg("grads"),
           "Check every tensor of a step; returns indices of gradients that must be laid out as their parameter.")
      .def("step", &Table::step, nb::arg("scalars"), nb::arg("threads"), nb::arg("isa") = "",
           "Apply adamas.scalars.StepScalars, a tuple, to every tensor.");
}
