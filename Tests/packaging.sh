#!/bin/sh
# Installs the C library as others would and uses it from outside: packaging.sh [BUILD_DIR]
# BUILD_DIR is a CMake build of CKernels with gcc and both kinds of library, made if it is not there.
set -eu
cd "$(dirname "$0")/.."
root=$PWD
build=${1:-.build/tests/gcc}
CKernels/setup.sh g++ make python3
clang=$(dirname "$(readlink -f "$(command -v swift)")")/clang
[ -x "$clang" ] || clang=clang
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
quietly() { "$@" >"$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }; }

quietly cmake -S CKernels -B "$build" -G Ninja -DCMAKE_C_COMPILER=gcc
quietly cmake --build "$build" --target longspan_static longspan_shared

echo "exported names, sizes, offsets and numbers against CKernels/abi"
python3 CKernels/abi/check.py --clang "$clang" --shared "$build/liblongspan.so" --static "$build/liblongspan.a"

echo "headers alone as C99, C11, C17 and C++17"
for header in "$root"/CKernels/include/longspan/*.h; do
  printf '#include "%s"\nint main(void) { return 0; }\n' "$header" >"$work/header.c"
  cp "$work/header.c" "$work/header.cpp"
  for compiler in gcc "$clang"; do
    for standard in c99 c11 c17; do
      "$compiler" -std=$standard -Wall -Wextra -pedantic -Werror -fsyntax-only "$work/header.c"
    done
  done
  for compiler in g++ "$clang++"; do
    "$compiler" -std=c++17 -Wall -Wextra -pedantic -Werror -fsyntax-only "$work/header.cpp"
  done
done
echo 'import CKernels
let context: OpaquePointer? = nil
print(lspan_context_workers(context), LSPAN_ABI)' >"$work/module.swift"
swiftc -typecheck -warnings-as-errors -I CKernels "$work/module.swift"

# installed, then moved: nothing may remember where it was
quietly cmake --install "$build" --prefix "$work/first"
mv "$work/first" "$work/both"
mkdir "$work/static-only"
quietly cmake -S CKernels -B "$work/static-build" -G Ninja -DCMAKE_C_COMPILER=gcc -DLSPAN_BUILD_SHARED=OFF \
  -DBUILD_TESTING=OFF
# the objects are those of the first build
cp "$build/liblongspan.a" "$work/static-build/"
quietly cmake --install "$work/static-build" --prefix "$work/static-only"

# The pkg-config folder of a prefix.
packages() { dirname "$(find "$1" -name longspan.pc)"; }

# Builds and runs the examples against a prefix by CMake and by make: try PREFIX KIND CC CXX
try() {
  echo "examples: $2 library of $(basename "$1"), $(basename "$3") and $(basename "$4"), CMake and make"
  rm -rf "$work/project" && cp -r CKernels/examples "$work/project"
  quietly cmake -S "$work/project" -B "$work/project/build" -G Ninja -DCMAKE_C_COMPILER="$3" -DCMAKE_CXX_COMPILER="$4" \
    -DCMAKE_PREFIX_PATH="$1" -DLONGSPAN_KIND="$2"
  quietly cmake --build "$work/project/build"
  quietly ctest --test-dir "$work/project/build" --output-on-failure
  PKG_CONFIG_PATH=$(packages "$1") quietly make -C "$work/project" CC="$3" CXX="$4" KIND="$2" check
}
for kind in shared static; do
  try "$work/both" $kind gcc g++
  try "$work/both" $kind "$clang" "$clang++"
done
try "$work/static-only" static gcc g++

echo "a shared library that is not there, a version that does not fit, link-time optimization"
refuses() { ! cmake -S "$work/project" -B "$work/refused" -G Ninja "$@" >"$work/log" 2>&1 && rm -rf "$work/refused"; }
refuses -DCMAKE_PREFIX_PATH="$work/static-only" -DLONGSPAN_KIND=shared
sed -i 's/longspan 0.1 REQUIRED/longspan 0.2 REQUIRED/' "$work/project/CMakeLists.txt"
refuses -DCMAKE_PREFIX_PATH="$work/both"
PKG_CONFIG_PATH=$(packages "$work/both") quietly make -B -C "$work/project" KIND=static FLAGS="-O2 -flto" check

echo "Swift over the static library alone"
PKG_CONFIG_PATH=$(packages "$work/static-only") LONGSPAN_SYSTEM=1 \
  quietly swift build --scratch-path .build/packaging --product longspan
.build/packaging/debug/longspan info | head -2
