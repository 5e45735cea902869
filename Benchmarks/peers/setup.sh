#!/bin/sh
# Installs and builds what run.py and models.py compare: PyTorch, transformers, onnxruntime and OpenVINO from PyPI in a
# virtual environment, ggml and llama-bench from the source package of llama-cpp-python, this library, and the two
# engines in C and C++. What is there is kept.
#
#     JOBS=4 Benchmarks/peers/setup.sh      compiles with four jobs instead of two
#     Benchmarks/peers/setup.sh ggml        builds ggml alone, for ../integrations/ggml
#
# Takes 7 GiB of disk, ggml alone 0.3 GiB. LONGSPAN_PEERS names another folder than .build/peers for what is not ours.
set -eu
cd "$(dirname "$0")/../.."
root=$PWD
jobs=${JOBS:-2}
only=${1:-}
peers=${LONGSPAN_PEERS:-$root/.build/peers}
llama_cpp_python=0.3.36

CKernels/setup.sh g++ python3-venv libjemalloc2

mkdir -p "$peers"
# a link to what another checkout has built must not build it anew under another name
peers=$(cd "$peers" && pwd -P)
[ -x "$peers/venv/bin/python" ] || python3 -m venv "$peers/venv"
if [ "$only" != ggml ]; then
  "$peers/venv/bin/pip" install --quiet --disable-pip-version-check --requirement Benchmarks/peers/requirements.txt
fi

source=$peers/sdist/llama_cpp_python-$llama_cpp_python/vendor/llama.cpp
if [ ! -d "$source" ]; then
  "$peers/venv/bin/pip" download --quiet --disable-pip-version-check --no-deps --no-binary llama-cpp-python \
    --dest "$peers/sdist" "llama-cpp-python==$llama_cpp_python"
  tar -xzf "$peers/sdist/llama_cpp_python-$llama_cpp_python.tar.gz" -C "$peers/sdist"
fi
# the pointer to a repository that the package does not carry makes every build configure anew
rm -f "$source/.git"
# llama.cpp's own defaults, which ggml by itself does not have, come with configuring all of it; llama-bench then runs on
# the very ggml that run.py times
cmake -S "$source" -B "$peers/ggml" -G Ninja -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=ON -DGGML_NATIVE=ON \
  -DGGML_OPENMP=ON -DGGML_CCACHE=OFF -DLLAMA_BUILD_COMMON=ON -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF \
  -DLLAMA_BUILD_TOOLS=ON -DLLAMA_BUILD_SERVER=OFF -DLLAMA_BUILD_APP=OFF -DLLAMA_OPENSSL=OFF >"$peers/ggml-configure.log"
ninja -C "$peers/ggml" "-j$jobs" ggml ggml-cpu
[ "$only" != ggml ] || exit 0
ninja -C "$peers/ggml" "-j$jobs" llama-bench

cmake -S Benchmarks/peers/engines -B .build/peers-engines -G Ninja -DCMAKE_BUILD_TYPE=Release \
  -DGGML_SOURCE="$source/ggml" -DGGML_BUILD="$peers/ggml"
ninja -C .build/peers-engines "-j$jobs" longspan-engine ggml-engine
echo "set up; next: $peers/venv/bin/python Benchmarks/peers/run.py, or models.py"
