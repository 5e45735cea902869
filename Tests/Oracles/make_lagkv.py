"""Writes Fixtures/lagkv: LagKV scores and kept tokens, and attention under its chunk mask, in float64."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lag_attention import attention_cases
from lagkv import Cache, Lag, run, run_schedules
from lagkv_cases import add, finite, keeps, outcome, parameters, random_cases, rounded, sizes, smallest_gap
from oracle_io import Blob, write_json

if TYPE_CHECKING:
    import torch

WHOLE_TOKENS = 1200
WHOLE_LAG = Lag(16, 128, 0.25)
STORED_TOKENS = 700
STORED_LAYERS = (4, 20)
STORED_LAGS = (Lag(16, 128, 0.5), Lag(16, 128, 0.25), Lag(16, 32, 0.25))

Layers = list[tuple[np.ndarray, np.ndarray]]


def by_token(z: "torch.Tensor") -> np.ndarray:
    """[n, Hk, D] of [1, Hk, n, D]."""
    return z[0].transpose(0, 1).contiguous().numpy()


def model_layers(model_path: Path, ids: np.ndarray) -> Layers:
    """Keys with their rotary embedding, and values, [n, Hk, D] in float32, of every layer."""
    # Here, since the other cases are made without a model.
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(
        str(model_path.parent), gguf_file=model_path.name, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    with torch.no_grad():
        tokens = torch.from_numpy(ids.astype(np.int64))[None]
        cache = model(tokens, use_cache=True, logits_to_keep=1).past_key_values
    return [(by_token(layer.keys), by_token(layer.values)) for layer in cache.layers]


def files(blobs: dict[str, Blob], out: Path, stem: str) -> dict[str, object]:
    return {kind: blob.write(out / f"{stem}.{kind}") for kind, blob in blobs.items()}


def new_blobs() -> dict[str, Blob]:
    return {"f32": Blob("f4"), "u16": Blob("u2")}


def check_channel_order(keys: np.ndarray, values: np.ndarray, lag: Lag, cache: Cache) -> None:
    """Scores do not depend on the order of the channels: it may be that of either style of rotary embedding."""
    half = keys.shape[-1] // 2
    interleaved = np.arange(2 * half).reshape(2, half).T.reshape(-1)
    other = run(keys[..., interleaved], values, lag, [len(keys)])
    assert np.allclose(other.stacked_scores(), cache.stacked_scores(), rtol=1e-12, atol=0)
    assert np.array_equal(other.positions, cache.positions)


def stored_layer(blobs: dict[str, Blob], index: int, layers: Layers) -> dict[str, object]:
    """The start of one layer rounded to bfloat16, and what is kept of those values."""
    (keys, stored_keys), (values, stored_values) = (rounded(z[:STORED_TOKENS], "bf16") for z in layers[index])
    cases = []
    for lag in STORED_LAGS:
        caches = run_schedules(keys, values, lag, STORED_TOKENS // 2)
        check_channel_order(keys, values, lag, caches["oneshot"])
        cases.append(
            {
                "parameters": parameters(lag, *keys.shape),
                "smallest_gap": finite(smallest_gap(caches["oneshot"])),
                "arrays": outcome(blobs, caches["oneshot"]),
            }
        )
    arrays = {"keys": add(blobs, stored_keys, "u16"), "values": add(blobs, stored_values, "u16")}
    return {"layer": index, "dtype": "bf16", "arrays": arrays, "cases": cases}


def whole_model(blobs: dict[str, Blob], layers: Layers) -> dict[str, object]:
    caches = [run(keys, values, WHOLE_LAG, [len(keys)]) for keys, values in layers]
    return {
        "parameters": {"layers": len(layers), **parameters(WHOLE_LAG, *layers[0][0].shape)},
        "smallest_gap": min(smallest_gap(cache) for cache in caches),
        "arrays": {
            "kept": add(blobs, np.stack([cache.positions for cache in caches]), "u16"),
            "gaps": add(blobs, np.stack([cache.gaps() for cache in caches]), "f32"),
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, help="SmolLM2-135M-Instruct GGUF file")
    parser.add_argument("fixtures", type=Path, help="the Fixtures folder, with tokenizer/persuasion.u16")
    arguments = parser.parse_args()
    out: Path = arguments.fixtures / "lagkv"

    blobs = new_blobs()
    cases = {"sizes": sizes(), "keeps": keeps(), "cases": random_cases(blobs), "attention": attention_cases(blobs)}
    write_json(out / "cases.json", {"files": files(blobs, out, "cases"), **cases})

    ids = np.fromfile(arguments.fixtures / "tokenizer" / "persuasion.u16", dtype="<u2")[:WHOLE_TOKENS]
    layers = model_layers(arguments.model, ids)
    blobs = new_blobs()
    real = {
        "stored": [stored_layer(blobs, index, layers) for index in STORED_LAYERS],
        "whole": whole_model(blobs, layers),
    }
    write_json(out / "smollm2.json", {"files": files(blobs, out, "smollm2"), **real})


if __name__ == "__main__":
    main()
