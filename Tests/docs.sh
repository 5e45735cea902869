#!/bin/sh
# Checks the documentation of the C library: Doxygen finds a comment on everything that the headers declare, and the
# programs of the guides (blocks "```c run", "```cpp run" and "```python run") compile and run against the libraries in a
# build folder: docs.sh [BUILD_DIR]. Without one it builds them in .build/docs/k.
set -eu
cd "$(dirname "$0")/.."
work=.build/docs
rm -rf $work/programs && mkdir -p $work/programs
build=${1:-}

if CKernels/setup.sh doxygen >$work/log 2>&1; then
  (cd CKernels && DOXYGEN_OUTPUT="../$work" doxygen docs/Doxyfile)
  echo "the headers are documented"
else
  [ "${CI:-}" != true ] || { cat $work/log >&2; exit 1; }
  echo "SKIPPED: the headers' comments, because Doxygen cannot be installed"
fi

CKernels/setup.sh g++ python3
if [ -z "$build" ]; then
  build=$work/k
  cmake -S CKernels -B $build -G Ninja -DCMAKE_C_COMPILER=gcc -DBUILD_TESTING=OFF >$work/log 2>&1 ||
    { cat $work/log >&2; exit 1; }
  cmake --build $build >$work/log 2>&1 || { cat $work/log >&2; exit 1; }
fi
libomp=$(sed -n 's/^LSPAN_LIBOMP:FILEPATH=//p' "$build/CMakeCache.txt")
for guide in CKernels/docs/*.md; do
  awk -v stem="$work/programs/$(basename "$guide" .md)" '
    /^```(c|cpp|python) run$/ { language = substr($1, 4); file = stem "-" ++number "." language; next }
    /^```/ { file = "" }
    file { print >file }' "$guide"
done
export LD_LIBRARY_PATH="$build${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
count=0
for source in $work/programs/*.c $work/programs/*.cpp $work/programs/*.python; do
  [ -e "$source" ] || { echo "no program ${source##*.} in CKernels/docs" >&2; exit 1; }
  program=$source-program
  case $source in
    *.c) compile="gcc -std=c11 -Wall -Wextra -Wconversion -Werror" ;;
    *.cpp) compile="g++ -std=c++17 -Wall -Wextra -pedantic -Werror" ;;
    *.python) compile= program="python3 $source" ;;
  esac
  [ -z "$compile" ] || $compile -ICKernels/include "$source" "$build/liblongspan.a" "$libomp" \
    $(pkg-config --libs openblas hwloc) -lm -o "$program"
  $program || { echo "$source: exit code $?" >&2; exit 1; }
  count=$((count + 1))
done
echo "$count programs of the guides compile and run"
