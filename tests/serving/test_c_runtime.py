"""The gate's run without Python tells what a server would."""

import numpy as np
import pytest
import tensorflow as tf

from visionkit.serving import c_runtime, replay
from visionkit.serving.c_runtime import check_c_runtime
from visionkit.serving.gate import CHECKS, run_gate
from visionkit.serving.replay import Case
from visionkit.serving.warmup import write_warmup

SIGNATURES = ("serving_default", "images", "tensors", "tolerant")

needs_compiler = pytest.mark.skipif(
    c_runtime.missing() is not None, reason=str(c_runtime.missing())
)


def save(folder, **functions):
    """A SavedModel of functions of `x` (B, 2) float32, or (B,) string for "text"."""
    concrete = {}
    for name, function in functions.items():
        shape, dtype = ((None,), tf.string) if name == "text" else ((None, 2), "float")
        spec = tf.TensorSpec(shape, tf.as_dtype(dtype), "x")
        function = tf.function(function, input_signature=[spec])
        concrete[name] = function.get_concrete_function()
    tf.saved_model.save(tf.Module(), str(folder), signatures=concrete)
    return folder


X = np.arange(6, dtype=np.float32).reshape(3, 2)


def positive(x):
    tf.debugging.assert_greater(x, -1.0, "negative")
    return {"y": x + 1}


def python(x):
    y = tf.py_function(lambda t: t, [x], tf.float32)
    return {"y": tf.ensure_shape(y, (None, 2))}


def compiled(x):
    return {"y": tf.function(lambda t: t + 1, jit_compile=True)(x)}


@needs_compiler
def test_tensors_of_every_type_come_through(tmp_path):
    def numbers(x):
        kinds = {"whole": tf.int32, "small": tf.uint8, "same": tf.float32}
        return {name: tf.cast(x, kind) for name, kind in kinds.items()}

    folder = save(tmp_path, numbers=numbers, text=lambda x: {"y": x + b"\xff"})
    words = [b"", b"a\0b", b"\xe9" * 1000]
    expected = {
        "whole": X.astype(np.int32),
        "small": X.astype(np.uint8),
        "same": X,
    }
    longer = {"y": np.array([word + b"\xff" for word in words])}
    cases = [Case("numbers", "x", X, expected), Case("text", "x", words, longer)]
    assert check_c_runtime(folder, cases, 0.0) == []
    wrong = [
        Case("numbers", "x", X, expected | {"whole": expected["whole"] + 1}),
        Case("text", "x", words[::-1], longer),
    ]
    found = check_c_runtime(folder, wrong, 0.0)
    assert [(f.op, f.function.split(",")[0]) for f in found] == [
        ("whole", "numbers"),
        ("y", "text"),
    ]


@needs_compiler
def test_what_only_a_server_lacks_is_found(tmp_path):
    save(tmp_path, python=python, compiled=compiled, fine=positive)
    cases = [Case(name, "x", X, {"y": X + 1}) for name in ("python", "compiled")]
    cases += [
        Case("fine", "x", X, {"y": X + 1}),
        Case("fine", "x", -9 * X, None),  # is refused, as it should be
        Case("fine", "x", X, None),
    ]
    found = [str(finding) for finding in check_c_runtime(tmp_path, cases, 1e-5)]
    assert len(found) == 3
    assert "run in python (C runtime): It fails" in found[0]
    assert "EagerPyFunc" in found[0]
    assert "XLA compilation disabled" in found[1]
    assert "answered with status 0" in found[2]


@needs_compiler
def test_a_warm_up_record_that_fails_is_found(tmp_path):
    pytest.importorskip("tensorflow_serving")
    save(tmp_path, fine=positive)
    assert write_warmup(tmp_path, {"fine": {"x": -9 * X}})
    (finding,) = check_c_runtime(tmp_path, [], 1e-5)
    assert "negative" in finding.problem


@needs_compiler
def test_a_library_that_does_not_load_is_a_finding(tmp_path, monkeypatch):
    save(tmp_path, fine=positive)
    monkeypatch.setattr(c_runtime, "_libraries", lambda: ["./nowhere.so"])
    (finding,) = check_c_runtime(tmp_path, [Case("fine", "x", X, {"y": X + 1})], 1e-5)
    assert "before it loads: cannot load: ./nowhere.so" in finding.problem


def test_what_does_not_end_is_killed(monkeypatch):
    monkeypatch.setattr(replay, "LONGEST_RUN", 0.2)
    done = replay.run_bounded(["sleep", "60"])
    assert done.returncode == 124 and "not done after 0.2 s" in done.stderr


def test_without_a_compiler_the_report_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    folder = save(tmp_path / "model", **dict.fromkeys(SIGNATURES, positive))
    report = run_gate(folder, 0, [])
    assert report.passed and report.checks == ("graph", "answers")
    assert "no C compiler" in report.skipped["c_runtime"]
    assert {*report.checks, *report.skipped} == {*CHECKS}
