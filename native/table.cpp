#include "table.hpp"

#include <omp.h>
#include <unistd.h>

#include <algorithm>
#include <stdexcept>

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace {

// The rule is defined in IEEE arithmetic: round to nearest, keep subnormals. Threads of a pool inherit the mode of
// their creator (torch.set_flush_denormal), so each sets its own mode and restores the old one.
class DefaultFloatingPoint {
 public:
#if defined(__x86_64__)
  DefaultFloatingPoint() : saved_(_mm_getcsr()) { _mm_setcsr(0x1F80); }
  ~DefaultFloatingPoint() { _mm_setcsr(saved_); }

 private:
  unsigned saved_;
#elif defined(__aarch64__)
  DefaultFloatingPoint() {
    asm volatile("mrs %0, fpcr" : "=r"(saved_));
    asm volatile("msr fpcr, %0" ::"r"(uint64_t{0}));
  }
  ~DefaultFloatingPoint() { asm volatile("msr fpcr, %0" ::"r"(saved_)); }

 private:
  uint64_t saved_;
#endif
};

// With fewer elements, waking a thread costs more time than it saves (about 2 us, against 0.1 ns an element in cache).
constexpr int64_t kElementsPerThread = 32768;
constexpr int64_t kBlockOfRow = 256;
constexpr int64_t kAlignment =
    64;  // threads meet at multiples of this many elements, so that no cache line has two writers

// The last boundary up to element `at`; in a tensor with rows this is the beginning of a block of 256.
int64_t aligned(const Tensor& tensor, int64_t at) {
  if (!tensor.columns) return at / kAlignment * kAlignment;
  return at - at % tensor.columns % kBlockOfRow;
}

// Runs over the elements [begin, end) of all tensors, numbered consecutively.
void run_span(StepRange range, const std::vector<Step>& steps, const std::vector<Tensor>& tensors, int64_t begin,
              int64_t end) {
  const DefaultFloatingPoint scope;
  int64_t first = 0;
  for (const Tensor& tensor : tensors) {
    const int64_t last = first + tensor.count;
    if (last > begin && first < end) {
      const auto cut = [&](int64_t at) {  // the boundary in this tensor for a position among all elements
        return at <= first ? 0 : at >= last ? tensor.count : aligned(tensor, at - first);
      };
      range(steps[tensor.step], tensor, cut(begin), cut(end));
    }
    first = last;
  }
}

// A part of a gradient; one thread adds its squares.
struct Chunk {
  size_t tensor;
  int64_t begin, end;
  int64_t before;  // the number of elements in earlier chunks
  double sum;
};
constexpr int64_t kChunk = 65536;

int64_t elements(const std::vector<Tensor>& tensors) {
  int64_t total = 0;
  for (const Tensor& tensor : tensors) total += tensor.count;
  return total;
}

int threads_for_elements(int64_t total, int threads) {
  return static_cast<int>(std::clamp<int64_t>(total / kElementsPerThread, 1, threads));
}

// A forked process has none of OpenMP's threads, and GNU's OpenMP would wait for them for ever.
bool forked() {
  static const pid_t first = getpid();
  return getpid() != first;
}

// Calls `part(index, count)` in each of up to `threads` threads.
template <class Part>
void in_parallel(int threads, const Part& part) {
  if (forked() || threads == 1) return part(0, 1);
#pragma omp parallel num_threads(threads)
  part(omp_get_thread_num(), omp_get_num_threads());
}

}  // namespace

const std::vector<const Isa*>& usable_isas() {
  static const std::vector<const Isa*> isas = [] {
    std::vector<const Isa*> found;
#if defined(ADAMAS_HAS_AVX512)
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl")) {
      found.push_back(&kAvx512);
    }
#endif
#if defined(ADAMAS_HAS_AVX2)
    if (__builtin_cpu_supports("avx2")) found.push_back(&kAvx2);
#endif
#if defined(ADAMAS_HAS_NEON)
    found.push_back(&kNeon);
#endif
    found.push_back(&kScalar);
    return found;
  }();
  return isas;
}

const Isa& isa_named(const std::string& name) {
  for (const Isa* isa : usable_isas()) {
    if (name.empty() || name == isa->name) return *isa;
  }
  throw std::invalid_argument("isa='" + name + "' is not available on this processor: see adamas doctor");
}

void run_part(StepRange range, const std::vector<Step>& steps, const std::vector<Tensor>& tensors, int64_t index,
              int64_t count) {
  const int64_t total = elements(tensors);
  run_span(range, steps, tensors, total * index / count, total * (index + 1) / count);
}

int threads_for(const std::vector<Tensor>& tensors, int threads) {
  return threads_for_elements(elements(tensors), threads);
}

void run_all(StepRange range, const std::vector<Step>& steps, const std::vector<Tensor>& tensors, int threads) {
  in_parallel(threads_for(tensors, threads),
              [&](int64_t index, int64_t count) { run_part(range, steps, tensors, index, count); });
}

std::vector<double> square_all(SquareRange square, const std::vector<Tensor>& tensors, int threads) {
  std::vector<Chunk> chunks;
  int64_t total = 0;
  for (size_t i = 0; i < tensors.size(); ++i) {
    if (!tensors[i].grad) continue;
    for (int64_t begin = 0; begin < tensors[i].count; begin += kChunk) {
      const int64_t end = std::min(begin + kChunk, tensors[i].count);
      chunks.push_back({i, begin, end, total, 0.0});
      total += end - begin;
    }
  }
  in_parallel(threads_for_elements(total, threads), [&](int64_t index, int64_t count) {
    const DefaultFloatingPoint scope;
    for (Chunk& chunk : chunks) {  // a chunk belongs to the thread that owns its first element
      if (chunk.before * count / total != index) continue;
      chunk.sum = square(tensors[chunk.tensor], chunk.begin, chunk.end);
    }
  });
  std::vector<double> sums(tensors.size());
  for (const Chunk& chunk : chunks) sums[chunk.tensor] += chunk.sum;
  return sums;
}
