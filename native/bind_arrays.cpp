// The native kernel for arrays that have Python's buffer protocol, as NumPy's have. It checks everything at every step
// and before it writes anything. src/adamas/kernels/arrays.py calls it.

#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>
#include <omp.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "read_scalars.hpp"
#include "states.hpp"
#include "table.hpp"

namespace {

// A view of an object's memory that keeps this memory alive and in place.
class Buffer {
 public:
  Buffer(nb::handle object, const std::string& what) {
    if (PyObject_GetBuffer(object.ptr(), &raw_, PyBUF_STRIDED_RO | PyBUF_FORMAT) == 0) return;
    PyErr_Clear();
    raw_ = Py_buffer{};
    throw Mismatch(what + " has no memory that can be read as an array");
  }
  ~Buffer() {
    if (raw_.obj) PyBuffer_Release(&raw_);
  }
  Buffer(const Buffer&) = delete;

  bool writable() const { return !raw_.readonly; }

  // NumPy has no format for bfloat16: numbers of 16 bits without a sign stand for its patterns.
  View view(const std::string& what) const {
    View view;
    const std::string format = raw_.format ? raw_.format : "B";
    const auto bits = static_cast<uint8_t>(8 * raw_.itemsize);
    if (format == "f" || format == "d" || format == "e") view.type = {kFloatCode, bits, 1};
    if (format == "H") view.type = {kBfloatCode, bits, 1};
    if (format == "b") view.type = {kSignedCode, bits, 1};
    if (format == "B") view.type = {kUnsignedCode, bits, 1};
    view.data = raw_.buf;
    view.ndim = raw_.ndim;
    const auto ndim = static_cast<size_t>(raw_.ndim);
    view.owned = std::make_unique<int64_t[]>(2 * ndim);
    for (size_t d = 0; d < ndim; ++d) {
      view.owned[d] = raw_.shape[d];
      view.owned[ndim + d] = raw_.strides[d] / raw_.itemsize;
      if (raw_.strides[d] % raw_.itemsize && raw_.shape[d] > 1) throw Mismatch(what + " has misaligned elements");
      view.count *= raw_.shape[d];
    }
    view.shape = view.owned.get();
    view.strides = view.shape + ndim;
    if (reinterpret_cast<uintptr_t>(view.data) % static_cast<size_t>(raw_.itemsize) && view.count)
      throw Mismatch(what + " begins at a misaligned address");
    return view;
  }

 private:
  Py_buffer raw_ = {};
};

// The arrays of one step, all of one dtype and one storage; holds their memory from `take` to the end of `step`.
class Arrays {
 public:
  Arrays(const std::vector<std::string>& names, const std::string& moments, int master_bits, bool stochastic)
      : storage_{Dtype::float32, named<Moments>(kMoments, moments), master_bits, stochastic} {
    for (const std::string& name : names) kept_.push_back(named<StateName>(kStates, name));
  }

  Arrays(const Arrays&) = delete;

  // Reads and checks every array, and writes nothing. `states` holds for each parameter a list of its arrays, in the
  // order of the names.
  void take(nb::list params, nb::list grads, nb::list states) {
    release();
    const size_t count = nb::len(params);
    if (nb::len(grads) != count || nb::len(states) != count) throw Mismatch("lists differ in length");
    try {
      for (size_t i = 0; i < count; ++i) take_one(i, params[i], grads[i], nb::cast<nb::list>(states[i]));
      std::sort(written_.begin(), written_.end());
      const char* reach = nullptr;
      for (Span& span : written_) span.reach = reach = std::max(reach, span.end);
    } catch (...) {
      release();
      throw;
    }
  }

  // The indices of gradients that share memory with arrays that `other` writes, which may be this. A gradient that is
  // exactly its own parameter is read before it is written, and is left out.
  std::vector<size_t> aliased(const Arrays& other) const {
    std::vector<size_t> found;
    for (size_t i = 0; i < grads_.size(); ++i) {
      auto at = std::upper_bound(other.written_.begin(), other.written_.end(), grads_[i].end);
      for (; at != other.written_.begin(); --at) {
        const Span& span = *(at - 1);
        if (span.end <= grads_[i].begin || span.begin >= grads_[i].end) {
          if (span.reach <= grads_[i].begin) break;  // nothing before it reaches this far
          continue;
        }
        if (&other == this && span.begin == tensors_[i].param && grads_[i].begin == span.begin) continue;
        found.push_back(i);
        break;
      }
    }
    return found;
  }

  void release() {
    tensors_.clear();
    held_.clear();
    grads_.clear();
    written_.clear();
  }

  std::vector<double> squares(const std::string& isa) const {
    const Isa& chosen = isa_named(isa);
    nb::gil_scoped_release released;
    return square_all(chosen.square[static_cast<int>(storage_.dtype)], tensors_, omp_get_max_threads());
  }

  void step(const nb::tuple& scalars, const std::string& isa) {
    const bool random = storage_.stochastic || storage_.moments != Moments::wide;
    const std::vector<Step> steps = {step_of(read_scalars(scalars, random), storage_, false)};
    if (steps[0].amsgrad != keeps(kMax) || steps[0].averages != keeps(kEma))
      throw Mismatch("max_exp_avg_sq is kept with amsgrad, and ema with ema_decay, and only then");
    const Isa& chosen = isa_named(isa);
    {
      nb::gil_scoped_release released;
      const StepRange range = storage_.plain() ? chosen.step[static_cast<int>(storage_.dtype)] : chosen.stored;
      run_all(range, steps, tensors_, omp_get_max_threads());
    }
    release();
  }

 private:
  // The memory of an array; `reach` is the largest end of all spans up to this one.
  struct Span {
    const char *begin, *end, *reach;
    bool operator<(const Span& other) const { return begin < other.begin; }
    friend bool operator<(const char* at, const Span& span) { return at < span.begin; }
  };

  static Span span_of(const View& view) {
    const auto* begin = static_cast<const char*>(view.data);
    return {begin, begin + view.span() * view.item(), nullptr};
  }

  bool keeps(StateName name) const { return std::find(kept_.begin(), kept_.end(), name) != kept_.end(); }

  View hold(nb::handle object, const char* what, size_t i, bool written) {
    held_.push_back(std::make_unique<Buffer>(object, place(what, i)));
    if (written && !held_.back()->writable()) throw Mismatch(place(what, i) + " is read-only");
    return held_.back()->view(place(what, i));
  }

  void take_one(size_t i, nb::handle param_object, nb::handle grad_object, const nb::list& state) {
    Tensor tensor{};
    const View param = hold(param_object, "param", i, true);
    const std::optional<Dtype> dtype = dtype_of(param.type);
    if (!dtype) throw Mismatch(place("param", i) + " has a dtype without a native kernel");
    if (i > 0 && *dtype != storage_.dtype) throw Mismatch(place("param", i) + ": dtypes differ");
    if (!dense(param)) throw Mismatch(place("param", i) + " has gaps or overlaps in memory");
    if (!storage_.plain() && !row_major(param)) throw Mismatch(place("param", i) + " is not row-major");
    storage_.dtype = *dtype;
    tensor.param = param.data;
    tensor.count = param.count;
    if (!storage_.plain()) tensor.columns = row_length(storage_, param);
    const View grad = hold(grad_object, "grad", i, false);
    if (dtype_of(grad.type) != dtype) throw Mismatch(place("grad", i) + ": dtypes differ");
    if (!same_shape(grad, param)) throw Mismatch(place("grad", i) + " has another shape than its parameter");
    if (!same_order(grad, param)) throw Mismatch(place("grad", i) + " is laid out otherwise than its parameter");
    tensor.grad = grad.data;
    grads_.push_back(span_of(grad));
    written_.push_back(span_of(param));
    if (nb::len(state) != kept_.size()) throw Mismatch(place("state", i) + " has another number of arrays than names");
    for (size_t k = 0; k < kept_.size(); ++k) {
      const View view = hold(state[k], kStates[kept_[k]], i, true);
      if (const char* problem = state_problem(kept_[k], storage_, param, view))
        throw Mismatch(place(kStates[kept_[k]], i) + problem);
      tensor.*kAddresses[kept_[k]] = view.data;
      written_.push_back(span_of(view));
    }
    tensors_.push_back(tensor);
  }

  std::vector<Tensor> tensors_;
  std::vector<std::unique_ptr<Buffer>> held_;
  std::vector<Span> grads_, written_;  // the latter in the order of addresses
  Storage storage_;
  std::vector<StateName> kept_;
};

}  // namespace

void bind_arrays(nb::module_& m) {
  nb::class_<Arrays>(m, "Arrays", "The arrays of one step, all of one dtype and one storage.")
      .def(nb::init<const std::vector<std::string>&, const std::string&, int, bool>(), nb::arg("names"),
           nb::arg("moments") = "wide", nb::arg("master_bits") = 0, nb::arg("stochastic") = false)
      .def("take", &Arrays::take, nb::arg("params"), nb::arg("grads"), nb::arg("states"),
           "Check every array of a step, and hold their memory.")
      .def("aliased", &Arrays::aliased, nb::arg("other"),
           "Return the indices of gradients that share memory with arrays that `other` writes.")
      .def("release", &Arrays::release, "Drop the arrays without a step.")
      .def("squares", &Arrays::squares, nb::arg("isa") = "", "Return each gradient's sum of squares.")
      .def("step", &Arrays::step, nb::arg("scalars"), nb::arg("isa") = "",
           "Step the arrays with an adamas.scalars.StepScalars, and drop them.");
}
