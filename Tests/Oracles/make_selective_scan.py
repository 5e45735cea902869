"""Writes Fixtures/selective_scan: Mamba's scan as transformers computes it step by step, and two layers of a trained network.

The network is the byte classifier of the package typeseg 0.2.7 (Apache-2.0), bidirectional with a Mamba scan each way: what
its layers give their scans is taken as it runs, and the scans are done here in float64. The first argument is the folder of
its unpacked wheel.
"""

import argparse
import importlib.util
from pathlib import Path

import numpy as np
import torch
from transformers.models.mamba.modeling_mamba import mamba_selective_scan

from oracle_io import Blob, write_json

DOCUMENT = b"""<p>Total: <b>42</b></p>
def area(r):
    return 3.14 * r ** 2  # m^2
SELECT name FROM users WHERE id = 7;
The rain fell all night.
"""
LAYERS = [0, 5]
CHANNELS = 40


def random_case(rng: np.random.Generator, blob: Blob, name: str, *, channels: int, states: int, tokens: int, **options):
    """One sequence; options: softplus, bias, skip, gate."""
    f = lambda *shape: rng.standard_normal(shape).astype(np.float32)
    arrays = {"u": f(tokens, channels), "dt": f(tokens, channels) - 1, "b": f(tokens, states), "c": f(tokens, states)}
    arrays["a"] = -np.exp(f(channels, states))
    if not options.get("softplus"):
        arrays["dt"] = np.abs(arrays["dt"]) * np.float32(0.1)
    if options.get("bias"):
        arrays["bias"] = f(channels)
    if options.get("skip"):
        arrays["d"] = f(channels)
    if options.get("gate"):
        arrays["z"] = f(tokens, channels)
    t = {key: torch.from_numpy(value).double() for key, value in arrays.items()}
    rows = lambda key: t[key].T[None] if key in t else None
    y, state = mamba_selective_scan(
        rows("u"), rows("dt"), t["a"], rows("b"), rows("c"), t.get("d"), rows("z"), t.get("bias"),
        delta_softplus=bool(options.get("softplus")), return_last_state=True,
    )
    arrays["y"], arrays["state"] = y[0].T.numpy(), state[0].numpy()
    return entry(blob, name, arrays, bool(options.get("softplus")))


def entry(blob: Blob, name: str, arrays: dict[str, np.ndarray], softplus: bool) -> dict[str, object]:
    tokens, channels = arrays["u"].shape
    return {
        "name": name,
        "parameters": {"tokens": tokens, "channels": channels, "states": arrays["a"].shape[1], "softplus": int(softplus)},
        "arrays": {key: blob.add(value) for key, value in arrays.items()},
    }


def scan(u, dt, b, c, a, d):
    """In float64."""
    u, dt, b, c, a, d = (np.asarray(x, np.float64) for x in (u, dt, b, c, a, d))
    state = np.zeros_like(a)
    y = np.empty_like(u)
    for t in range(len(u)):
        state = np.exp(dt[t][:, None] * a) * state + (dt[t] * u[t])[:, None] * b[t]
        y[t] = state @ c[t] + d * u[t]
    return y, state


def trained_cases(blob: Blob, folder: Path) -> list[dict[str, object]]:
    spec = importlib.util.spec_from_file_location("kernel", folder / "typeseg/_mamba_kernel.py")
    kernel = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(kernel)
    weights = {key.replace("__", "/"): value for key, value in np.load(folder / "typeseg/data/mamba_al.npz").items()}
    seen = []

    def watch(_, u, dt, b, c, a, d):
        y, state = scan(u, dt, b, c, a, d)
        seen.append({"u": u, "dt": dt, "b": b, "c": c, "a": a, "d": d, "y": y, "state": state})
        return y.astype(np.float32)

    kernel.mamba_forward(np, weights, np.frombuffer(DOCUMENT, np.uint8), scan=watch)
    cases = []
    for layer in LAYERS:
        for way, name in enumerate(["forward", "backward"]):
            # channels do not see each other
            part = {key: value if key in "bc" else value[:, :CHANNELS] if key in ("u", "dt", "y") else value[:CHANNELS]
                    for key, value in seen[2 * layer + way].items()}
            cases.append(entry(blob, f"trained layer {layer} {name}", part, False))
    return cases


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("typeseg", type=Path)
    parser.add_argument("fixtures", type=Path)
    arguments = parser.parse_args()
    folder = arguments.fixtures / "selective_scan"
    rng = np.random.default_rng(7)
    blob = Blob()
    cases = [
        random_case(rng, blob, "everything", channels=19, states=16, tokens=33, softplus=True, bias=True, skip=True, gate=True),
        random_case(rng, blob, "plain", channels=6, states=4, tokens=20),
        random_case(rng, blob, "long", channels=3, states=5, tokens=300, softplus=True, skip=True),
    ]
    cases += trained_cases(blob, arguments.typeseg)
    write_json(folder / "selective_scan.json", {"file": blob.write(folder / "selective_scan.f32"), "cases": cases})


if __name__ == "__main__":
    main()
