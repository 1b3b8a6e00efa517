// The calls that step all tensors of a bucket, given as pointers, or sum their squares.
#pragma once

#include <string>
#include <vector>

#include "adamas.hpp"

// The compiled instruction sets that this processor can run, best first.
const std::vector<const Isa*>& usable_isas();

// The instruction set with this name, or the best for an empty name; throws std::invalid_argument if there is none.
const Isa& isa_named(const std::string& name);

// Runs a function of an instruction set over every tensor, with the tensor's step, on up to `threads` threads of the
// process's OpenMP pool. The result of an element does not depend on the thread.
void run_all(StepRange range, const std::vector<Step>& steps, const std::vector<Tensor>& tensors, int threads);

// The same work in `count` parts, for a caller that has its own threads: runs part number `index`.
void run_part(StepRange range, const std::vector<Step>& steps, const std::vector<Tensor>& tensors, int64_t index,
              int64_t count);

// The number of threads that are worth waking for these tensors, at most `threads`.
int threads_for(const std::vector<Tensor>& tensors, int threads);

// Each tensor's sum of squared gradients. Squares are added in chunks with fixed edges, and the sums of the chunks in
// order: the result does not depend on the threads.
std::vector<double> square_all(SquareRange square, const std::vector<Tensor>& tensors, int threads);
