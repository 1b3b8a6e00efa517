// Reads torch's tensors: their address and layout, and whether they are ordinary tensors. Needs the GIL.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>

#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "exchange.hpp"
#include "layout.hpp"
#include "states.hpp"

namespace nb = nanobind;

namespace {

// The parts of torch that we call. Handles, which are never released: static objects would be released after the
// interpreter is gone.
struct Torch {
  nb::handle tensor, parameter, data_ptr, is_neg, grad_name, grad, step;
  descrgetfunc get_grad = nullptr;              // reads `grad` of an ordinary tensor without a look-up in its type
  PyCFunction call_is_neg = nullptr;            // the function behind `is_neg`, if Python gives access to it
  std::array<nb::handle, kStates.size()> keys;  // kStates as Python's strings
  const DLPackExchange* exchange = nullptr;     // torch's table of functions, if it has one (2.10 and later)
} torch;

nb::object checked(PyObject* result) {
  if (!result) nb::raise_python_error();
  return nb::steal(result);
}

// Returns dict[key], never null. PyDict_GetItem takes three times as long, since it guards pending errors.
nb::object item(nb::handle dict, nb::handle key, const char* what, size_t index) {
  PyObject* value = PyDict_GetItemWithError(dict.ptr(), key.ptr());
  if (!value && PyErr_Occurred()) nb::raise_python_error();
  if (!value) throw Mismatch(place(what, index) + " is missing");
  return nb::borrow(value);
}

// Returns list[index], with a check of the bounds: other threads may have made the list shorter.
nb::object item(nb::handle list, size_t index) {
  PyObject* value = PyList_GetItem(list.ptr(), static_cast<Py_ssize_t>(index));
  if (!value) nb::raise_python_error();
  return nb::borrow(value);
}

nb::object call(nb::handle method, nb::handle tensor) {
  if (!method.is_valid()) throw std::runtime_error("call use_torch first");
  PyObject* argument = tensor.ptr();
  return checked(PyObject_Vectorcall(method.ptr(), &argument, 1, nullptr));
}

// Whether this is neither a subclass with its own dispatch nor a wrapper of other tensors.
bool plain(nb::handle tensor) {
  PyObject* type = reinterpret_cast<PyObject*>(Py_TYPE(tensor.ptr()));
  return type == torch.tensor.ptr() || type == torch.parameter.ptr();
}

// Whether the tensor is the lazy negative of the numbers in its memory, as the imaginary part of a conjugate is. Any
// gradient may be one, in any layout, and nothing else tells it: so each is asked, which takes 0.2 us.
bool is_neg(nb::handle tensor) {
  if (!torch.call_is_neg) return call(torch.is_neg, tensor).ptr() == Py_True;
  return checked(torch.call_is_neg(tensor.ptr(), nullptr)).ptr() == Py_True;
}

nb::object grad_of(nb::handle tensor) {
  if (!torch.get_grad || !plain(tensor)) return checked(PyObject_GetAttr(tensor.ptr(), torch.grad_name.ptr()));
  return checked(torch.get_grad(torch.grad.ptr(), tensor.ptr(), reinterpret_cast<PyObject*>(Py_TYPE(tensor.ptr()))));
}

// The minimal time of a small step (AMD EPYC, torch 2.13) is that of reading tensors. A tensor to which C++ holds no
// reference, as parameters between backward passes and states, takes .2 us: torch takes and drops a reference and the
// GIL twice. A gradient, to which its parameter holds a reference, takes .1 us, and .2 to .25 us for is_neg, which
// releases the GIL. 48 parameters with two moments and a count take 60 us.
View read_by_exchange(nb::handle tensor, const char* what, size_t index) {
  DLTensor raw;
  if (torch.exchange->dltensor_from_object(tensor.ptr(), &raw) != 0) {  // sparse, quantised, without storage
    if (PyErr_Occurred() && !PyErr_ExceptionMatches(PyExc_Exception)) nb::raise_python_error();
    PyErr_Clear();
    throw Mismatch(place(what, index) + " has no memory that can be read as a dense tensor");
  }
  if (raw.device.device_type != 1) throw Mismatch(place(what, index) + " is not on the CPU");
  View view;
  view.type = {raw.dtype.code, raw.dtype.bits, raw.dtype.lanes};
  view.data = static_cast<char*>(raw.data) + raw.byte_offset;
  view.ndim = raw.ndim;
  view.shape = raw.shape;
  view.strides = raw.strides;
  for (int d = 0; d < view.ndim; ++d) view.count *= view.shape[d];
  return view;
}

ElementType type_called(const std::string& name, int64_t item) {
  if (name == "torch.float32") return {kFloatCode, 32, 1};
  if (name == "torch.float64") return {kFloatCode, 64, 1};
  if (name == "torch.float16") return {kFloatCode, 16, 1};
  if (name == "torch.bfloat16") return {kBfloatCode, 16, 1};
  if (name == "torch.uint8" || name == "torch.uint16") return {kUnsignedCode, static_cast<uint8_t>(8 * item), 1};
  if (name == "torch.int8" || name == "torch.int16") return {kSignedCode, static_cast<uint8_t>(8 * item), 1};
  return {kOtherCode, static_cast<uint8_t>(8 * item), 1};
}

// Reads the same through Python attributes, for a torch without the table of functions; this is slower.
View read_by_attributes(nb::handle tensor, const char* what, size_t index) {
  try {
    const nb::object device = tensor.attr("device").attr("type"), dtype = tensor.attr("dtype");
    if (std::string(nb::str(device).c_str()) != "cpu") throw Mismatch(place(what, index) + " is not on the CPU");
    View view;
    view.type = type_called(nb::str(dtype).c_str(), nb::cast<int64_t>(tensor.attr("element_size")()));
    view.data = PyLong_AsVoidPtr(call(torch.data_ptr, tensor).ptr());
    const nb::tuple shape = nb::tuple(tensor.attr("size")()), strides = nb::tuple(tensor.attr("stride")());
    const size_t ndim = nb::len(shape);
    view.owned = std::make_unique<int64_t[]>(2 * ndim);
    for (size_t d = 0; d < ndim; ++d) {
      view.owned[d] = nb::cast<int64_t>(shape[d]);
      view.owned[ndim + d] = nb::cast<int64_t>(strides[d]);
    }
    view.ndim = static_cast<int>(ndim);
    view.shape = view.owned.get();  // the memory stays in place when the view is moved
    view.strides = view.shape + ndim;
    for (int d = 0; d < view.ndim; ++d) view.count *= view.shape[d];
    return view;
  } catch (nb::python_error& error) {            // sparse, quantised, without storage
    if (!error.matches(PyExc_Exception)) throw;  // a signal's handler may have run in between: KeyboardInterrupt
    throw Mismatch(place(what, index) + " has no memory that can be read as a dense tensor");
  }
}

View read(nb::handle tensor, const char* what, size_t index) {
  return torch.exchange ? read_by_exchange(tensor, what, index) : read_by_attributes(tensor, what, index);
}

// Raises unless the tensor is an ordinary one with all elements inside its storage. Slow: only for tensors that are not
// known from an earlier step.
void check_memory(nb::handle tensor, const View& view, const char* what, size_t index) {
  if (!plain(tensor)) throw Mismatch(place(what, index) + " is a tensor subclass");
  if (is_neg(tensor)) throw Mismatch(place(what, index) + " is a lazily negated view");
  if (view.count == 0) return;
  if (view.data == nullptr) throw Mismatch(place(what, index) + " has no memory");
  const auto offset = nb::cast<int64_t>(tensor.attr("storage_offset")());
  const auto bytes = nb::cast<int64_t>(tensor.attr("untyped_storage")().attr("nbytes")());
  if ((offset + view.span()) * view.item() > bytes) throw Mismatch(place(what, index) + " is longer than its storage");
}

// A tensor that passed every check, with its memory and layout at that time. A weak reference distinguishes the object
// from a later one at its address, and does not keep a state alive that the user moved elsewhere. For parameters it is
// a strong reference: torch.utils.swap_tensors, which torch.nn.Module.to may call, takes no tensor with weak
// references.
class Known {
 public:
  // Whether this is the same tensor with the same memory and layout. Every tensor has its own memory for its shape: its
  // address tells whether torch.utils.swap_tensors has put another tensor's contents into the object.
  bool is(nb::handle tensor, const View& view) const {
    if (!refers_to(tensor) || !plain(tensor)) return false;
    if (data_ != view.data || !(type_ == view.type) || ndim_ != view.ndim) return false;
    if (shape_ != view.shape && !view.owned) return false;
    const int64_t* const layout = this->layout();
    for (int d = 0; d < ndim_; ++d) {
      if (layout[2 * d] != view.shape[d] || layout[2 * d + 1] != view.strides[d]) return false;
    }
    return true;
  }
  void keep(nb::handle tensor, const View& view, bool weakly) {
    data_ = view.data;
    shape_ = view.shape;
    type_ = view.type;
    ndim_ = view.ndim;
    if (ndim_ > kNear) far_.resize(2 * static_cast<size_t>(ndim_));
    int64_t* const layout = const_cast<int64_t*>(this->layout());
    for (int d = 0; d < ndim_; ++d) {
      layout[2 * d] = view.shape[d];
      layout[2 * d + 1] = view.strides[d];
    }
    weakly_ = weakly;
    reference_ = weakly ? checked(PyWeakref_NewRef(tensor.ptr(), nullptr)) : nb::borrow(tensor);
  }
  void forget() { reference_ = nb::object(); }
  nb::handle reference() const { return reference_; }

 private:
  bool refers_to(nb::handle tensor) const {
    if (!weakly_ || !reference_.is_valid()) return reference_.is(tensor);
#if !defined(Py_LIMITED_API) && PY_VERSION_HEX >= 0x030D0000
    PyObject* found = nullptr;
    if (PyWeakref_GetRef(reference_.ptr(), &found) < 0) nb::raise_python_error();
    Py_XDECREF(found);  // the caller holds the tensor that it is compared with
    return found == tensor.ptr();
#else
    return PyWeakref_GetObject(reference_.ptr()) == tensor.ptr();
#endif
  }
  // Size and stride of each dimension; those of few dimensions are in the object itself, and so in the cache.
  const int64_t* layout() const { return ndim_ > kNear ? far_.data() : near_; }

  static constexpr int kNear = 3;
  nb::object reference_;
  bool weakly_ = false;
  const void* data_ = nullptr;
  const int64_t* shape_ = nullptr;
  ElementType type_ = {};
  int ndim_ = 0;
  int64_t near_[2 * kNear] = {};
  std::vector<int64_t> far_;
};

// Looks up the parts of torch: `tensor` and `parameter` are its classes, `capsule` its table of functions or None.
void use_torch(nb::handle tensor, nb::handle parameter, std::optional<nb::capsule> capsule) {
  torch.tensor = tensor.inc_ref();
  torch.parameter = parameter.inc_ref();
  torch.data_ptr = nb::getattr(tensor, "data_ptr").release();
  torch.is_neg = nb::getattr(tensor, "is_neg").release();
  torch.grad = nb::getattr(tensor, "grad").release();
  torch.grad_name = PyUnicode_InternFromString("grad");
  torch.step = PyUnicode_InternFromString("step");
  torch.get_grad = reinterpret_cast<descrgetfunc>(PyType_GetSlot(Py_TYPE(torch.grad.ptr()), Py_tp_descr_get));
#if !defined(Py_LIMITED_API)
  if (Py_IS_TYPE(torch.is_neg.ptr(), &PyMethodDescr_Type)) {
    const PyMethodDef* method = reinterpret_cast<PyMethodDescrObject*>(torch.is_neg.ptr())->d_method;
    if (method->ml_flags == METH_NOARGS) torch.call_is_neg = method->ml_meth;
  }
#endif
  for (size_t k = 0; k < kStates.size(); ++k) torch.keys[k] = PyUnicode_InternFromString(kStates[k]);
  torch.exchange = nullptr;
  if (!capsule) return;
  const auto* table = static_cast<const DLPackExchange*>(PyCapsule_GetPointer(capsule->ptr(), "dlpack_exchange_api"));
  if (!table) nb::raise_python_error();
  if (table->header.major == 1 && table->dltensor_from_object) torch.exchange = table;
}

}  // namespace
