// A bucket of tensors as pointers, and the call that steps all of them.
#pragma once

#include <string>
#include <vector>

#include "adamas.hpp"

// The instruction sets compiled in that this processor can run, best first.
const std::vector<const Isa*>& usable_isas();

// The one named `name`, or the best if `name` is empty; throws std::invalid_argument if this processor has none.
const Isa& isa_named(const std::string& name);

// Runs one of an instruction set's functions over every tensor, each with its own of the steps, with up to `threads`
// threads of the process's OpenMP pool. Which thread steps an element does not matter to its result.
void run_all(StepRange range, const std::vector<Step>& steps, const std::vector<Tensor>& tensors, int threads);

// Each tensor's sum of squared gradients. Squares are added in chunks of fixed places, whose sums are added in order:
// the result does not depend on the threads.
std::vector<double> square_all(SquareRange square, const std::vector<Tensor>& tensors, int threads);
