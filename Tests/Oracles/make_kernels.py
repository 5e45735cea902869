"""Writes Fixtures/kernels: small cases of each kernel, computed by PyTorch in float64."""

import argparse
import math
from pathlib import Path

import torch
import torch.nn.functional as F

from attention_cases import attention_cases, attention_table
from oracle_io import Blob, write_array, write_json


def uniform(generator: torch.Generator, *shape: int, scale: float = 1.0) -> torch.Tensor:
    return scale * (2 * torch.rand(*shape, generator=generator) - 1)


def rope_case(blob: Blob, generator: torch.Generator, name: str, **p: object) -> dict[str, object]:
    """`p`: tokens, heads, head_dim, rotary_dim, style, theta, positions."""
    x = torch.randn(len(p["positions"]), p["heads"], p["head_dim"], generator=generator)
    rotary, half = p["rotary_dim"], p["rotary_dim"] // 2
    frequencies = (p["theta"] ** (-torch.arange(half).double() / half)).float()
    angle = torch.tensor(p["positions"]).double()[:, None, None] * frequencies.double()
    cosine, sine = angle.cos(), angle.sin()
    y = x.double()
    if p["style"] == "half":
        first, second = slice(0, half), slice(half, rotary)
    else:
        first, second = slice(0, rotary, 2), slice(1, rotary, 2)
    a, b = y[..., first].clone(), y[..., second].clone()
    y[..., first] = a * cosine - b * sine
    y[..., second] = b * cosine + a * sine
    arrays = {"x": blob.add(x), "frequencies": blob.add(frequencies), "out": blob.add(y)}
    return {"kernel": "rope", "name": name, "parameters": p, "arrays": arrays}


def rope_cases(blob: Blob, generator: torch.Generator) -> list[dict[str, object]]:
    near = [0, 1, 2, 3, 17, 100, 511]
    far = [4095, 8192, 131071, 1048575]
    whole = {"heads": 3, "head_dim": 24, "rotary_dim": 24, "theta": 10000.0}
    partial = {"heads": 2, "head_dim": 40, "rotary_dim": 12, "theta": 500000.0}
    return [
        rope_case(blob, generator, "half", style="half", positions=near, **whole),
        rope_case(blob, generator, "interleaved", style="interleaved", positions=near, **whole),
        rope_case(blob, generator, "half-partial", style="half", positions=near, **partial),
        rope_case(blob, generator, "interleaved-partial", style="interleaved", positions=near, **partial),
        rope_case(blob, generator, "half-far", style="half", positions=far, **whole),
    ]


def norm_cases(blob: Blob, generator: torch.Generator) -> list[dict[str, object]]:
    rows, columns = 5, 67
    x = torch.randn(rows, columns, generator=generator) * torch.tensor([1.0, 100.0, 1e-3, 0.0, 1.0])[:, None]
    x[4] += 30
    weight = 1 + 0.3 * torch.randn(columns, generator=generator)
    bias = torch.randn(columns, generator=generator)
    parameters = {"rows": rows, "columns": columns, "eps": 1e-5}
    d = x.double()
    rms = d * (d.square().mean(-1, keepdim=True) + parameters["eps"]).rsqrt() * weight.double()
    layer = F.layer_norm(d, (columns,), weight.double(), bias.double(), parameters["eps"])
    shared = {"x": blob.add(x), "weight": blob.add(weight)}
    return [
        {
            "kernel": "rms_norm",
            "name": "rms_norm",
            "parameters": parameters,
            "arrays": {**shared, "out": blob.add(rms)},
        },
        {
            "kernel": "layer_norm",
            "name": "layer_norm",
            "parameters": parameters,
            "arrays": {**shared, "bias": blob.add(bias), "out": blob.add(layer)},
        },
    ]


def gate_cases(blob: Blob, generator: torch.Generator) -> list[dict[str, object]]:
    """`out = activation(gate) * up`, over gates small, large and far out in both directions."""
    spread = torch.tensor([1.0, 10.0, 1e-3, 1e4])[:, None]
    gate, up = spread * uniform(generator, 4, 35), torch.randn(4, 35, generator=generator)
    gate[0, :2] = torch.tensor([0.0, -0.0])
    g, u = gate.double(), up.double()
    outputs = {
        "silu_mul": F.silu(g) * u,
        "gelu_tanh_mul": F.gelu(g, approximate="tanh") * u,
        # Through erfc, since 1 + erf(x) cancels where the gate is very negative.
        "gelu_erf_mul": g * 0.5 * torch.special.erfc(-g / math.sqrt(2.0)) * u,
    }
    shared = {"gate": blob.add(gate), "up": blob.add(up)}
    parameters = {"rows": 4, "columns": 35}
    return [
        {
            "kernel": kernel,
            "name": kernel,
            "parameters": parameters,
            "arrays": {**shared, "out": blob.add(out)},
        }
        for kernel, out in outputs.items()
    ]


def loss_case(blob: Blob, generator: torch.Generator) -> dict[str, object]:
    """NLL of the targets and entropy in nats; rows flat, peaked, huge, partly -inf, target at -inf."""
    rows, vocab = 6, 301
    scales = torch.tensor([1.0, 0.0, 30.0, 1e4, 3.0, 3.0])[:, None]
    logits = scales * torch.randn(rows, vocab, generator=generator)
    logits[4:, 5:250] = -math.inf
    targets = torch.tensor([7, 300, 0, int(logits[3].argmax()), 4, 100])
    log_p = logits.double().log_softmax(-1)
    arrays = {
        "logits": blob.add(logits),
        "nll": blob.add(-log_p.gather(1, targets[:, None])[:, 0]),
        "entropy": blob.add(torch.special.entr(log_p.exp()).sum(-1)),
    }
    parameters = {"rows": rows, "vocab": vocab, "targets": targets.tolist()}
    return {"kernel": "nll_entropy", "name": "nll_entropy", "parameters": parameters, "arrays": arrays}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="the Fixtures folder")
    out: Path = parser.parse_args().out / "kernels"
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(7)
    blob = Blob()
    attention = attention_cases(blob, generator)
    cases = [
        *attention,
        *rope_cases(blob, generator),
        *norm_cases(blob, generator),
        *gate_cases(blob, generator),
        loss_case(blob, generator),
    ]
    array = blob.write(out / "cases.f32")
    table = write_array(out / "attention.u32", attention_table(attention), "u4")
    write_json(out / "cases.json", {"array": array, "attention_table": table, "cases": cases})


if __name__ == "__main__":
    main()
