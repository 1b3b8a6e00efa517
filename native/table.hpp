// A bucket of tensors as pointers, and the call that steps all of them.
#pragma once

#include <string>
#include <vector>

#include "adamas.hpp"

// The instruction sets compiled in that this processor can run, best first.
const std::vector<const Isa*>& usable_isas();

// The one named `name`, or the best if `name` is empty; throws std::invalid_argument if this processor has none.
const Isa& isa_named(const std::string& name);

// Steps every tensor with up to `threads` threads of the process's OpenMP pool. Which thread steps an element does not
// matter to its result.
void step_all(const Isa& isa, Dtype dtype, const Step& step, const std::vector<Tensor>& tensors, int threads);
