"""onnxruntime, served to run.py. Argument: the number of threads.

Variant `gqa`: the contributed operator GroupQueryAttention. Its cache [1, Hk, S, D] is one buffer for past and present,
so that nothing is copied but the new tokens; a decode call appends the last key and value again. And the variants of
onnxruntime_sparse.py and onnxruntime_ssm.py.
"""

import sys
from collections.abc import Callable
from functools import partial

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper

import onnxruntime_sparse
import onnxruntime_ssm
from engine import Case, Floats, Row, serve

THREADS = int(sys.argv[1])
DTYPES = {"f32": (np.float32, TensorProto.FLOAT), "f16": (np.float16, TensorProto.FLOAT16)}


def make_session(case: Case, element: int) -> onnxruntime.InferenceSession:
    width, kv_width = case.query_heads * case.head_dim, case.kv_heads * case.head_dim
    cache = [1, case.kv_heads, case.keys, case.head_dim]
    node = helper.make_node(
        "GroupQueryAttention",
        ["query", "key", "value", "past_key", "past_value", "last_position", "total"],
        ["output", "present_key", "present_value"],
        domain="com.microsoft",
        num_heads=case.query_heads,
        kv_num_heads=case.kv_heads,
        local_window_size=case.window or -1,
    )
    graph = helper.make_graph(
        [node],
        "attention",
        [
            helper.make_tensor_value_info("query", element, [1, case.tokens, width]),
            helper.make_tensor_value_info("key", element, [1, case.tokens, kv_width]),
            helper.make_tensor_value_info("value", element, [1, case.tokens, kv_width]),
            helper.make_tensor_value_info("past_key", element, cache),
            helper.make_tensor_value_info("past_value", element, cache),
            helper.make_tensor_value_info("last_position", TensorProto.INT32, [1]),
            helper.make_tensor_value_info("total", TensorProto.INT32, []),
        ],
        [
            helper.make_tensor_value_info("output", element, [1, case.tokens, width]),
            helper.make_tensor_value_info("present_key", element, cache),
            helper.make_tensor_value_info("present_value", element, cache),
        ],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    options.inter_op_num_threads = 1
    # its threads spin during a call, but not while another engine is timed
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def token_major(values: Floats, tokens: int) -> Floats:
    """The last tokens of [H, S, D] as [1, tokens, H * D]."""
    return values[:, -tokens:].transpose(1, 0, 2).reshape(1, tokens, -1)


def run(
    session: onnxruntime.InferenceSession, binding: onnxruntime.IOBinding, output: NDArray[np.generic]
) -> NDArray[np.generic]:
    session.run_with_iobinding(binding)
    return output


def prepare(case: Case) -> Row:
    if case.state:
        return onnxruntime_ssm.prepare(case, THREADS)
    if case.entries:
        return onnxruntime_sparse.prepare(case, THREADS)
    if case.variant != "gqa":
        raise ValueError(f"unknown variant {case.variant}")
    dtype, element = DTYPES[case.dtype]
    session = make_session(case, element)
    q = case.queries().reshape(1, case.tokens, -1)
    k, v = case.keys_and_values()
    calls: list[Callable[[], object]] = []
    kept: list[object] = []
    for _ in range(case.copies):
        output = np.empty(q.shape, dtype)
        arrays = {
            "query": q.astype(dtype),
            "key": token_major(k, case.tokens).astype(dtype),
            "value": token_major(v, case.tokens).astype(dtype),
            "past_key": k[None].astype(dtype),
            "past_value": v[None].astype(dtype),
            "last_position": np.array([case.keys - 1], np.int32),
            "total": np.array(case.keys, np.int32),
        }
        kept.append(arrays)
        tensors = {name: onnxruntime.OrtValue.ortvalue_from_numpy(array) for name, array in arrays.items()}
        binding = session.io_binding()
        for name, tensor in tensors.items():
            binding.bind_ortvalue_input(name, tensor)
        binding.bind_ortvalue_output("output", onnxruntime.OrtValue.ortvalue_from_numpy(output))
        binding.bind_ortvalue_output("present_key", tensors["past_key"])
        binding.bind_ortvalue_output("present_value", tensors["past_value"])
        calls.append(partial(run, session, binding, output))

    def output_of(result: object) -> Floats:
        assert isinstance(result, np.ndarray)
        return result.astype(np.float32).reshape(case.tokens, case.query_heads, case.head_dim)

    return Row(calls, output_of, kept)


if __name__ == "__main__":
    serve(f"onnxruntime {onnxruntime.__version__}, {THREADS} threads", prepare)
