"""onnxruntime on listed keys: one query token, a list for each key/value head, entries of one token or of a block.

Gather copies what is listed from keys and values in their dtype, Cast makes it f32. Variants:
  gather-matmul     then MatMul, Softmax, MatMul, the query heads of a key/value head as rows of one product
  gather-attention  then ONNX's Attention (opset 23), which has grouped queries
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from weakref import WeakValueDictionary

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper
from onnxruntime import IOBinding, OrtValue

from engine import Case, Floats, Row, float_to_bfloat16

ELEMENTS = {"f32": TensorProto.FLOAT, "f16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}


@dataclass
class Cache:
    """Keys and values as [Hk * S / block, block * D], and the arrays whose memory they are."""

    arrays: list[NDArray[np.generic]]
    tensors: list[OrtValue]


# Rows of a case share one copy: at 131072 tokens each has 0.5 or 1 GiB.
caches: WeakValueDictionary[tuple[Path, str], Cache] = WeakValueDictionary()


def shared_cache(case: Case) -> Cache:
    key = (case.folder, case.dtype)
    cache = caches.get(key)
    if cache is None:
        convert = {"f32": np.copy, "f16": lambda x: x.astype(np.float16), "bf16": float_to_bfloat16}[case.dtype]
        shape = (-1, case.block * case.head_dim)
        arrays: list[NDArray[np.generic]] = [convert(x).reshape(shape) for x in case.keys_and_values()]
        element = ELEMENTS[case.dtype]
        tensors = [OrtValue.ortvalue_from_numpy_with_onnx_type(x, element) for x in arrays]
        cache = caches[key] = Cache(arrays, tensors)
    return cache


def listed(name: str, shape: str) -> list[NodeProto]:
    """From a flat cache `name` to what is listed of it, in f32, `name`_listed."""
    return [
        helper.make_node("Gather", [name, "rows"], [f"{name}_rows"], axis=0),
        helper.make_node("Cast", [f"{name}_rows"], [f"{name}_cast"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", [f"{name}_cast", shape], [f"{name}_listed"]),
    ]


def attention(case: Case) -> list[NodeProto]:
    if case.variant == "gather-attention":
        return [helper.make_node("Attention", ["query", "key_listed", "value_listed"], ["output"])]
    if case.variant != "gather-matmul":
        raise ValueError(f"unknown variant {case.variant}")
    return [
        helper.make_node("Transpose", ["key_listed"], ["key_transposed"], perm=[0, 2, 1]),
        helper.make_node("Mul", ["query", "scale"], ["query_scaled"]),
        helper.make_node("MatMul", ["query_scaled", "key_transposed"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["weights"], axis=-1),
        helper.make_node("MatMul", ["weights", "value_listed"], ["output"]),
    ]


def query_shape(case: Case) -> tuple[int, ...]:
    if case.variant == "gather-attention":
        return (1, case.query_heads, 1, case.head_dim)
    return (case.kv_heads, case.group, case.head_dim)


def make_session(case: Case, threads: int) -> onnxruntime.InferenceSession:
    cache = [case.kv_heads * case.keys // case.block, case.block * case.head_dim]
    listed_shape = [case.kv_heads, case.entries * case.block, case.head_dim]
    if case.variant == "gather-attention":
        listed_shape.insert(0, 1)
    element = ELEMENTS[case.dtype]
    graph = helper.make_graph(
        [*listed("key", "shape"), *listed("value", "shape"), *attention(case)],
        "sparse",
        [
            helper.make_tensor_value_info("query", TensorProto.FLOAT, query_shape(case)),
            helper.make_tensor_value_info("key", element, cache),
            helper.make_tensor_value_info("value", element, cache),
            helper.make_tensor_value_info("rows", TensorProto.INT64, [case.kv_heads * case.entries]),
        ],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, query_shape(case))],
        [
            numpy_helper.from_array(np.array(listed_shape, np.int64), "shape"),
            numpy_helper.from_array(np.array(case.head_dim**-0.5, np.float32), "scale"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=11)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # its threads spin during a call, but not while another engine is timed
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def run(session: onnxruntime.InferenceSession, binding: IOBinding, output: Floats) -> Floats:
    session.run_with_iobinding(binding)
    return output


def prepare(case: Case, threads: int) -> Row:
    cache = shared_cache(case)
    session = make_session(case, threads)
    query = case.queries().reshape(query_shape(case)).copy()
    output = np.empty_like(query)
    first = np.arange(case.kv_heads)[:, None] * (case.keys // case.block)
    kept: list[object] = [cache, query]
    calls: list[Callable[[], object]] = []
    for entries in case.lists():
        rows = (entries + first).astype(np.int64).reshape(-1)
        kept.append(rows)
        binding = session.io_binding()
        binding.bind_ortvalue_input("query", OrtValue.ortvalue_from_numpy(query))
        binding.bind_ortvalue_input("key", cache.tensors[0])
        binding.bind_ortvalue_input("value", cache.tensors[1])
        binding.bind_ortvalue_input("rows", OrtValue.ortvalue_from_numpy(rows))
        binding.bind_ortvalue_output("output", OrtValue.ortvalue_from_numpy(output))
        calls.append(partial(run, session, binding, output))

    def output_of(result: object) -> Floats:
        assert isinstance(result, np.ndarray)
        return result.reshape(1, case.query_heads, case.head_dim)

    return Row(calls, output_of, kept)
