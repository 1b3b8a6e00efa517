// Plain data that the parts of the native kernel share: no templates with code, no Python, no framework.
#pragma once

#include <stdint.h>

// The factors of an exponential moving average, which becomes keep * old + weight * (value - pull * old).
// With a memory >= 1/2, keep = pull = 1: the error is a third of that of memory * old + weight * value, which matters
// where value nearly cancels old. With a memory < 1/2, keep = memory and pull = 0: a large old value leaves no rest.
template <class T>
struct Mean {
  T keep, pull, weight;
};

// The factors of one step (adamas.scalars.StepScalars), rounded once to the type in which the rule is computed.
template <class T>
struct Factors {
  T grad_factor, l2, beta2, beta2_complement, step_size, eps, eps_root, decay, max_factor;
  Mean<T> exp_avg, average;
};

enum class Dtype : uint8_t { float32, float64, bfloat16, float16 };
constexpr int kDtypes = 4;

// How moments and weights are stored (adamas.formats.names.Storage). stored.inc steps storages that are not plain.
enum class Moments : uint8_t { wide, bfloat16, packed16, packed12 };

struct Storage {
  Dtype dtype;  // the dtype of parameters and gradients
  Moments moments;
  int master_bits;  // 0 without master weights
  bool stochastic;
  bool plain() const { return moments == Moments::wide && !master_bits && !stochastic; }
};

// The key of a step's random bits (adamas.formats.random_bits).
struct Key {
  uint32_t first, second;
};

// Where weight decay acts: on the gradient, on the weight, or on the weight unless the update has the opposite sign.
enum class Decay : uint8_t { none, l2, decoupled, cautious };

struct Step {
  Factors<float> f32;
  Factors<double> f64;
  Storage storage;
  Key key;
  Decay decay;
  bool amsgrad, moves, averages, zero_grad;
};

// The arrays of one parameter: `count` elements in the same order in each. Moments and averages are float32, or float64
// for float64 parameters; a storage that is not plain defines its own moments and low bits.
struct Tensor {
  void* param;
  void* grad;     // written only to zero it; null without a gradient: then only the average is updated
  void* exp_avg;  // the first moment, or the words of packed moments
  void* exp_avg_sq;
  void* max_exp_avg_sq;      // null without amsgrad
  void* ema;                 // null without an average
  void* param_low;           // null without master weights
  void *scale, *low, *high;  // one float32 number for each block of packed moments
  int64_t count;
  int64_t columns;  // if not 0, each row of this many elements starts a new block
  // Random bits depend on an element's index in the whole parameter, of which this may be a shard: the index of element
  // 0, and the number of elements that lie between two rows of this tensor and belong to other shards.
  int64_t first, skip;
  int32_t step;  // the index of its step among those of the bucket
};

// Steps the elements [begin, end) of one tensor.
using StepRange = void (*)(const Step&, const Tensor&, int64_t begin, int64_t end);

// The sum of the squares of the gradient's elements [begin, end), in double.
using SquareRange = double (*)(const Tensor&, int64_t begin, int64_t end);

// The functions of one instruction set, indexed by Dtype.
struct Isa {
  const char* name;
  StepRange step[kDtypes];
  StepRange stored;          // for a storage that is not plain; ranges begin and end at the edges of blocks
  StepRange touch[kDtypes];  // moves the bytes of a step without the rule, to measure the limit of memory
  SquareRange square[kDtypes];
};

extern const Isa kScalar, kAvx2, kAvx512, kNeon;
