#!/bin/sh
# Tests the Python package, with PyTorch and transformers, against the shared library: check.sh [BUILD_DIR]
# BUILD_DIR is a CMake build of CKernels with a shared library, made if it is not there. The packages of requirements.txt
# are kept in .build/python/venv. Exit code 77: they could not be had, and nothing was tested.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../../.."
work=$PWD/.build/python
build=${1:-$work/k}
mkdir -p "$work"
quietly() { "$@" >"$work/log" 2>&1 || { tail -40 "$work/log" >&2; return 1; }; }
skip() { echo "skipped: $1" >&2; exit 77; }

python=$work/venv/bin/python
if ! cmp -s "$here/requirements.txt" "$work/installed"; then
  quietly python3 -m venv "$work/venv" || skip "python3 cannot make a virtual environment"
  quietly "$python" -m pip install --disable-pip-version-check -r "$here/requirements.txt" ||
    skip "the packages of requirements.txt cannot be installed"
  cp "$here/requirements.txt" "$work/installed"
fi

CKernels/setup.sh
quietly cmake -S CKernels -B "$build" -G Ninja -DCMAKE_C_COMPILER=gcc
quietly cmake --build "$build" --target longspan_shared
LONGSPAN_LIBRARY=$(cd "$build" && pwd)/$([ "$(uname)" = Darwin ] && echo liblongspan.dylib || echo liblongspan.so)
export LONGSPAN_LIBRARY PYTHONDONTWRITEBYTECODE=1 HF_HUB_OFFLINE=1
# OpenMP's threads of PyTorch and of the library give way to each other
export OMP_WAIT_POLICY=passive

cd "$here"
"$python" -m mypy --cache-dir "$work/mypy"
"$python" -m pytest -q -p no:cacheprovider
"$python" call_cost.py --batches 2 --calls 20 >"$work/call_cost.txt"
grep -q '"min_ns"' "$work/call_cost.txt" && echo "call_cost.py runs"
