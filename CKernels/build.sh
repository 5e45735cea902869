#!/bin/sh
# Builds and installs the C kernels: build.sh BUILD_DIR [STAMP_DIR]
# STAMP_DIR gets a Swift file with the library's hash, so that SwiftPM relinks when the library changes.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
build=$1 stamp=${2:-}
for tool in cmake ninja gcc pkg-config; do
  command -v "$tool" >/dev/null || { echo "longspan: $tool not found: run CKernels/setup.sh" >&2; exit 1; }
done
mkdir -p "$build"
exec 9>"$build/lock"
flock 9
{
  cmake -S "$here" -B "$build" -G Ninja -DCMAKE_C_COMPILER=gcc -DCMAKE_INSTALL_PREFIX="$build/prefix" \
    -DLSPAN_BUILD_SHARED=OFF -DBUILD_TESTING=OFF &&
    cmake --build "$build" && cmake --install "$build"
} >"$build/log" 2>&1 || { tail -40 "$build/log" >&2; exit 1; }
if [ -n "$stamp" ]; then
  mkdir -p "$stamp"
  line="package let longspanBuildStamp = \"$(sha256sum <"$build/prefix/lib/liblongspan.a" | cut -c1-16)\""
  [ "$(cat "$stamp/LongspanBuildStamp.swift" 2>/dev/null || true)" = "$line" ] || echo "$line" >"$stamp/LongspanBuildStamp.swift"
fi
