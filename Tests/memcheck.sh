#!/bin/sh
# Runs the C library's tests under valgrind's memcheck, which finds reads of memory that was never written. It hides
# AVX-512 from programs, so kernels run their AVX2 bodies; long tests run one of 32 cases. memcheck.sh [BUILD_DIR]
set -eu
cd "$(dirname "$0")/.."
build=${1:-.build/tests/gcc}
CKernels/setup.sh valgrind
[ -d "$build/tests" ] || cmake -S CKernels -B "$build" -G Ninja -DCMAKE_C_COMPILER=gcc >/dev/null
cmake --build "$build" >/dev/null
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export LONGSPAN_TEST_ISA=avx2 LONGSPAN_TEST_SAMPLE=32 OMP_WAIT_POLICY=passive

# 77: the test has been built without what it needs
check='name=$(basename "$1"); began=$(date +%s)
valgrind -q --error-exitcode=9 "$1" >"$work/$name.found" 2>&1 || [ $? = 77 ] || { cat "$work/$name.found"; exit 255; }
echo "$name: $(($(date +%s) - began)) s"'

# What has to be found: a kernel call whose input was never written.
cat >"$work/unwritten.c" <<'C'
#include "example.h"

int main(void)
{
    lspan_context *context;
    example e;
    if (lspan_context_create(NULL, &context) != lspan_status_ok) return 1;
    example_make(&e, 10, 1);
    float *unwritten = malloc(10 * EXAMPLE_KV_HEADS * EXAMPLE_DIM * sizeof *unwritten);
    e.attention.keys.data = unwritten;
    int failed = example_run(&e, context);
    free(unwritten);
    if (e.output[0] > 0) puts("positive");
    return failed;
}
C
gcc -g -ICKernels/include -ICKernels/examples "$work/unwritten.c" "$build/liblongspan.a" \
  "$(grep '^LSPAN_LIBOMP:' "$build/CMakeCache.txt" | cut -d= -f2)" $(pkg-config --libs openblas hwloc) -lm -o "$work/unwritten"
export work
if sh -c "$check" check "$work/unwritten" >"$work/log" 2>&1 || ! grep -q 'uninitialised value' "$work/log"; then
  cat "$work/log"
  echo "memcheck.sh: a call that reads unwritten keys passed" >&2
  exit 1
fi

# Not these: two replace or count the allocations that valgrind replaces too, one makes the calls of concurrency_test again,
# one reads the caches, which valgrind invents.
left_out='/(allocation|leak|determinism|topology)_test$'
ls "$build"/tests/*_test | grep -Ev "$left_out" | xargs -P 2 -I TEST sh -c "$check" check TEST
