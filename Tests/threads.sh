#!/bin/sh
# Runs kernels from many threads at once under ThreadSanitizer: the C library's concurrency test on every ISA variant, and
# the examples with thread pools of their own. libomp tells the sanitizer of its barriers through Archer. The sanitizer
# does not look at accesses of 32 and 64 bytes, so it is the scalar variant, which has the same bodies, that it sees whole.
set -eu
cd "$(dirname "$0")/.."
build=.build/tests/threads
mkdir -p $build
CKernels/setup.sh g++
swift=$(readlink -f "$(command -v swift)")
clang=$(dirname "$swift")/clang
# Swift's sanitizer runtime wants libdispatch
dispatch=$(dirname "$swift")/../lib/swift/linux
archer=$(find /usr/lib/llvm-*/lib -name libarcher.so 2>/dev/null | head -n 1)
[ -x "$clang" ] && [ -e "$dispatch/libdispatch.so" ] && [ -n "$archer" ] || {
  echo "threads.sh needs the clang of a Swift toolchain, its libdispatch, and Archer of libomp's package" >&2
  exit 1
}
libraries="-L$dispatch -Wl,-rpath,$dispatch -ldispatch -lBlocksRuntime"
cmake -S CKernels -B $build -G Ninja -DCMAKE_C_COMPILER="$clang" -DLSPAN_BUILD_SHARED=OFF -DLSPAN_SANITIZE=thread \
  -DCMAKE_EXE_LINKER_FLAGS="$libraries" >$build.log 2>&1 || { cat $build.log; exit 1; }
cmake --build $build --target concurrency_test

omp=$(grep '^LSPAN_LIBOMP:' $build/CMakeCache.txt | cut -d= -f2)
compile() { # OUTPUT SOURCE
  case $2 in *.cpp) compiler=$clang++ standard=c++17 ;; *) compiler=$clang standard=c11 ;; esac
  $compiler -std=$standard -g -O1 -fsanitize=thread -ICKernels/include -ICKernels/examples "$2" $build/liblongspan.a \
    "$omp" $(pkg-config --libs openblas hwloc) $libraries -pthread -lm -o "$1"
}
export OMP_TOOL_LIBRARIES="$archer" OMP_WAIT_POLICY=passive
export TSAN_OPTIONS="ignore_noninstrumented_modules=1 exitcode=66"

$build/tests/concurrency_test
export LONGSPAN_ISA=scalar
for program in pthread_executor.c concurrent_contexts.c pool_executor.cpp; do
  compile $build/example CKernels/examples/$program
  $build/example
done

# What has to be found: two threads that give a call the same output.
cat >$build/racing.c <<'C'
#include "example.h"
#include <pthread.h>

static example shared;

static void *call(void *context)
{
    for (int i = 0; i < 100; i++) example_run(&shared, context);
    return NULL;
}

int main(void)
{
    lspan_context_options options = {.threads = 2};
    lspan_context *context;
    pthread_t other;
    if (lspan_context_create(&options, &context) != lspan_status_ok) return 1;
    example_make(&shared, 500, 1);
    if (pthread_create(&other, NULL, call, context) != 0) return 1;
    call(context);
    pthread_join(other, NULL);
    return 0;
}
C
compile $build/racing $build/racing.c
status=0
$build/racing >$build.log 2>&1 || status=$?
[ $status = 66 ] && grep -q 'WARNING: ThreadSanitizer: data race' $build.log || {
  cat $build.log
  echo "threads.sh: two calls with one output passed for free of races (status $status)" >&2
  exit 1
}
echo "no race, and the one made on purpose was found"
