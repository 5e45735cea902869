#!/bin/sh
# Builds and runs the examples in README.md: the C one against an installed library by pkg-config, the Swift ones as a
# package that depends on this one. Needs the model's path in LONGSPAN_MODEL for the Swift ones. examples.sh [BUILD_DIR],
# a CMake build of CKernels with both kinds of library, made if none is named.
set -eu
cd "$(dirname "$0")/.."
root=$PWD
work=.build/examples
rm -rf $work/c && mkdir -p $work/c $work/swift/Sources/generate $work/swift/Sources/compress $work/swift/Sources/filter

# The code block of a language in the README with a number, counted from 1.
block() {
  awk -v fence="\`\`\`$1" -v wanted="$2" '$0 == fence { inside = ++number == wanted; next }
    inside && /^```/ { exit } inside' README.md
}

block c 1 >$work/c/example.c
build=${1:-}
if [ -z "$build" ]; then
  build=$work/build
  cmake -S CKernels -B $build -G Ninja -DCMAKE_C_COMPILER=gcc -DBUILD_TESTING=OFF >$work/log 2>&1 ||
    { cat $work/log; exit 1; }
fi
cmake --build "$build" >$work/log && cmake --install "$build" --prefix "$root/$work/prefix" >$work/log
export PKG_CONFIG_PATH="$root/$work/prefix/lib/pkgconfig:$root/$work/prefix/lib/x86_64-linux-gnu/pkgconfig"
gcc -std=c11 -Wall -Wextra -Wconversion -Werror $work/c/example.c $(pkg-config --cflags --libs longspan) -o $work/c/example
LD_LIBRARY_PATH=$(pkg-config --variable=libdir longspan) $work/c/example | tee $work/c/output
# each query's weights over its keys sum to one, and only the first value is not zero in its first channel
grep -q '^ok: 0\.' $work/c/output

# the Swift package over the installed library instead of one of its own
LONGSPAN_SYSTEM=1 swift build --scratch-path $work/system --product longspan >$work/log 2>&1 || { cat $work/log; exit 1; }
LD_LIBRARY_PATH=$(pkg-config --variable=libdir longspan) $work/system/debug/longspan info | head -2
LD_LIBRARY_PATH=$(pkg-config --variable=libdir longspan) $work/system/debug/longspan calibrate --model mamba2 \
  --text Benchmarks/Data/recall-calibration.txt -o $work/calibration.json | tail -1

[ -n "${LONGSPAN_MODEL:-}" ] || { echo "SKIPPED: the Swift examples, which need SmolLM2"; exit 0; }
block swift 1 >$work/swift/Sources/generate/main.swift
block swift 2 >$work/swift/Sources/compress/main.swift
block swift 3 >$work/swift/Sources/filter/main.swift
cat >$work/swift/Package.swift <<MANIFEST
// swift-tools-version: 6.2
import PackageDescription
let products: [Target.Dependency] = [
  .product(name: "Longspan", package: "longspan"), .product(name: "LongspanModels", package: "longspan"),
]
let package = Package(
  name: "examples", dependencies: [.package(name: "longspan", path: "$root")],
  targets: [
    .executableTarget(name: "generate", dependencies: products),
    .executableTarget(name: "compress", dependencies: products),
    .executableTarget(name: "filter", dependencies: products),
  ])
MANIFEST
swift build --package-path $work/swift >$work/log 2>&1 || { cat $work/log; exit 1; }
$work/swift/.build/debug/generate "$LONGSPAN_MODEL" | tee $work/swift/output
grep -q Paris $work/swift/output
$work/swift/.build/debug/compress "$LONGSPAN_MODEL" | tee $work/swift/output
grep -q '^[0-9]* tokens in [0-9]* slots$' $work/swift/output
$work/swift/.build/debug/filter $work/calibration.json | tee $work/swift/output
grep -q ' bytes of state$' $work/swift/output
