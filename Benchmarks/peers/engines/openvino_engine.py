"""OpenVINO, served to run.py. Argument: the number of threads.

Variant `sdpa-expanded`: scaled_dot_product_attention on [1, Hq, tokens, D], K and V repeated for every query head,
which is not timed.
"""

import sys
from collections.abc import Callable
from functools import partial

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


def make_tensor(array: NDArray[np.generic], dtype: str) -> openvino.Tensor:
    """A tensor over the array's memory."""
    return openvino.Tensor(array, openvino.Shape(array.shape), TYPES[dtype])


def infer(request: openvino.InferRequest, result: NDArray[np.generic]) -> NDArray[np.generic]:
    request.infer()
    return result


def prepare(case: Case) -> Row:
    if case.variant != "sdpa-expanded" or case.window:
        raise ValueError(f"unknown variant {case.variant}")
    model = compile_model(case)
    q = case.queries().transpose(1, 0, 2)[None]
    k, v = (np.repeat(x, case.group, axis=0)[None] for x in case.keys_and_values())
    kept: list[object] = []
    calls: list[Callable[[], object]] = []
    for _ in range(case.copies):
        result = make_array(np.zeros_like(q), case.dtype)
        arrays = [make_array(x, case.dtype) for x in (q, k, v)]
        tensors = [make_tensor(x, case.dtype) for x in (*arrays, result)]
        kept += [arrays, tensors]
        request = model.create_infer_request()
        for index in range(3):
            request.set_input_tensor(index, tensors[index])
        request.set_output_tensor(0, tensors[3])
        calls.append(partial(infer, request, result))

    def output(result: object) -> Floats:
        assert isinstance(result, np.ndarray)
        values = result if case.dtype == "f32" else bfloat16_to_float(result)
        return np.ascontiguousarray(values[0].transpose(1, 0, 2))

    return Row(calls, output, kept)


if __name__ == "__main__":
    serve(f"openvino {openvino.__version__}, {THREADS} threads", prepare)
