// Steps and squares tensors of awkward sizes in many numbers of threads, for a data-race detector to watch, and
// compares every bit with one thread's. With -DPLANT the threads share one sum, which the detector must report.
#include <cstdio>
#include <cstring>
#include <vector>

#include "table.hpp"

namespace {

constexpr int64_t kSizes[] = {1, 63, 64, 65, 4097, 16384, 16385, 100003, 0, 262144, 7};

struct Memory {
  std::vector<std::vector<float>> arrays;
  std::vector<Tensor> tensors;

  Memory() {
    for (const int64_t size : kSizes) {
      float* rows[6];
      for (int k = 0; k < 6; ++k) {
        std::vector<float> values(static_cast<size_t>(size));
        for (int64_t i = 0; i < size; ++i) values[i] = static_cast<float>((i * 37 + k * 11) % 101 + 1) / 101;
        arrays.push_back(std::move(values));
        rows[k] = arrays.back().data();
      }
      Tensor tensor{};
      tensor.param = rows[0];
      tensor.grad = rows[1];
      tensor.exp_avg = rows[2];
      tensor.exp_avg_sq = rows[3];
      tensor.max_exp_avg_sq = rows[4];
      tensor.ema = rows[5];
      tensor.count = size;
      tensors.push_back(tensor);
    }
  }

  // Packed words, read as floats, may be NaN, which equals nothing.
  bool same_bytes(const Memory& other) const {
    for (size_t i = 0; i < arrays.size(); ++i) {
      if (arrays[i].empty()) continue;
      if (memcmp(arrays[i].data(), other.arrays[i].data(), arrays[i].size() * sizeof(float)) != 0) return false;
    }
    return true;
  }

  // The same memory as parameters with packed moments, in rows of 100: maxima and halves of averages hold the grids.
  std::vector<Tensor> in_rows() const {
    std::vector<Tensor> stored;
    for (Tensor tensor : tensors) {
      tensor.columns = 100;
      tensor.count -= tensor.count % 100;
      tensor.scale = tensor.exp_avg_sq;
      tensor.low = tensor.max_exp_avg_sq;
      tensor.high = tensor.ema;
      stored.push_back(tensor);
    }
    return stored;
  }
};

Step packed(Step step) {
  step.storage = {Dtype::float32, Moments::packed12, 0, false};
  step.amsgrad = step.averages = false;
  return step;
}

bool run(const Isa& isa, const Step& step, int threads, const Memory& expected, const std::vector<double>& sums) {
  Memory memory;
  const auto squares = square_all(isa.square[0], memory.tensors, threads);
  run_all(isa.step[0], {step}, memory.tensors, threads);
  run_all(isa.stored, {packed(step)}, memory.in_rows(), threads);
  return squares == sums && memory.same_bytes(expected);
}

}  // namespace

int main() {
  const Factors<float> f{0.5f, 0, 0.999f, 0.001f, 1e-3f, 1e-8f, 0, 1e-4f, 1, {1, 1, 0.1f}, {1, 1, 0.01f}};
  Step step{};
  step.f32 = f;
  step.decay = Decay::decoupled;
  step.amsgrad = step.moves = step.averages = step.zero_grad = true;
  for (const Isa* isa : usable_isas()) {
    Memory expected;
    const auto sums = square_all(isa->square[0], expected.tensors, 1);
    run_all(isa->step[0], {step}, expected.tensors, 1);
    run_all(isa->stored, {packed(step)}, expected.in_rows(), 1);
    for (int threads = 2; threads <= 8; ++threads) {
      if (!run(*isa, step, threads, expected, sums)) {
        std::printf("%s: %d threads give other bits\n", isa->name, threads);
        return 1;
      }
    }
    std::printf("%s: 2 to 8 threads give the bits of one\n", isa->name);
  }
#ifdef PLANT
  int64_t shared = 0;
#pragma omp parallel num_threads(4)
  for (int i = 0; i < 1000; ++i) shared += i;
  std::printf("planted %lld\n", static_cast<long long>(shared));
#endif
}
