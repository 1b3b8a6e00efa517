#!/usr/bin/env bash
# The native kernel under AddressSanitizer and UndefinedBehaviorSanitizer, through the Python tests, and under
# ThreadSanitizer, alone. The latter needs clang and LLVM's OpenMP with Archer, which tells the sanitizer about OpenMP's
# barriers (Debian: clang libomp-dev libclang-rt-dev); each part says what it lacks. Run by `make sanitize`.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${PYTHON:-.venv/bin/python}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

echo "== AddressSanitizer and UndefinedBehaviorSanitizer"
cmake -S . -B "$work/build" -DCMAKE_BUILD_TYPE=RelWithDebInfo -DPython_EXECUTABLE="$($python -c 'import sys; print(sys.executable)')" \
  -Dnanobind_DIR="$($python -m nanobind --cmake_dir)" \
  -DCMAKE_CXX_FLAGS="-fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer" >"$work/log"
cmake --build "$work/build" -j 2 >>"$work/log" || { tail -40 "$work/log"; exit 1; }
cp -r src "$work/src"
rm -f "$work"/src/adamas/kernels/_native*
cp "$work"/build/_native*.so "$work/src/adamas/kernels/"
# Python and torch leak by design at exit; the kernel's table holds nothing that could.
LD_PRELOAD="$(c++ -print-file-name=libasan.so):$(c++ -print-file-name=libubsan.so)" ASAN_OPTIONS=detect_leaks=0 \
  OMP_NUM_THREADS=2 PYTHONPATH="$work/src" "$python" -m pytest -q -x -p no:cacheprovider --require-native \
  tests/conformance/test_native.py tests/conformance/test_native_state.py tests/conformance/test_accuracy.py \
  tests/conformance/test_stored_native.py tests/frameworks/test_numpy.py \
  tests/fronts/test_memory.py tests/fronts/test_phase.py tests/fronts/test_stored_state.py

echo "== ThreadSanitizer"
clang=$(compgen -c clang++ | grep -E '^clang\+\+(-[0-9]+)?$' | sort -V | tail -1 || true)
[ -n "$clang" ] || { echo "clang++ is missing: install clang, libomp-dev and libclang-rt-dev"; exit 1; }
archer=$(find "$(dirname "$(dirname "$(readlink -f "$(command -v "$clang")")")")/lib" -name 'libarcher.so' | head -1)
[ -n "$archer" ] || { echo "libarcher.so is missing: install libomp-dev of $clang's version"; exit 1; }
flags=(-std=c++20 -O1 -g -fopenmp -fsanitize=thread -ffp-contract=off -fno-math-errno -Inative)
sources=(native/table.cpp native/step_scalar.cpp)
if [ "$(uname -m)" = x86_64 ]; then
  flags+=(-DADAMAS_HAS_AVX2 -DADAMAS_HAS_AVX512)
  "$clang" "${flags[@]}" -mavx2 -c native/step_avx2.cpp -o "$work/avx2.o"
  "$clang" "${flags[@]}" -mavx512f -mavx512bw -mavx512dq -mavx512vl -c native/step_avx512.cpp -o "$work/avx512.o"
  sources+=("$work/avx2.o" "$work/avx512.o")
else
  flags+=(-DADAMAS_HAS_NEON)
  sources+=(native/step_neon.cpp)
fi
export OMP_TOOL_LIBRARIES=$archer TSAN_OPTIONS=ignore_noninstrumented_modules=1
"$clang" "${flags[@]}" tests/native/races.cpp "${sources[@]}" -o "$work/races"
"$work/races"
"$clang" "${flags[@]}" -DPLANT tests/native/races.cpp "${sources[@]}" -o "$work/planted"
if "$work/planted" >"$work/report" 2>&1; then
  echo "the planted race was not found: this check cannot fail"
  exit 1
fi
grep -q 'ThreadSanitizer: data race' "$work/report"
echo "no race; the planted one was found"
