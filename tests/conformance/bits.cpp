// Steps fixed pseudo-random tensors in every storage type and mode on the instruction sets linked in, and prints a hash
// of all bits written. The same line on every processor: see test_other_processors.py.
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <vector>

#include "adamas.hpp"

namespace {

constexpr int kCount = 3001;
uint64_t stream, hash;

uint32_t draw() {
  stream ^= stream << 13;
  stream ^= stream >> 7;
  stream ^= stream << 17;
  return static_cast<uint32_t>(stream >> 32);
}

float value() {
  const float sign_and_size = static_cast<float>(static_cast<int32_t>(draw())) * 0x1p-31f;
  return std::ldexp(sign_and_size, static_cast<int>(draw() % 60) - 40);
}

template <class T>
void add(std::vector<T>& values) {
  for (T& x : values) {
    if (x != x) x = 0;  // IEEE leaves the payload of a NaN open
    const unsigned char* bytes = reinterpret_cast<const unsigned char*>(&x);
    for (size_t i = 0; i < sizeof x; ++i) hash = (hash ^ bytes[i]) * 1099511628211ull;
  }
}

template <class S, class T>
void run(const Isa& isa, Dtype dtype, const Step& step, uint16_t infinity) {
  std::vector<S> param(kCount), grad(kCount);
  std::vector<T> m(kCount), v(kCount), v_max(kCount), ema(kCount);
  for (int i = 0; i < kCount; ++i) {
    const float second = value(), largest = value();
    param[i] = infinity ? static_cast<S>(draw()) : static_cast<S>(value());
    grad[i] = infinity ? static_cast<S>(draw()) : static_cast<S>(value());
    m[i] = value();
    v[i] = second * second;
    v_max[i] = largest * largest;
    ema[i] = value();
  }
  Tensor tensor{};
  tensor.param = param.data();
  tensor.grad = grad.data();
  tensor.exp_avg = m.data();
  tensor.exp_avg_sq = v.data();
  tensor.max_exp_avg_sq = v_max.data();
  tensor.ema = ema.data();
  tensor.count = kCount;
  std::vector<double> squares{isa.square[static_cast<int>(dtype)](tensor, 5, kCount)};
  isa.step[static_cast<int>(dtype)](step, tensor, 0, kCount);
  if (infinity) {
    for (S& x : param) x = (static_cast<uint16_t>(x) & 0x7FFF) > infinity ? S(0) : x;
  }
  add(param), add(grad), add(m), add(v), add(v_max), add(ema), add(squares);
}

// The same where moments or weights are stored in fewer bits, in rows of 300 elements.
template <class S>
void run_stored(const Isa& isa, const Step& step) {
  constexpr int kRows = 3, kColumns = 300, kAll = kRows * kColumns;
  const bool wide = step.storage.moments == Moments::wide, narrow = step.storage.moments == Moments::bfloat16;
  const auto number = [&](double scale) {
    const float x = static_cast<float>(scale * (static_cast<double>(draw() % 2001) - 1000));
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    if constexpr (sizeof(S) == 2)
      return static_cast<S>(step.storage.dtype == Dtype::float16 ? draw() & 0x3BFF : bits >> 16);
    if constexpr (sizeof(S) == 4) return static_cast<S>(x);
  };
  std::vector<S> param(kAll), grad(kAll);
  std::vector<float> first(kAll), second(kAll), ema(kAll), scales(3 * kRows * 2);
  std::vector<uint16_t> low(kAll);
  Tensor tensor{};
  tensor.param = param.data();
  tensor.grad = grad.data();
  tensor.exp_avg = first.data();
  tensor.exp_avg_sq = second.data();
  tensor.ema = ema.data();
  tensor.param_low = low.data();
  tensor.scale = scales.data();
  tensor.low = scales.data() + kRows * 2;
  tensor.high = scales.data() + kRows * 4;
  tensor.count = kAll;
  tensor.columns = wide || narrow ? kAll : kColumns;
  for (S& x : param) x = number(1e-3);
  for (int repeat = 0; repeat < 4; ++repeat) {
    for (S& x : grad) x = number(repeat == 2 ? 1e-9 : 1e-4);
    isa.stored(step, tensor, 0, kAll);
    add(param), add(grad), add(first), add(second), add(ema), add(low), add(scales);
  }
}

template <class T>
Factors<T> factors(bool l2, bool decoupled) {
  return {1, T(l2 ? 0.1 : 0),         T(0.999), T(0.001),       T(1e-3),        T(1e-9),
          0, T(decoupled ? 1e-4 : 0), 1,        {1, 1, T(0.1)}, {1, 1, T(0.01)}};
}

}  // namespace

int main() {
#if defined(__aarch64__)
  const Isa* const isas[] = {&kNeon, &kScalar};
#else
  const Isa* const isas[] = {&kScalar};
#endif
  for (const Isa* isa : isas) {
    stream = 88172645463325252ull;
    hash = 1469598103934665603ull;
    for (int mode = 0; mode < 12; ++mode) {
      const bool l2 = mode % 3 == 1, decoupled = mode % 3 == 2;
      Step step{};
      step.f32 = factors<float>(l2, decoupled);
      step.f64 = factors<double>(l2, decoupled);
      step.key = {0x12345678u, 0x9ABCDEF0u};
      step.decay = l2 ? Decay::l2 : decoupled ? Decay::decoupled : Decay::none;
      step.amsgrad = mode / 3 % 2 == 1;
      step.moves = mode < 6;
      step.averages = mode % 2 == 0;
      step.zero_grad = mode % 4 == 3;
      run<float, float>(*isa, Dtype::float32, step, 0);
      run<double, double>(*isa, Dtype::float64, step, 0);
      run<uint16_t, float>(*isa, Dtype::bfloat16, step, 0x7F80);
      run<uint16_t, float>(*isa, Dtype::float16, step, 0x7C00);
      step.amsgrad = false;
      for (const Moments moments : {Moments::wide, Moments::bfloat16, Moments::packed16, Moments::packed12}) {
        for (const int master_bits : {0, 24, 32}) {
          for (const bool stochastic : {false, true}) {
            step.storage = {Dtype::bfloat16, moments, master_bits, stochastic && master_bits != 32};
            if (!step.storage.plain()) run_stored<uint16_t>(*isa, step);
          }
        }
        step.storage = {Dtype::float32, moments, 0, false};
        if (!step.storage.plain()) run_stored<float>(*isa, step);
        step.storage = {Dtype::float16, moments, 0, true};
        run_stored<uint16_t>(*isa, step);
      }
    }
    std::printf("%s %016llx\n", isa->name, static_cast<unsigned long long>(hash));
  }
}
