#!/bin/sh
# Builds the C library for AArch64 with Debian's cross compiler, warnings as errors, and runs its tests under qemu-user.
# Needs Debian 12; installs the compiler and qemu. Libraries of the other architecture are unpacked into a folder of the
# build, not installed.
set -eu
cd "$(dirname "$0")/.."
work=$PWD/.build/tests
sysroot=$work/aarch64-sysroot build=$work/aarch64
CKernels/setup.sh gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user
mkdir -p "$work"
quietly() { "$@" >"$work/aarch64.log" 2>&1 || { cat "$work/aarch64.log" >&2; exit 1; }; }

# what the library links, and what those libraries need beyond the cross compiler's own
if [ ! -f "$sysroot/complete" ]; then
  echo "Fetching OpenBLAS, hwloc and libomp for arm64"
  rm -rf "$sysroot" && mkdir -p "$sysroot/apt/lists/partial" "$sysroot/packages"
  # package lists of their own: the machine's apt and dpkg need not know the architecture
  apt() {
    apt-get -qq -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o Dir::State="$sysroot/apt" \
      -o Dir::State::status=/dev/null -o Dir::Cache="$sysroot/apt" -o APT::Sandbox::User=root -o Debug::NoLocking=true "$@"
  }
  quietly apt update
  (cd "$sysroot/packages" && quietly apt download libopenblas-openmp-dev libopenblas0-openmp libgfortran5 \
    libhwloc-dev libhwloc15 libudev1 libomp-14-dev libomp5-14)
  for package in "$sysroot"/packages/*.deb; do dpkg-deb -x "$package" "$sysroot"; done
  rm -rf "$sysroot/apt" "$sysroot/packages"
  touch "$sysroot/complete"
fi

quietly cmake -S CKernels -B "$build" -G Ninja -DCMAKE_TOOLCHAIN_FILE="$PWD/CKernels/cmake/aarch64-linux-gnu.cmake" \
  -DLSPAN_SYSROOT="$sysroot" -DLSPAN_WERROR=ON
quietly cmake --build "$build"

# threads that wait must not spin: qemu's are many times slower than a CPU's
export OMP_WAIT_POLICY=passive

libraries=$sysroot/usr/lib/aarch64-linux-gnu
emulate() { # CPU PROGRAM
  qemu-aarch64 -cpu "$1" -L /usr/aarch64-linux-gnu \
    -E "LD_LIBRARY_PATH=$build:$libraries:$libraries/openblas-openmp:/usr/aarch64-linux-gnu/lib" "$2"
}

echo "Variants by CPU"
cat >"$work/aarch64-variants.c" <<'C'
#include <longspan/longspan.h>
#include <stdio.h>
int main(void)
{
    lspan_context *context = NULL;
    if (lspan_context_create(NULL, &context) != lspan_status_ok) return 1;
    printf("%s:", lspan_context_isa(context));
    for (size_t i = 0; i < lspan_isa_count(); i++) {
        if (lspan_isa_is_supported(i)) printf(" %s", lspan_isa_name(i));
    }
    printf("\n");
    lspan_context_destroy(context);
    return 0;
}
C
aarch64-linux-gnu-gcc -Wall -Wextra -Werror -ICKernels/include "$work/aarch64-variants.c" -o "$work/aarch64-variants" \
  -L"$build" -llongspan -Wl,-rpath-link,"$libraries:$libraries/openblas-openmp"
offers() { # CPU "VARIANT: VARIANTS"
  got=$(emulate "$1" "$work/aarch64-variants")
  echo "  $1 runs $got"
  [ "$got" = "$2" ] || { echo "expected $2" >&2; exit 1; }
}
offers cortex-a57 "neon: neon scalar"
offers neoverse-n1 "neondot: neondot neon scalar"
offers max "neonbf16: neonbf16 neondot neon scalar"

# the same program where instructions of later CPUs end it
for cpu in cortex-a57 neoverse-n1; do
  for test in product_edges_test measure_test rope_test; do
    emulate $cpu "$build/tests/$test" | tail -1
  done
done

# All tests, long ones by samples of one in six. The slowest leave out scalar, whose code is that of x86-64, and neondot,
# which has only the products of its own.
export LONGSPAN_TEST_SAMPLE=6
slow='^(attention_decode|attention_prefill|lag_attention|sparse_attention|selective_scan|ssd_scan|ssd_update|determinism|concurrency)_test$'
ctest --test-dir "$build" --output-on-failure -j "$(nproc)" --timeout 1200 -E "$slow"
LONGSPAN_TEST_ISA=neonbf16,neon ctest --test-dir "$build" --output-on-failure -j "$(nproc)" --timeout 1200 -R "$slow"
