"""Writes Fixtures/ssd: the scan of Mamba-2 as transformers computes it in chunks, in float64, checked against the recurrence."""

import argparse
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from transformers.models.mamba2.modeling_mamba2 import mamba2_chunk_scan

from oracle_io import Blob, write_json


def recurrence(t: dict[str, torch.Tensor], steps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Outputs [L, H, P] and the last state [H, P, N], a token at a time."""
    heads, groups = t["x"].shape[1], t["b"].shape[1]
    b = t["b"].repeat_interleave(heads // groups, dim=1)
    c = t["c"].repeat_interleave(heads // groups, dim=1)
    state = t["initial"].clone() if "initial" in t else torch.zeros(*t["x"].shape[1:], b.shape[2], dtype=torch.float64)
    rows = []
    for x, dt, b_t, c_t in zip(t["x"], steps, b, c):
        state = torch.exp(dt * t["a"])[:, None, None] * state + (dt[:, None] * x)[:, :, None] * b_t[:, None]
        rows.append(torch.einsum("hpn,hn->hp", state, c_t))
    y = torch.stack(rows)
    return y + t["d"][:, None] * t["x"] if "d" in t else y, state


def make_case(
    rng: np.random.Generator, blob: Blob, name: str, *, heads: int, groups: int, columns: int, states: int, tokens: int,
    chunk: int, limit: tuple[float, float] = (0.0, float("inf")), optional: tuple[str, ...] = (),
) -> dict[str, object]:
    """`optional` names the operands that are there of initial, bias, d and z."""
    f = lambda *shape: rng.standard_normal(shape).astype(np.float32)
    arrays = {
        "x": f(tokens, heads, columns), "dt": f(tokens, heads) - 1, "a": -np.exp(f(heads)),
        "b": f(tokens, groups, states), "c": f(tokens, groups, states),
    }
    shapes = {"initial": (heads, columns, states), "bias": (heads,), "d": (heads,), "z": (tokens, heads, columns)}
    arrays |= {key: f(*shapes[key]) for key in optional}
    t = {key: torch.from_numpy(value).double() for key, value in arrays.items()}
    # the chunked scan narrows to float32 what it multiplies
    with mock.patch.object(torch.Tensor, "float", torch.Tensor.double):
        y, state = mamba2_chunk_scan(
            t["x"][None], t["dt"][None], t["a"], t["b"][None], t["c"][None], chunk_size=chunk, D=t.get("d"),
            dt_bias=t.get("bias"), initial_states=t["initial"][None] if "initial" in t else None, dt_softplus=True,
            dt_limit=limit, return_final_states=True,
        )
    y, state = y.reshape(tokens, heads, columns), state.reshape(heads, columns, states)
    steps = torch.nn.functional.softplus(t["dt"] + t.get("bias", torch.zeros(1, dtype=torch.float64))).clamp(*limit)
    plain, plain_state = recurrence(t, steps)
    assert y.dtype == torch.float64 and torch.allclose(y, plain, rtol=1e-9, atol=1e-9)
    assert torch.allclose(state, plain_state, rtol=1e-9, atol=1e-9)
    if "z" in t:
        y = y * torch.nn.functional.silu(t["z"])
    arrays |= {"y": y.numpy(), "state": state.numpy()}
    return {
        "name": name,
        "parameters": {
            "tokens": tokens, "heads": heads, "groups": groups, "head_dim": columns, "state_size": states,
            "minimum": limit[0], "maximum": limit[1] if limit[1] < float("inf") else None,
        },
        "arrays": {key: blob.add(value) for key, value in arrays.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("fixtures", type=Path)
    folder = parser.parse_args().fixtures / "ssd"
    rng = np.random.default_rng(24)
    blob = Blob()
    cases = [
        make_case(rng, blob, "plain", heads=2, groups=1, columns=8, states=16, tokens=70, chunk=32),
        make_case(rng, blob, "everything", heads=4, groups=2, columns=12, states=20, tokens=75, chunk=16,
                  limit=(0.001, 0.5), optional=("initial", "bias", "d", "z")),
        make_case(rng, blob, "one-token", heads=3, groups=3, columns=5, states=7, tokens=1, chunk=8, optional=("initial", "d")),
        make_case(rng, blob, "long", heads=1, groups=1, columns=4, states=32, tokens=300, chunk=64, optional=("bias",)),
    ]
    write_json(folder / "ssd.json", {"file": blob.write(folder / "ssd.f32"), "cases": cases})


if __name__ == "__main__":
    main()
