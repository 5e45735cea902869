"""Writing fixtures: JSON metadata and raw little-endian arrays."""

import hashlib
import json
from pathlib import Path

import numpy as np


def write_json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=True, indent=1) + "\n", encoding="ascii")


def write_array(path: Path, array: np.ndarray, dtype: str) -> dict[str, object]:
    """Writes `array` as little-endian `dtype` ("f4", "u2", "u1") and returns its description."""
    data = np.ascontiguousarray(array).astype("<" + dtype).tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return {
        "file": path.name,
        "shape": list(array.shape),
        "sha256": hashlib.sha256(data).hexdigest(),
    }


class Blob:
    """Collects arrays of one type ("f4", "u2") into one file; offsets and counts are in elements."""

    def __init__(self, dtype: str = "f4") -> None:
        self.dtype = dtype
        self.parts: list[np.ndarray] = []
        self.size = 0

    def add(self, array: object) -> dict[str, object]:
        values = np.asarray(array, dtype=self.dtype)
        entry = {"offset": self.size, "count": int(values.size), "shape": list(values.shape)}
        self.parts.append(values.reshape(-1))
        self.size += int(values.size)
        return entry

    def write(self, path: Path) -> dict[str, object]:
        return write_array(path, np.concatenate(self.parts), self.dtype)
