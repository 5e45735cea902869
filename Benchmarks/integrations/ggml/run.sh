#!/bin/sh
# Builds the ggml adapter and checks it against ggml's own operators, or times it beside them:
#
#     Benchmarks/integrations/ggml/run.sh                        check
#     Benchmarks/integrations/ggml/run.sh bench [THREADS [SECONDS]]
#
# ggml is the one of ../../peers, which is built if it is not there (LONGSPAN_PEERS names another folder than
# .build/peers). longspan is found in LONGSPAN_PREFIX, or else built from this checkout and installed below .build.
# JOBS is the number of compilers at a time, CC the compiler of the adapter.
set -eu
cd "$(dirname "$0")/../../.."
root=$PWD
jobs=${JOBS:-2}
peers=${LONGSPAN_PEERS:-$root/.build/peers}
work=$root/.build/integrations/ggml
mkdir -p "$work"
quietly() { "$@" >"$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }; }

if [ ! -e "$peers/ggml/bin/libggml-cpu.so" ]; then Benchmarks/peers/setup.sh ggml; fi
source=$(echo "$peers"/sdist/llama_cpp_python-*/vendor/llama.cpp/ggml)

prefix=${LONGSPAN_PREFIX:-$work/prefix}
if [ -z "${LONGSPAN_PREFIX:-}" ]; then
  CKernels/setup.sh
  quietly cmake -S CKernels -B "$work/longspan" -G Ninja -DCMAKE_BUILD_TYPE=Release -DBUILD_TESTING=OFF
  quietly cmake --build "$work/longspan" "-j$jobs"
  quietly cmake --install "$work/longspan" --prefix "$prefix"
fi
quietly cmake -S Benchmarks/integrations/ggml -B "$work/build" -G Ninja -DCMAKE_PREFIX_PATH="$prefix" \
  -DGGML_SOURCE="$source" -DGGML_BUILD="$peers/ggml"
quietly cmake --build "$work/build" "-j$jobs"

program=${1:-check}
[ $# -eq 0 ] || shift
exec "$work/build/$program" "$@"
