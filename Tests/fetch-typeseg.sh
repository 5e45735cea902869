#!/bin/sh
# Downloads the trained byte classifier of the PyPI package typeseg (Apache-2.0), a bidirectional Mamba, checks it, unpacks its
# weights as .npy files, and prints their folder. Does nothing but print where they are there. Exit code 3: the package
# cannot be had.
set -eu
cd "$(dirname "$0")/.."
package=typeseg==0.2.7
wheel_sha256=b84357f687b879d951c7aa1e102ea0ca7d942ffc0177fd32de101981cc318442
weights_sha256=36c1f318b149d5508fedf127e2ffc0854c6eced79c815677f03fe8c43cb22a44
folder=.build/models/typeseg

matches() { [ -f "$1" ] && echo "$2  $1" | sha256sum --check --status; }

if ! matches "$folder/mamba_al.npz" "$weights_sha256"; then
  python3 -m pip --version >/dev/null 2>&1 || CKernels/setup.sh python3 python3-pip >&2
  mkdir -p .build/models
  work=$(mktemp -d .build/models/download.XXXXXX)
  trap 'rm -rf "$work"' EXIT
  python3 -m pip download --quiet --disable-pip-version-check --no-deps --dest "$work" "$package" >&2 ||
    { echo "fetch-typeseg: $package cannot be downloaded" >&2; exit 3; }
  wheel=$(ls "$work"/*.whl)
  matches "$wheel" "$wheel_sha256" || { echo "fetch-typeseg: $wheel is not the expected file" >&2; exit 1; }
  python3 -m zipfile -e "$wheel" "$work/content"
  weights=$work/content/typeseg/data/mamba_al.npz
  matches "$weights" "$weights_sha256" || { echo "fetch-typeseg: $weights is not the expected file" >&2; exit 1; }
  python3 -m zipfile -e "$weights" "$work/arrays"
  mv "$weights" "$work/arrays"
  rm -rf "$folder"
  mv "$work/arrays" "$folder"
fi
echo "$PWD/$folder"
