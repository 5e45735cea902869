"""Writes Fixtures/typeseg: what the byte classifier of the package typeseg 0.2.7 says of real files, by its own numpy code.

The first argument is the folder of its unpacked wheel; the files follow the folder of fixtures.
"""

import argparse
import importlib.util
from pathlib import Path

import numpy as np

from oracle_io import Blob, write_json

BYTES = 400


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("typeseg", type=Path)
    parser.add_argument("fixtures", type=Path)
    parser.add_argument("files", type=Path, nargs="+")
    arguments = parser.parse_args()
    spec = importlib.util.spec_from_file_location("kernel", arguments.typeseg / "typeseg/_mamba_kernel.py")
    kernel = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(kernel)
    weights = {
        key.replace("__", "/"): value for key, value in np.load(arguments.typeseg / "typeseg/data/mamba_al.npz").items()
    }
    folder = arguments.fixtures / "typeseg"
    blob = Blob()
    cases = []
    for file in arguments.files:
        data = file.read_bytes()[:BYTES]
        logits = kernel.mamba_forward(np, weights, np.frombuffer(data, np.uint8))
        cases.append({"file": file.name, "latin1": data.decode("latin-1"), "logits": blob.add(logits)})
    write_json(folder / "typeseg.json", {"file": blob.write(folder / "typeseg.f32"), "cases": cases})


if __name__ == "__main__":
    main()
