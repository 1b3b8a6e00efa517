// The torch front of the native kernel: `Table` turns lists of tensors into pointers, checking everything before
// anything is written, and steps them. See src/adamas/kernels/native.py for the side that calls it.

#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <atomic>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "counts.hpp"
#include "scalars.hpp"
#include "states.hpp"
#include "table.hpp"
#include "torch_tensors.hpp"

namespace {

Key key_of(nb::handle key) { return {nb::cast<uint32_t>(key[0]), nb::cast<uint32_t>(key[1])}; }

// Reads adamas.scalars.StepScalars by position; `random` says whether the storage draws random bits.
Scalars read_scalars(const nb::tuple& from, bool random) {
  constexpr size_t kRandom = kNumbers + 2, kCautious = kNumbers + 4;
  Scalars scalars{};
  for (size_t i = 0; i < kNumbers; ++i) scalars.numbers[i] = nb::cast<double>(from[i]);
  scalars.amsgrad = nb::cast<bool>(from[kNumbers]);
  scalars.moves = nb::cast<bool>(from[kNumbers + 1]);
  scalars.cautious = nb::len(from) > kCautious && nb::cast<bool>(from[kCautious]);
  if (!nb::handle(from[kRandom]).is_none()) {
    scalars.key = key_of(from[kRandom]);
  } else if (random) {
    throw Mismatch("random rounding needs a seed");
  }
  return scalars;
}

// The addresses of a bucket's tensors. From `take` to the end of `step` all tensors are held: their memory stays alive
// whatever other threads put into the states while the step runs without the GIL.
class Table {
 public:
  // `names` are those of the tensors kept of each parameter, in the kernels' order. With `counts`, each state has a
  // tensor "step", which is read by `take` and counted on by `step`.
  Table(const std::vector<std::string>& names, const std::string& moments, int master_bits, bool stochastic,
        bool counts)
      : storage_{Dtype::float32, moments_called(moments), master_bits, stochastic}, counts_steps_(counts) {
    for (const std::string& name : names) kept_.push_back(state_called(name));
  }

  // Reads and checks every tensor of a step; nothing is written. Without `grads`, takes each parameter's `grad`.
  // Returns the indices of gradients that must be copied into their parameter's layout before `step`.
  std::vector<size_t> take(nb::list params, nb::list states, std::optional<nb::list> grads) {
    const Inside inside(*this);
    ready_ = false;
    const size_t count = nb::len(params);
    if (nb::len(states) != count || (grads && nb::len(*grads) != count)) throw Mismatch("lists differ in length");
    resize(count);
    std::vector<size_t> copy;
    try {
      for (size_t i = 0; i < count; ++i) {
        const nb::object param = item(params, i), state = item(states, i);
        grads_[i] = grads ? item(*grads, i) : grad_of(param);
        if (grads_[i].is_none()) absent_.push_back(i);
        if (!take_one(i, param, state, grads_[i])) copy.push_back(i);
      }
    } catch (...) {
      let_go();
      throw;
    }
    ready_ = copy.empty();
    return copy;
  }

  // The gradients that were taken.
  nb::list grads() const {
    nb::list found;
    for (const nb::object& grad : grads_) found.append(grad);
    return found;
  }

  // The indices of parameters that had no gradient when gradients were last taken.
  const std::vector<size_t>& absent() const { return absent_; }

  // The numbers of the coming steps, and which of them each parameter takes: None where all take the same.
  std::pair<std::vector<int64_t>, std::optional<std::vector<size_t>>> upcoming() const {
    if (!ready_ || !counts_steps_) throw Mismatch("no steps were counted for the gradients taken");
    Upcoming found = upcoming_of(steps_);
    return {std::move(found.numbers), std::move(found.which)};
  }

  // Lets the gradients go without a step.
  void release() {
    const Inside inside(*this);
    let_go();
  }

  // The sum of squares of each gradient taken.
  std::vector<double> squares(int threads, const std::string& isa) {
    const Inside inside(*this);
    if (!ready_) throw Mismatch("no gradients were taken for this step");
    if (!dtype_) return {};  // no gradient was ever taken
    const Isa& chosen = isa_named(isa);
    nb::gil_scoped_release released;
    return square_all(chosen.square[static_cast<int>(*dtype_)], tensors_, threads);
  }

  // Tensor i takes the step of scalars[which[i]], or of the only scalars where `which` is None.
  void step(nb::list scalars, std::optional<nb::list> which, bool zero_grad, int threads, const std::string& isa) {
    const Inside inside(*this);
    if (!ready_) throw Mismatch("no gradients were taken for this step");
    ready_ = false;
    if (dtype_) {
      const std::vector<Step> steps = read_steps(scalars, which, zero_grad);
      const Isa& chosen = isa_named(isa);
      nb::gil_scoped_release released;
      run_all(storage_.plain() ? chosen.step[static_cast<int>(*dtype_)] : chosen.stored, steps, tensors_, threads);
      for (Count& count : steps_) {
        if (count.at) count.advance();
      }
    }
    let_go();
  }

  // Moves the bytes of a step, for measuring what the memory allows.
  void touch(int threads, const std::string& isa) {
    const Inside inside(*this);
    if (!ready_) throw Mismatch("no gradients were taken for this step");
    if (!storage_.plain()) throw Mismatch("touch is for float32 or wider moments and weights as they are");
    if (!dtype_) return;
    const Isa& chosen = isa_named(isa);
    nb::gil_scoped_release released;
    run_all(chosen.touch[static_cast<int>(*dtype_)], {Step{}}, tensors_, threads);
  }

  // For Python's garbage collector: a tensor may refer back to the optimizer, by a hook for instance.
  int traverse(visitproc visit, void* arg) const {
    for (const Known& known : known_) Py_VISIT(known.reference().ptr());
    for (const nb::object& tensor : held_) Py_VISIT(tensor.ptr());
    for (const nb::object& grad : grads_) Py_VISIT(grad.ptr());
    return 0;
  }
  void clear() {
    let_go();
    std::vector<Known> known;
    known.swap(known_);
  }

 private:
  // Keeps a second thread out while one is at work here, with or without the GIL.
  class Inside {
   public:
    explicit Inside(Table& table) : table_(table) {
      if (table_.inside_.exchange(true)) throw std::runtime_error("another thread is inside of this bucket's step");
    }
    ~Inside() { table_.inside_ = false; }
    Inside(const Inside&) = delete;

   private:
    Table& table_;
  };

  bool keeps(StateName name) const { return std::find(kept_.begin(), kept_.end(), name) != kept_.end(); }

  // References are dropped only once they are no longer in the table: dropping the last one runs code of others.
  void let_go() {
    std::vector<nb::object> grads, held;
    grads.swap(grads_);
    held.swap(held_);
  }

  void resize(size_t count) {
    let_go();
    grads_.resize(count);
    held_.reserve(count * stride());
    absent_.clear();
    if (tensors_.size() == count) return;
    std::vector<Known> known;
    known.swap(known_);
    known_.resize(count * stride());
    tensors_.assign(count, Tensor{});
    steps_.assign(counts_steps_ ? count : 0, Count{});
  }

  // Places in known_ for each parameter: its own, that of each state, and that of its count.
  size_t stride() const { return kept_.size() + 2; }

  std::vector<Step> read_steps(const nb::list& scalars, const std::optional<nb::list>& which, bool zero_grad) {
    std::vector<Step> steps;
    const bool random = storage_.stochastic || storage_.moments != Moments::wide;
    for (nb::handle each : scalars) {
      steps.push_back(step_of(read_scalars(nb::cast<nb::tuple>(each), random), storage_, zero_grad));
      if (steps.back().amsgrad != keeps(kMax)) throw Mismatch("max_exp_avg_sq is kept with amsgrad and only then");
      if (steps.back().averages != keeps(kEma)) throw Mismatch("ema is kept with ema_decay and only then");
    }
    if (steps.empty() || (!which && steps.size() != 1)) throw Mismatch("several scalars need to know whose they are");
    if (which && nb::len(*which) != tensors_.size()) throw Mismatch("which and the tensors differ in number");
    for (size_t i = 0; i < tensors_.size(); ++i) {
      const auto index = which ? nb::cast<size_t>((*which)[i]) : size_t{0};
      if (index >= steps.size()) throw Mismatch("which names scalars that are not there");
      tensors_[i].step = static_cast<int32_t>(index);
    }
    return steps;
  }

  // Whether the gradient can be used where it is.
  bool take_one(size_t i, nb::handle param_object, nb::handle state, nb::handle grad_object) {
    Tensor& tensor = tensors_[i];
    tensor.count = 0;
    tensor.grad = nullptr;
    tensor.step = 0;
    if (counts_steps_) steps_[i].at = nullptr;
    const bool absent = grad_object.is_none();
    if (absent && !keeps(kEma)) return true;  // without an average, nothing of this tensor is looked at
    const View param = read(param_object, "param", i);
    const bool known = known_[i * stride()].is(param_object, param);
    if (!known) check_param(i, param_object, param);
    for (size_t k = 0; k < kept_.size(); ++k) take_state(i, k, state, param, known);
    // Only now, when every state has been checked against it, is this the parameter's known place and layout.
    if (!known) known_[i * stride()].keep(param_object, param, false);
    tensor.param = param.data;
    tensor.count = param.count;
    if (!storage_.plain()) tensor.columns = row_length(storage_, param);
    if (absent) return true;
    if (counts_steps_) take_count(i, state);
    const View grad = read(grad_object, "grad", i);
    if (!plain(grad_object)) throw Mismatch(place("grad", i) + " is a tensor subclass");
    if (dtype_of(grad.type) != dtype_) throw Mismatch(place("grad", i) + ": dtypes differ");
    if (!same_shape(grad, param)) throw Mismatch(place("grad", i) + " has another shape than its parameter");
    tensor.grad = grad.data;
    return same_order(grad, param) && !is_neg(grad_object) && (grad.data != nullptr || grad.count == 0);
  }

  void check_param(size_t i, nb::handle object, const View& param) {
    known_[i * stride()].forget();
    const std::optional<Dtype> dtype = dtype_of(param.type);
    if (!dtype) throw Mismatch(place("param", i) + " has a dtype without a native kernel");
    if (dtype_ && dtype != dtype_) throw Mismatch(place("param", i) + ": dtypes differ");
    check_memory(object, param, "param", i);
    if (!dense(param)) throw Mismatch(place("param", i) + " has gaps or overlaps in memory");
    if (!storage_.plain() && !row_major(param)) throw Mismatch(place("param", i) + " is not row-major");
    dtype_ = dtype;
    storage_.dtype = *dtype;
  }

  // Finds the k-th state's tensor and checks it, unless it was checked against a parameter that is still the same.
  void take_state(size_t i, size_t k, nb::handle state, const View& param, bool param_is_known) {
    const StateName name = kept_[k];
    nb::object tensor = item(state, torch.keys[name], kStates[name], i);
    const View view = read(tensor, kStates[name], i);
    Known& known = known_[i * stride() + 1 + k];
    if (!param_is_known || !known.is(tensor, view)) {
      check_memory(tensor, view, kStates[name], i);
      if (const char* problem = state_problem(name, storage_, param, view)) {
        throw Mismatch(place(kStates[name], i) + problem);
      }
      known.keep(tensor, view, true);
    }
    address_of(tensors_[i], name) = view.data;
    held_.push_back(std::move(tensor));
  }

  void take_count(size_t i, nb::handle state) {
    nb::object tensor = item(state, torch.step, "step", i);
    const View view = read(tensor, "step", i);
    Known& known = known_[(i + 1) * stride() - 1];
    if (!known.is(tensor, view)) {
      check_memory(tensor, view, "step", i);
      if (dtype_of(view.type) != Dtype::float32 || view.count != 1) {
        throw Mismatch(place("step", i) + " is not one float32 number");
      }
      known.keep(tensor, view, true);
    }
    held_.push_back(std::move(tensor));
    auto* const at = static_cast<float*>(view.data);
    if (steps_[i].read(at)) return;
    steps_[i].at = nullptr;
    throw std::invalid_argument("step=" + std::to_string(*at) + " in the state of parameter " + std::to_string(i) +
                                " must be a number of steps: finite, >= 0 and < 2**53");
  }

  std::vector<Tensor> tensors_;
  std::vector<Known> known_;  // stride() for each parameter
  std::vector<nb::object> grads_;
  std::vector<nb::object> held_;  // states and counts of a step under way
  std::vector<size_t> absent_;
  std::vector<Count> steps_;  // empty unless steps are counted here
  std::optional<Dtype> dtype_;
  Storage storage_;
  std::vector<StateName> kept_;  // which of the states there are
  bool counts_steps_;
  bool ready_ = false;
  std::atomic<bool> inside_ = false;
};

int traverse_table(PyObject* self, visitproc visit, void* arg) {
  Py_VISIT(Py_TYPE(self));
  return nb::inst_ready(self) ? nb::inst_ptr<Table>(self)->traverse(visit, arg) : 0;
}

int clear_table(PyObject* self) {
  if (nb::inst_ready(self)) nb::inst_ptr<Table>(self)->clear();
  return 0;
}

PyType_Slot table_slots[] = {{Py_tp_traverse, reinterpret_cast<void*>(traverse_table)},
                             {Py_tp_clear, reinterpret_cast<void*>(clear_table)},
                             {0, nullptr}};

// Whether `a[i] is b[i]` for all i.
bool same_objects(nb::list a, nb::list b) {
  const size_t count = nb::len(a);
  if (nb::len(b) != count) return false;
  for (size_t i = 0; i < count; ++i) {
    if (nb::handle(a[i]).ptr() != nb::handle(b[i]).ptr()) return false;
  }
  return true;
}

// Whether no two of the tensors, of which some may be None, share memory; false where that cannot be told.
bool disjoint(nb::list tensors) {
  std::vector<std::pair<const char*, const char*>> spans;
  for (nb::handle tensor : tensors) {
    if (tensor.is_none()) continue;
    try {
      const View view = read(tensor, "tensor", spans.size());
      if (!dtype_of(view.type)) return false;
      if (view.count == 0) continue;
      const char* begin = static_cast<const char*>(view.data);
      spans.emplace_back(begin, begin + view.span() * view.item());
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
  m.def("disjoint", &disjoint, nb::arg("tensors"), "Whether no two of the tensors share memory.");
  nb::class_<Table>(m, "Table", nb::type_slots(table_slots), "The tensors of one bucket: addresses and references.")
      .def(nb::init<const std::vector<std::string>&, const std::string&, int, bool, bool>(), nb::arg("names"),
           nb::arg("moments") = "wide", nb::arg("master_bits") = 0, nb::arg("stochastic") = false,
           nb::arg("counts") = false)
      .def("take", &Table::take, nb::arg("params"), nb::arg("states"), nb::arg("grads").none() = nb::none(),
           "Check every tensor of a step, without `grads` each parameter's `grad`; returns indices of gradients that "
           "must be copied to their parameter's layout.")
      .def("grads", &Table::grads, "The gradients that were taken.")
      .def("absent", &Table::absent, "The indices of parameters that had no gradient when gradients were last taken.")
      .def("upcoming", &Table::upcoming,
           "The numbers of the coming steps, and for each parameter the index of its own; None if all are the same.")
      .def("release", &Table::release, "Let the gradients go without a step.")
      .def("squares", &Table::squares, nb::arg("threads"), nb::arg("isa") = "", "Each gradient's sum of squares.")
      .def("step", &Table::step, nb::arg("scalars"), nb::arg("which").none(), nb::arg("zero_grad"), nb::arg("threads"),
           nb::arg("isa") = "",
           "Apply adamas.scalars.StepScalars, tuples, to every tensor: scalars[which[i]] to tensor i. Then count the "
           "step and let the gradients go.")
      .def("touch", &Table::touch, nb::arg("threads"), nb::arg("isa") = "",
           "Read and write what a step would, and change nothing: a measure of the memory.");
}
