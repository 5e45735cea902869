#!/bin/sh
# Compiles and runs the C programs of the guides (blocks "```c run") against the static library in a build folder:
# docs.sh [BUILD_DIR]. Without one it builds the library in .build/docs/k.
set -eu
cd "$(dirname "$0")/.."
work=.build/docs
rm -rf $work/c && mkdir -p $work/c
build=${1:-}
if [ -z "$build" ]; then
  build=$work/k
  cmake -S CKernels -B $build -G Ninja -DCMAKE_C_COMPILER=gcc -DBUILD_TESTING=OFF -DLSPAN_BUILD_SHARED=OFF \
    >$work/log 2>&1 || { cat $work/log; exit 1; }
  cmake --build $build >$work/log 2>&1 || { cat $work/log; exit 1; }
fi
libomp=$(sed -n 's/^LSPAN_LIBOMP:FILEPATH=//p' "$build/CMakeCache.txt")
for guide in CKernels/docs/*.md; do
  awk -v stem="$work/c/$(basename "$guide" .md)" '
    /^```c run$/ { file = stem "-" ++number ".c"; next }
    /^```/ { file = "" }
    file { print >file }' "$guide"
done
count=0
for source in $work/c/*.c; do
  program=${source%.c}
  gcc -std=c11 -Wall -Wextra -Wconversion -Werror -ICKernels/include "$source" "$build/liblongspan.a" "$libomp" \
    $(pkg-config --libs openblas hwloc) -lm -o "$program"
  "$program" || { echo "$source: exit code $?" >&2; exit 1; }
  count=$((count + 1))
done
[ "$count" -gt 0 ] || { echo "no program in CKernels/docs" >&2; exit 1; }
echo "$count programs of the guides compile and run"
