// Plain data that the parts of the native kernel share: no templates with code, no Python, no framework.
#pragma once

#include <stdint.h>

// The factors of one step (adamas.scalars.StepScalars), rounded once to the type in which the rule is computed.
// The first moment becomes keep * m + beta1_complement * (g - pull * m). With beta1 >= 1/2, keep = pull = 1: its error
// is then a third of that of beta1 * m + beta1_complement * g, which counts where m is nearly cancelled by g. With
// beta1 < 1/2, keep = beta1 and pull = 0: nothing of a large old m is left behind. The same of the weights' average.
template <class T>
struct Mean {
  T keep, pull, weight;  // the new value's
};

template <class T>
struct Factors {
  T grad_factor, l2, beta2, beta2_complement, step_size, eps, eps_root, decay, max_factor;
  Mean<T> exp_avg, average;
};

enum class Dtype : uint8_t { float32, float64, bfloat16, float16 };
constexpr int kDtypes = 4;

// How moments and weights are stored (adamas.kernels.bucket.Storage); where it is not `plain`, stored.inc steps.
enum class Moments : uint8_t { wide, bfloat16, packed16, packed12 };

struct Storage {
  Dtype dtype;  // of parameters and gradients
  Moments moments;
  int master_bits;  // 0 without master weights
  bool stochastic;
  bool plain() const { return moments == Moments::wide && !master_bits && !stochastic; }
};

// The key of a step's random bits (adamas.formats.random_bits).
struct Key {
  uint32_t first, second;
};

// Where weight decay acts: in the gradient, on the weight, or on the weight where the update does not oppose it.
enum class Decay : uint8_t { none, l2, decoupled, cautious };

struct Step {
  Factors<float> f32;
  Factors<double> f64;
  Storage storage;
  Key key;
  Decay decay;
  bool amsgrad, moves, averages, zero_grad;
};

// One parameter with everything that belongs to it: `count` elements in the same order in each array.
// Moments and averages are float32, or float64 for float64 parameters; with a Storage that is not plain, what it says.
struct Tensor {
  void* param;
  void* grad;     // written only to zero it; null where there is none: then only the average goes on
  void* exp_avg;  // or the words of packed moments
  void* exp_avg_sq;
  void* max_exp_avg_sq;      // null without amsgrad
  void* ema;                 // null without an average
  void* param_low;           // null without master weights
  void *scale, *low, *high;  // float32 of each block of packed moments
  int64_t count;
  int64_t columns;  // where not 0, blocks begin anew in each row of so many elements
  int32_t step;     // which of the bucket's steps it takes
};

// Steps the elements [begin, end) of one tensor.
using StepRange = void (*)(const Step&, const Tensor&, int64_t begin, int64_t end);

// The sum of the squares of the gradient's elements [begin, end), in double.
using SquareRange = double (*)(const Tensor&, int64_t begin, int64_t end);

// The functions of one instruction set, indexed by Dtype; null pointers where it is not compiled in.
struct Isa {
  const char* name;
  StepRange step[kDtypes];
  StepRange stored;          // the step of a storage that is not plain; ranges begin and end where blocks do
  StepRange touch[kDtypes];  // moves the bytes of a step and computes nothing: the memory's limit
  SquareRange square[kDtypes];
};

extern const Isa kScalar, kAvx2, kAvx512, kNeon;
