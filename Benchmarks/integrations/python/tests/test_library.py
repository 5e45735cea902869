"""Finding the library, contexts, and calls from several threads."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import longspan
from longspan import Context, LongspanError
from longspan.library import library
from reference import attention

PACKAGE = Path(__file__).parents[1]


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = {k: v for k, v in os.environ.items() if k not in ("LONGSPAN_LIBRARY", "LD_LIBRARY_PATH")}
    return subprocess.run(
        [sys.executable, "-c", code], env=variables | environment, cwd=PACKAGE, capture_output=True, text=True
    )


def test_missing_library_names_what_was_tried() -> None:
    asked = "import longspan; longspan.version()"
    named = run(asked, LONGSPAN_LIBRARY="/nonexistent/liblongspan.so")
    assert "LongspanError: no_library: tried /nonexistent/liblongspan.so (" in named.stderr
    unnamed = run(asked)
    if unnamed.returncode:  # not installed where the loader looks
        assert "no_library: tried liblongspan" in unnamed.stderr and "LONGSPAN_LIBRARY can name" in unnamed.stderr


def test_other_library_is_refused() -> None:
    import _ctypes

    refused = run("import longspan; longspan.version()", LONGSPAN_LIBRARY=_ctypes.__file__)
    assert "abi_mismatch" in refused.stderr and "has no lspan_abi" in refused.stderr


def test_other_interface_is_refused() -> None:
    code = "from longspan import library as l; l.ABI = 7; l.library()"
    refused = run(code, LONGSPAN_LIBRARY=str(library()._name))
    assert "abi_mismatch" in refused.stderr and "has interface 1, 7 is wanted" in refused.stderr


def test_loaded_by_the_loader() -> None:
    folder = os.path.dirname(library()._name)
    found = run("import longspan; print(longspan.version())", LD_LIBRARY_PATH=folder)
    assert found.returncode == 0, found.stderr
    assert found.stdout.strip() == longspan.version()


def test_context() -> None:
    with Context(threads=2, isa="scalar", fixed_split=4) as context:
        assert (context.isa, context.threads) == ("scalar", 2)
    with pytest.raises(LongspanError, match="null_pointer: the context is closed"):
        context.isa
    context.close()
    query = np.zeros((1, 1, 8), np.float32)
    with pytest.raises(LongspanError, match="the context is closed"):
        longspan.decode(query, query, query, context=context)
    for arguments, words in (
        ({"threads": -1}, "bad_value: threads is -1"),
        ({"fixed_split": 5000}, "bad_value: fixed_split is 5000"),
        ({"isa": "mmx"}, "unknown_isa: lspan_context_create_abi: .*isa mmx"),
    ):
        with pytest.raises(LongspanError, match=words):
            Context(**arguments)


def test_context_does_not_take_over_a_closed_ones_checks() -> None:
    """A second context may lie where the first one did, with other workers and so another workspace."""
    rng = np.random.default_rng(0)
    query = rng.standard_normal((2, 6, 16)).astype(np.float32)
    key, value = (rng.standard_normal((700, 2, 16)).astype(np.float32) for _ in range(2))
    for threads in (1, 7, 2, 9):
        with Context(threads=threads) as context:
            out = longspan.decode(query, key, value, context=context)
            np.testing.assert_allclose(out, attention(query, key, value)[0], atol=1e-5)


@pytest.mark.parametrize("shared", [True, False])
def test_threads(shared: bool) -> None:
    """Calls of many threads at once, on one context or one each, give what each alone gives."""
    cases = []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        keys = 50 + 37 * seed
        query = rng.standard_normal((1 + seed, 6, 32)).astype(np.float32)
        key, value = (rng.standard_normal((keys, 2, 32)).astype(np.float32) for _ in range(2))
        cases.append((query, key, value, attention(query, key, value)[0]))
    failures: list[BaseException] = []
    start = threading.Barrier(len(cases))

    def work(index: int, context: Context) -> None:
        try:
            query, key, value, expected = cases[index]
            start.wait()
            for _ in range(50):
                for call in (longspan.decode, longspan.prefill):
                    np.testing.assert_allclose(call(query, key, value, context=context), expected, atol=1e-5)
        except BaseException as error:
            failures.append(error)

    contexts = [Context(threads=1 + i % 2) for i in range(len(cases))]
    threads = [
        threading.Thread(target=work, args=(i, contexts[0] if shared else contexts[i])) for i in range(len(cases))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures[0]


def test_fixed_split_has_the_same_bits_for_any_team() -> None:
    rng = np.random.default_rng(3)
    query = rng.standard_normal((1, 4, 64)).astype(np.float32)
    key, value = (rng.standard_normal((3000, 1, 64)).astype(np.float32) for _ in range(2))
    outputs = []
    for threads in (1, 2, 5):
        with Context(threads=threads, fixed_split=4) as context:
            outputs.append(np.asarray(longspan.decode(query, key, value, context=context)).tobytes())
    assert len(set(outputs)) == 1


def test_default_context() -> None:
    before = longspan.default_context()
    with Context(threads=1) as context:
        longspan.set_default_context(context)
        try:
            assert longspan.default_context() is context
        finally:
            longspan.set_default_context(before)


def test_other_threads_run_during_a_call() -> None:
    """The interpreter's lock is free while a kernel runs."""
    operand = np.random.default_rng(0).standard_normal((8000, 4, 64)).astype(np.float32)
    span: list[float] = []

    def work() -> None:
        with Context(threads=1) as context:
            span.append(time.perf_counter())
            longspan.prefill(operand, operand, operand, context=context)
            span.append(time.perf_counter())

    thread = threading.Thread(target=work)
    thread.start()
    turns = []
    while thread.is_alive():
        turns.append(time.perf_counter())
    begin, end = span[0] + 0.25 * (span[1] - span[0]), span[0] + 0.75 * (span[1] - span[0])
    assert any(begin < turn < end for turn in turns)
