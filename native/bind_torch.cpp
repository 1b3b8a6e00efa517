// The native kernel for torch: `Table` checks lists of tensors, turns them into pointers and steps them. It checks
// everything before it writes anything. src/adamas/kernels/native.py calls it.

#include <nanobind/nanobind.h>
#include <nanobind/stl/array.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "counts.hpp"
#include "read_scalars.hpp"
#include "states.hpp"
#include "table.hpp"
#include "torch_tensors.hpp"

namespace {

// The addresses of a bucket's tensors. From `take` to the end of `step` the table holds all tensors: their memory stays
// alive even if other threads put other tensors into the states while the step runs without the GIL.
class Table {
 public:
  // `names` are the names of the states of each parameter, in the kernels' order. With `counts`, each state has a
  // tensor "step", which `take` reads and `step` increases.
  Table(const std::vector<std::string>& names, const std::string& moments, int master_bits, bool stochastic,
        bool counts)
      : storage_{Dtype::float32, named<Moments>(kMoments, moments), master_bits, stochastic}, counts_steps_(counts) {
    for (const std::string& name : names) kept_.push_back(named<StateName>(kStates, name));
  }

  // For shards: the place of each tensor in its whole parameter (adamas.formats.random_bits.Place).
  void set_places(const std::vector<std::array<int64_t, 3>>& places) { places_ = places; }

  // Reads and checks every tensor of a step, and writes nothing. Without `grads`, takes each parameter's `grad`.
  // Returns the indices of gradients that must be copied into their parameter's layout before `step`.
  std::vector<size_t> take(nb::list params, nb::list states, std::optional<nb::list> grads) {
    const Inside inside(*this);
    ready_ = false;
    const size_t count = nb::len(params);
    if (nb::len(states) != count || (grads && nb::len(*grads) != count)) throw Mismatch("lists differ in length");
    if (!places_.empty() && places_.size() != count) throw Mismatch("places are for another number of tensors");
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

  // The gradients of the last `take`.
  nb::list grads() const {
    nb::list found;
    for (const nb::object& grad : grads_) found.append(grad);
    return found;
  }

  // The indices of parameters without a gradient in the last `take`.
  const std::vector<size_t>& absent() const { return absent_; }

  // The numbers of the coming steps, and for each parameter the index of its own: None if there is one number.
  Upcoming upcoming() const {
    if (!ready_ || !counts_steps_) throw Mismatch("no steps were counted for the gradients taken");
    return upcoming_of(steps_);
  }

  // Drops the gradients without a step.
  void release() {
    const Inside inside(*this);
    let_go();
  }

  // The sum of squares of each gradient.
  std::vector<double> squares(int threads, const std::string& isa) {
    const Inside inside(*this);
    if (!ready_) throw Mismatch("no gradients were taken for this step");
    if (!dtype_) return {};  // no parameter was ever read
    const Isa& chosen = isa_named(isa);
    nb::gil_scoped_release released;
    return square_all(chosen.square[static_cast<int>(*dtype_)], tensors_, threads);
  }

  // Steps tensor i with scalars[which[i]], or with the only scalars if `which` is None.
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

  // Moves the bytes of a step, to measure the limit of memory.
  void touch(int threads, const std::string& isa) {
    const Inside inside(*this);
    if (!ready_) throw Mismatch("no gradients were taken for this step");
    if (!storage_.plain()) throw Mismatch("touch is for float32 or wider moments and weights as they are");
    if (!dtype_) return;
    const Isa& chosen = isa_named(isa);
    nb::gil_scoped_release released;
    run_all(chosen.touch[static_cast<int>(*dtype_)], {Step{}}, tensors_, threads);
  }

  // For Python's garbage collector: a tensor may refer to the optimizer, for instance through a hook.
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
  // Keeps a second thread out while one is inside, with or without the GIL.
  class Inside {
   public:
    explicit Inside(Table& table) : table_(table) {
      if (table_.inside_.exchange(true))
        throw std::runtime_error(
            "another thread is inside this bucket's step: step an optimizer from one thread at a time");
    }
    ~Inside() { table_.inside_ = false; }
    Inside(const Inside&) = delete;

   private:
    Table& table_;
  };

  bool keeps(StateName name) const { return std::find(kept_.begin(), kept_.end(), name) != kept_.end(); }

  // Drops references only when they are no longer in the table: dropping a last reference may run any Python code.
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

  // The number of entries in known_ for each parameter: the parameter, each state, and the count.
  size_t stride() const { return kept_.size() + 2; }

  std::vector<Step> read_steps(const nb::list& scalars, const std::optional<nb::list>& which, bool zero_grad) {
    std::vector<Step> steps;
    const bool random = storage_.stochastic || storage_.moments != Moments::wide;
    for (nb::handle each : scalars) {
      steps.push_back(step_of(read_scalars(nb::cast<nb::tuple>(each), random), storage_, zero_grad));
      if (steps.back().amsgrad != keeps(kMax)) throw Mismatch("max_exp_avg_sq is kept with amsgrad and only then");
      if (steps.back().averages != keeps(kEma)) throw Mismatch("ema is kept with ema_decay and only then");
    }
    if (steps.empty() || (!which && steps.size() != 1))
      throw Mismatch("which=None needs exactly one element in scalars");
    if (which && nb::len(*which) != tensors_.size()) throw Mismatch("which needs one index for each tensor");
    for (size_t i = 0; i < tensors_.size(); ++i) {
      const auto index = which ? nb::cast<size_t>((*which)[i]) : size_t{0};
      if (index >= steps.size()) throw Mismatch("which has an index beyond the end of scalars");
      tensors_[i].step = static_cast<int32_t>(index);
    }
    return steps;
  }

  // Takes one parameter; returns whether its gradient can be used without a copy.
  bool take_one(size_t i, nb::handle param_object, nb::handle state, nb::handle grad_object) {
    Tensor& tensor = tensors_[i];
    tensor.count = 0;
    tensor.grad = nullptr;
    tensor.step = 0;
    if (counts_steps_) steps_[i].at = nullptr;
    const bool absent = grad_object.is_none();
    if (absent && !keeps(kEma)) return true;  // without an average, this step does not use the tensor
    const View param = read(param_object, "param", i);
    // Without torch's table of functions, nothing else tells a negated view of the same memory from its parameter.
    const bool known = known_[i * stride()].is(param_object, param) && (torch.exchange || !is_neg(param_object));
    if (!known) check_param(i, param_object, param);
    for (size_t k = 0; k < kept_.size(); ++k) take_state(i, k, state, param, known);
    // The parameter counts as known only now, when every state has been checked against it.
    if (!known) known_[i * stride()].keep(param_object, param, false);
    tensor.param = param.data;
    tensor.count = param.count;
    if (!storage_.plain()) tensor.columns = row_length(storage_, param);
    if (!places_.empty()) {
      const auto& [first, run, skip] = places_[i];
      tensor.first = first;
      tensor.skip = skip;
      if (skip && !storage_.plain()) tensor.columns = run;  // no block may cross the end of a run
    }
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

  // Takes the tensor of the k-th state, and checks it unless both it and the parameter are known.
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
    tensors_[i].*kAddresses[name] = view.data;
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
  std::vector<Known> known_;  // stride() entries for each parameter
  std::vector<nb::object> grads_;
  std::vector<nb::object> held_;  // states and counts, from `take` to the end of `step`
  std::vector<size_t> absent_;
  std::vector<Count> steps_;  // empty if this table does not count steps
  std::optional<Dtype> dtype_;
  Storage storage_;
  std::vector<StateName> kept_;                 // the states of each parameter
  std::vector<std::array<int64_t, 3>> places_;  // empty where no tensor is a shard
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

// Whether no two of the tensors share memory, ignoring None; false where this is unknown.
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

}  // namespace

void bind_torch(nb::module_& m) {
  m.def("use_torch", &use_torch, nb::arg("tensor"), nb::arg("parameter"), nb::arg("exchange").none(),
        "Set torch's classes and the table of functions that reads tensors; without one, attributes are read.");
  m.def("same_objects", &same_objects, nb::arg("a"), nb::arg("b"),
        "Return whether the lists are equally long and a[i] is b[i] for all i.");
  m.def("disjoint", &disjoint, nb::arg("tensors"), "Return whether no two of the tensors share memory.");
  nb::class_<Table>(m, "Table", nb::type_slots(table_slots),
                    "The addresses of a bucket's tensors, and references to them.")
      .def(nb::init<const std::vector<std::string>&, const std::string&, int, bool, bool>(), nb::arg("names"),
           nb::arg("moments") = "wide", nb::arg("master_bits") = 0, nb::arg("stochastic") = false,
           nb::arg("counts") = false)
      .def("set_places", &Table::set_places, nb::arg("places"),
           "Set the place of each tensor in its whole parameter: see adamas.formats.random_bits.Place.")
      .def("take", &Table::take, nb::arg("params"), nb::arg("states"), nb::arg("grads").none() = nb::none(),
           "Check every tensor of a step and take its gradients, without `grads` each parameter's `grad`; return the "
           "indices of gradients that must be copied to their parameter's layout.")
      .def("grads", &Table::grads, "Return the gradients of the last `take`.")
      .def("absent", &Table::absent, "Return the indices of parameters without a gradient in the last `take`.")
      .def("upcoming", &Table::upcoming,
           "Return the numbers of the coming steps, and for each parameter the index of its own; None for one number.")
      .def("release", &Table::release, "Drop the gradients without a step.")
      .def("squares", &Table::squares, nb::arg("threads"), nb::arg("isa") = "",
           "Return each gradient's sum of squares.")
      .def("step", &Table::step, nb::arg("scalars"), nb::arg("which").none(), nb::arg("zero_grad"), nb::arg("threads"),
           nb::arg("isa") = "",
           "Step tensor i with scalars[which[i]], each an adamas.scalars.StepScalars. Then count the step and drop the "
           "gradients.")
      .def("touch", &Table::touch, nb::arg("threads"), nb::arg("isa") = "",
           "Read and write the memory of a step and change nothing, to measure the limit of memory.");
}
