// Steps fixed pseudo-random tensors in every storage type and mode on the instruction sets linked in, and prints a hash
// of all bits written. The same line on every processor: see test_other_processors.py.
#include <cmath>
#include <cstdint>
#include <cstdio>
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
  const Tensor tensor{param.data(), grad.data(), m.data(), v.data(), v_max.data(), ema.data(), kCount, 0};
  std::vector<double> squares{isa.square[static_cast<int>(dtype)](tensor, 5, kCount)};
  isa.step[static_cast<int>(dtype)](step, tensor, 0, kCount);
  if (infinity) {
    for (S& x : param) x = (static_cast<uint16_t>(x) & 0x7FFF) > infinity ? S(0) : x;
  }
  add(param), add(grad), add(m), add(v), add(v_max), add(ema), add(squares);
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
      const Step step{factors<float>(l2, decoupled),
                      factors<double>(l2, decoupled),
                      l2,
                      decoupled,
                      mode / 3 % 2 == 1,
                      mode < 6,
                      mode % 2 == 0,
                      mode % 4 == 3};
      run<float, float>(*isa, Dtype::float32, step, 0);
      run<double, double>(*isa, Dtype::float64, step, 0);
      run<uint16_t, float>(*isa, Dtype::bfloat16, step, 0x7F80);
      run<uint16_t, float>(*isa, Dtype::float16, step, 0x7C00);
    }
    std::printf("%s %016llx\n", isa->name, static_cast<unsigned long long>(hash));
  }
}
