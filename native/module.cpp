// The extension module: what all frameworks share, and the bindings of each.

#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "states.hpp"
#include "table.hpp"

namespace nb = nanobind;

void bind_torch(nb::module_& m);
void bind_arrays(nb::module_& m);
void bind_xla(nb::module_& m);

namespace {

std::vector<std::string> isas() {
  std::vector<std::string> names;
  for (const Isa* isa : usable_isas()) names.emplace_back(isa->name);
  return names;
}

}  // namespace

NB_MODULE(_native, m) {
  nb::set_leak_warnings(false);  // an interpreter that exits with a traceback still holds an optimizer
  m.doc() = "The native kernel: see adamas.kernels.native, adamas.kernels.arrays and adamas.kernels.xla.";
  nb::exception<Mismatch>(m, "Mismatch", PyExc_ValueError);
  m.def("isas", &isas, "Return the instruction sets that this processor can run, best first.");
  bind_torch(m);
  bind_arrays(m);
  bind_xla(m);
}
