#include "table.hpp"

#include <omp.h>

#include <algorithm>
#include <stdexcept>

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace {

// The rule is defined in IEEE arithmetic: round to nearest, subnormals kept. Threads of a pool inherit what their
// creator had set (torch.set_flush_denormal), so each sets its own, and puts back what it found.
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

// Below this many elements a thread, waking it costs more than it saves (about 2 us against 0.1 ns an element in
// cache).
constexpr int64_t kElementsPerThread = 32768;
constexpr int64_t kAlignment = 64;  // threads meet at multiples of this many elements: no cache line has two writers

// Steps the elements [begin, end) of all tensors laid end to end.
void step_span(StepRange range, const Step& step, const std::vector<Tensor>& tensors, int64_t begin, int64_t end) {
  const DefaultFloatingPoint scope;
  int64_t first = 0;
  for (const Tensor& tensor : tensors) {
    const int64_t last = first + tensor.count;
    if (last > begin && first < end) {
      const auto cut = [&](int64_t at) {  // a position inside this tensor, on an aligned boundary of it
        return at <= first ? 0 : at >= last ? tensor.count : (at - first) / kAlignment * kAlignment;
      };
      range(step, tensor, cut(begin), cut(end));
    }
    first = last;
  }
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

void step_all(const Isa& isa, Dtype dtype, const Step& step, const std::vector<Tensor>& tensors, int threads) {
  const StepRange range = isa.step[static_cast<int>(dtype)];
  int64_t total = 0;
  for (const Tensor& tensor : tensors) total += tensor.count;
  const int64_t useful = std::min<int64_t>(threads, total / kElementsPerThread);
  if (useful <= 1) return step_span(range, step, tensors, 0, total);
#pragma omp parallel num_threads(static_cast<int>(useful))
  {
    const int64_t index = omp_get_thread_num(), count = omp_get_num_threads();
    step_span(range, step, tensors, total * index / count, total * (index + 1) / count);
  }
}
