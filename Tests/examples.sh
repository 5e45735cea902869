#!/bin/sh
# Builds and runs the examples in README.md: the C one against an installed library by pkg-config, the Swift one as a
# package that depends on this one. Needs the model's path in LONGSPAN_MODEL for the Swift one.
set -eu
cd "$(dirname "$0")/.."
root=$PWD
work=.build/examples
rm -rf $work/c && mkdir -p $work/c $work/swift/Sources/example

# The first code block of a language in the README.
block() { awk -v fence="\`\`\`$1" '$0 == fence { inside = 1; next } inside && /^```/ { exit } inside' README.md; }

block c >$work/c/example.c
cmake -S CKernels -B $work/build -G Ninja -DCMAKE_C_COMPILER=gcc -DBUILD_TESTING=OFF \
  -DCMAKE_INSTALL_PREFIX="$root/$work/prefix" >$work/log 2>&1 || { cat $work/log; exit 1; }
cmake --build $work/build >$work/log && cmake --install $work/build >$work/log
export PKG_CONFIG_PATH="$root/$work/prefix/lib/pkgconfig:$root/$work/prefix/lib/x86_64-linux-gnu/pkgconfig"
gcc -std=c11 -Wall -Wextra -Wconversion -Werror $work/c/example.c $(pkg-config --cflags --libs longspan) -o $work/c/example
LD_LIBRARY_PATH=$(pkg-config --variable=libdir longspan) $work/c/example | tee $work/c/output
# each query's weights over its keys sum to one, and only the first value is not zero in its first channel
grep -q '^ok: 0\.' $work/c/output

# the Swift package over the installed library instead of one of its own
LONGSPAN_SYSTEM=1 swift build --scratch-path $work/system --product longspan >$work/log 2>&1 || { cat $work/log; exit 1; }
LD_LIBRARY_PATH=$(pkg-config --variable=libdir longspan) $work/system/debug/longspan info | head -2

[ -n "${LONGSPAN_MODEL:-}" ] || { echo "SKIPPED: the Swift example, which needs SmolLM2"; exit 0; }
block swift >$work/swift/Sources/example/main.swift
cat >$work/swift/Package.swift <<MANIFEST
// swift-tools-version: 6.2
import PackageDescription
let package = Package(
  name: "example", dependencies: [.package(name: "longspan", path: "$root")],
  targets: [
    .executableTarget(name: "example", dependencies: [.product(name: "LongspanModels", package: "longspan")])
  ])
MANIFEST
swift build --package-path $work/swift >$work/log 2>&1 || { cat $work/log; exit 1; }
$work/swift/.build/debug/example "$LONGSPAN_MODEL" | tee $work/swift/output
grep -q Paris $work/swift/output
