"""OpenVINO, served to run.py. Argument: the number of threads.

Variant `sdpa-expanded`: scaled_dot_product_attention on [1, Hq, tokens, D], K and V repeated for every query head,
which is not timed.
"""

import sys

import numpy as np
import openvino
from numpy.typing import NDArray
from openvino import opset13

from engine import Case, Floats, Row, bfloat16_to_float, float_to_bfloat16, serve

THREADS = int(sys.argv[1])
TYPES = {"f32": openvino.Type.f32, "bf16": openvino.Type.bf16}


def compile_model(case: Case) -> openvino.CompiledModel:
    kind = TYPES[case.dtype]
    shape = [1, case.query_heads, case.tokens, case.head_dim]
    parameters = [opset13.parameter(shape, kind, name) for name in ("q", "k", "v")]
    attention = opset13.scaled_dot_product_attention(*parameters, causal=True)
    model = openvino.Model([opset13.result(attention)], parameters, "attention")
    properties = {
        "INFERENCE_NUM_THREADS": THREADS,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": kind,
    }
    return openvino.Core().compile_model(model, "CPU", properties)


def make_array(values: Floats, dtype: str) -> NDArray[np.generic]:
    return values.copy() if dtype == "f32" else float_to_bfloat16(values)


def prepare(case: Case) -> Row:
    if case.variant != "sdpa-expanded" or case.window:
        raise ValueError(f"unknown variant {case.variant}")
    model = compile_model(case)
    q = case.queries().transpose(1, 0, 2)[None]
    k, v = (np.repeat(x, case.group, axis=0)[None] for x in case.keys_and_values())
    kept: list[object] = []
    calls = []
    for _ in range(case.copies):
        arrays = [make_array(x, case.dtype) for x in (q, k, v)]
        tensors = [openvino.Tensor(x, openvino.Shape(x.shape), TYPES[case.dtype]) for x in arrays]
        kept += [arrays, tensors]
        request = model.create_infer_request()
        for index, tensor in enumerate(tensors):
            request.set_input_tensor(index, tensor)
        calls.append(lambda request=request: (request.infer(), request)[1])

    def output(result: object) -> Floats:
        tensor: openvino.Tensor = result.get_output_tensor(0)  # type: ignore[attr-defined]
        shape = (case.query_heads, case.tokens, case.head_dim)
        values: NDArray[np.float32]
        if case.dtype == "f32":
            values = tensor.data.reshape(shape).copy()
        else:
            values = bfloat16_to_float(np.frombuffer(bytes(tensor.bytes_data), np.uint16)).reshape(shape)
        return np.ascontiguousarray(values.transpose(1, 0, 2))

    return Row(calls, output, kept)


if __name__ == "__main__":
    serve(f"openvino {openvino.__version__}, {THREADS} threads", prepare)
