"""onnxruntime's state-space operators, f32. It has none for Mamba's scan.

Variants:
  ssd-scan, ssd-update     LinearAttention with the gated rule, which is Mamba-2's recurrence: queries are C, keys B,
                           values dt * x and decays dt * A. The softplus, those products and D * x are nodes of the graph
  conv-first, conv-last    CausalConvWithState with its silu, on [1, E, L] and on [1, L, E]
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper

from engine import Case, Floats, Row

Arrays = dict[str, Floats]


def make_session(nodes: list[NodeProto], inputs: Arrays, outputs: Arrays, threads: int) -> onnxruntime.InferenceSession:
    def infos(arrays: Arrays) -> list[object]:
        return [helper.make_tensor_value_info(name, TensorProto.FLOAT, x.shape) for name, x in arrays.items()]

    graph = helper.make_graph(nodes, "layer", infos(inputs), infos(outputs))
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # its threads spin during a call, but not while another engine is timed
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def bind(session: onnxruntime.InferenceSession, inputs: Arrays, outputs: Arrays) -> onnxruntime.IOBinding:
    """A binding over the arrays' own memory."""
    binding = session.io_binding()
    for name, array in inputs.items():
        binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(array))
    for name, array in outputs.items():
        binding.bind_ortvalue_output(name, onnxruntime.OrtValue.ortvalue_from_numpy(array))
    return binding


def run(
    session: onnxruntime.InferenceSession, binding: onnxruntime.IOBinding, output: NDArray[np.generic]
) -> NDArray[np.generic]:
    session.run_with_iobinding(binding)
    return output


def linear_attention(case: Case) -> list[NodeProto]:
    b, t, heads, dim = case.sequences, case.tokens, case.query_heads, case.head_dim
    attention = helper.make_node(
        "LinearAttention",
        ["c", "b", "values", "past", "decay"],
        ["read", "present"],
        domain="com.microsoft",
        q_num_heads=case.kv_heads,
        kv_num_heads=heads,
        update_rule="gated",
        scale=1.0,
    )
    by_head = helper.make_node("Constant", [], ["by_head"], value_ints=[b, t, heads, dim])
    packed = helper.make_node("Constant", [], ["packed"], value_ints=[b, t, heads * dim])
    last = helper.make_node("Constant", [], ["last"], value_ints=[-1])
    return [
        by_head,
        packed,
        last,
        helper.make_node("Softplus", ["dt"], ["step"]),
        helper.make_node("Mul", ["step", "a"], ["decay"]),
        helper.make_node("Unsqueeze", ["step", "last"], ["steps"]),
        helper.make_node("Mul", ["u", "steps"], ["weighted"]),
        helper.make_node("Reshape", ["weighted", "packed"], ["values"]),
        attention,
        helper.make_node("Reshape", ["read", "by_head"], ["read_by_head"]),
        helper.make_node("Mul", ["u", "d"], ["skip"]),
        helper.make_node("Add", ["read_by_head", "skip"], ["y"]),
    ]


def ssd(case: Case, threads: int) -> Row:
    b, t, heads, dim, n = case.sequences, case.tokens, case.query_heads, case.head_dim, case.state
    shape = (b, heads, dim, n)
    state = case.operand("state", *shape) if t == 1 else np.zeros(shape, np.float32)
    # two memories for states, each the other's next
    states = [np.ascontiguousarray(state.swapaxes(2, 3)), np.zeros((b, heads, n, dim), np.float32)]
    # the operator wants a key of each head
    keys = np.repeat(case.operand("b", b, t, case.kv_heads, n), heads // case.kv_heads, axis=2)
    inputs = {
        "u": case.operand("u", b, t, heads, dim),
        "dt": case.operand("dt", b, t, heads),
        "a": case.operand("a", heads),
        "b": keys.reshape(b, t, heads * n),
        "c": case.operand("c", b, t, case.kv_heads * n),
        "d": case.operand("d", heads, 1),
    }
    y = np.empty((b, t, heads, dim), np.float32)
    session = make_session(
        linear_attention(case), inputs | {"past": states[0]}, {"y": y, "present": states[1]}, threads
    )
    # a prompt's scan starts from zeros in each call
    pairs = [(0, 1), (1, 0)] if t == 1 else [(0, 1)]
    calls: list[Callable[[], object]] = []
    for past, present in pairs:
        binding = bind(session, inputs | {"past": states[past]}, {"y": y, "present": states[present]})
        calls.append(partial(run, session, binding, y))
    return Row(calls, flat, kept=[inputs, states])


def conv(case: Case, threads: int) -> Row:
    last = case.variant == "conv-last"
    u = case.operand("u", 1, case.tokens, case.query_heads)
    inputs = {
        "x": u if last else np.ascontiguousarray(u.swapaxes(1, 2)),
        "w": case.operand("w", case.query_heads, 1, case.state + 1),
    }
    shape = (1, case.state, case.query_heads) if last else (1, case.query_heads, case.state)
    outputs = {"y": np.empty_like(inputs["x"]), "present": np.empty(shape, np.float32)}
    node = helper.make_node(
        "CausalConvWithState",
        ["x", "w"],
        ["y", "present"],
        domain="com.microsoft",
        activation="silu",
        channels_last=int(last),
    )
    session = make_session([node], inputs, outputs, threads)
    call = partial(run, session, bind(session, inputs, outputs), outputs["y"])
    return Row([call], flat if last else transposed, kept=[inputs, outputs])


def flat(result: object) -> Floats:
    assert isinstance(result, np.ndarray)
    return result


def transposed(result: object) -> Floats:
    assert isinstance(result, np.ndarray)
    return np.ascontiguousarray(result.swapaxes(1, 2))


def prepare(case: Case, threads: int) -> Row:
    if case.dtype != "f32":
        raise ValueError("f32 only")
    if case.variant in ("conv-first", "conv-last"):
        return conv(case, threads)
    if case.variant in ("ssd-scan", "ssd-update"):
        return ssd(case, threads)
    raise ValueError(f"unknown variant {case.variant}")
