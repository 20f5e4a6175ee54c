"""The gate refuses what a server could not load, run or batch, and says why."""

import io

import numpy as np
import pytest
import tensorflow as tf
from rich.console import Console

from visionkit.serving.gate import check_graph
from visionkit.serving.replay import Case, check_answers, compare
from visionkit.serving.report import GateReport

WIDTH = 4


def save(folder, function, spec=None, *, module=None, **functions):
    """A SavedModel whose four signatures are `function`, or what `functions` says."""
    module = module or tf.Module()
    spec = spec if spec is not None else tf.TensorSpec((None, WIDTH), tf.float32, "x")
    default = tf.function(function, input_signature=[spec], **functions)
    concrete = default.get_concrete_function()
    names = ("serving_default", "images", "tensors", "tolerant")
    tf.saved_model.save(module, str(folder), signatures=dict.fromkeys(names, concrete))
    return folder


def problems(folder, parameter_bytes=0):
    return [str(finding) for finding in check_graph(folder, parameter_bytes)]


def test_a_plain_model_passes(tmp_path):
    module = tf.Module()
    module.kernel = tf.Variable(np.ones((WIDTH, 2), np.float32))
    save(tmp_path, lambda x: {"y": x @ module.kernel}, module=module)
    assert problems(tmp_path, parameter_bytes=4 * WIDTH * 2) == []


def python(x):
    y = tf.py_function(lambda t: t, [x], tf.float32)
    return {"y": tf.ensure_shape(y, (None, WIDTH))}


def nested_in_a_map(x):
    return {"y": tf.map_fn(lambda row: python(row[None])["y"][0], x)}


def fixed_output(x):
    return {"y": tf.zeros((5, WIDTH)) + tf.reduce_sum(x)}


def big_constant(x):
    constant = tf.constant(np.random.default_rng(0).normal(size=(40_000, WIDTH)))
    return {"y": x * tf.cast(constant[:1], tf.float32)}


def half(x):
    return {"y": tf.cast(x, tf.bfloat16)}


def prints(x):
    tf.print(x)
    return {"y": x}


def reads(x):
    return {"y": x + tf.cast(tf.strings.length(tf.io.read_file("/dev/null")), x.dtype)}


def random(x):
    return {"y": x + tf.random.uniform(tf.shape(x))}


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (random, r"RandomUniform in .*random numbers.*training=False"),
        (python, r"EagerPyFunc in .*runs Python.*Use TensorFlow ops"),
        (nested_in_a_map, r"EagerPyFunc in .*runs Python"),
        (fixed_output, r"y in .*output's shape is \(5, 4\).*Make dimension 0 None"),
        (big_constant, r"Const.* in .*holds 1,280,\d+ bytes.*Make it a variable"),
        (half, r"y in .*output is bfloat16.*Cast it to one of float32"),
        (prints, r"PrintV2 in .*files or the console"),
        (reads, r"ReadFile in .*files or the console"),
    ],
)
def test_what_a_server_cannot_use_is_named(tmp_path, function, message):
    save(tmp_path, function)
    found = problems(tmp_path)
    assert found
    with pytest.raises(ValueError, match=message):
        raise ValueError("\n".join(found))


def test_xla_is_refused(tmp_path):
    compiled = tf.function(lambda x: x + 1, jit_compile=True)
    save(tmp_path, lambda x: {"y": compiled(x)})
    assert any(
        "_XlaMustCompile" in p and "without jit_compile" in p
        for p in problems(tmp_path)
    )


def test_a_signature_that_is_compiled_itself_is_refused(tmp_path):
    save(tmp_path, lambda x: {"y": x + 1}, jit_compile=True)
    assert any("XLA disabled" in problem for problem in problems(tmp_path))


def test_changing_a_variable_is_refused(tmp_path):
    module = tf.Module()
    module.calls = tf.Variable(0.0)

    def counts(x):
        module.calls.assign_add(1.0)
        return {"y": x + module.calls}

    save(tmp_path, counts, module=module)
    assert any("AssignAddVariableOp" in p for p in problems(tmp_path, 4))


def test_a_lookup_table_is_refused(tmp_path):
    module = tf.Module()
    entries = tf.lookup.KeyValueTensorInitializer([0, 1], ["a", "b"], tf.int64)
    module.table = tf.lookup.StaticHashTable(entries, "?")
    spec = tf.TensorSpec((None,), tf.float32, "x")
    save(
        tmp_path,
        lambda x: {"y": module.table[tf.cast(x, tf.int64)]},
        spec,
        module=module,
    )
    assert any("table" in problem for problem in problems(tmp_path))


def test_a_fixed_batch_is_refused(tmp_path):
    spec = tf.TensorSpec((1, WIDTH), tf.float32, "x")
    save(tmp_path, lambda x: {"y": x}, spec)
    found = problems(tmp_path)
    assert any("input's shape is (1, 4)" in problem for problem in found)


def test_doubled_weights_are_refused(tmp_path):
    module = tf.Module()
    values = np.ones((100, WIDTH), np.float32)
    module.first, module.second = tf.Variable(values), tf.Variable(values)
    save(tmp_path, lambda x: {"y": x + module.first[:1]}, module=module)
    (problem,) = problems(tmp_path, parameter_bytes=values.nbytes)
    assert "3,200 bytes are stored for 1,600" in problem and "once" in problem


def test_a_missing_signature_is_named(tmp_path):
    module = tf.Module()
    spec = tf.TensorSpec((None, 2), tf.float32, "x")
    function = tf.function(lambda x: {"y": x}, input_signature=[spec])
    tf.saved_model.save(module, str(tmp_path), signatures=function)
    assert [p.split()[0] for p in problems(tmp_path)] == [
        "images",
        "tensors",
        "tolerant",
    ]


def test_answers_are_compared_in_a_bare_process(tmp_path):
    def answer(x):
        tf.debugging.assert_less(x, 9.0, "too large")
        return {"y": x + 1, "labels": tf.cast(x[:, 0], tf.int32)}

    save(tmp_path, answer)
    x = np.ones((3, WIDTH), np.float32)
    good = {"y": x + 1, "labels": np.array([1, 1, 1], np.int32)}
    cases = [
        Case("serving_default", "x", x, good),
        Case("images", "x", x, {**good, "y": x + 1.01}),
        Case("tensors", "x", x, {**good, "labels": np.array([1, 2, 1], np.int32)}),
        Case("tolerant", "x", x[:1] * 10, {}),
        Case("absent", "x", x, good),
    ]
    found = [str(finding) for finding in check_answers(tmp_path, cases, 1e-4)]
    assert len(found) == 4
    text = "\n".join(found)
    assert "y in images, batch of 3: Differs by 0.01" in text
    assert "labels in tensors, batch of 3: 1 of 3 values differ" in text
    assert "run in tolerant: It fails" in text and "too large" in text
    assert "run in absent: It fails" in text


def test_answers_of_another_type_are_found():
    labels, names = np.array([1, 2], np.int32), np.array([b"a", b"b"], object)
    case = Case("tensors", "x", [b"", b""], {"labels": labels, "names": names})
    assert compare(case, {"labels": labels, "names": names.astype("S")}, 0) == []
    wide = {"labels": labels.astype(np.int64), "names": names}
    (finding,) = compare(case, wide, 0)
    assert "labels" in str(finding) and "Type int64, expected int32" in str(finding)


def test_classes_of_pixels_are_judged_by_the_models_own_logits():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 4, (2, 40, 60, 5)).astype(np.float32)
    rounded = logits + rng.uniform(-0.01, 0.01, logits.shape) * np.abs(logits).max()
    classes, other = (x.argmax(axis=-1).astype(np.uint8) for x in (logits, rounded))
    classes[:, :, 50:] = other[:, :, 50:] = 255  # beyond the image
    case = Case("serving_default", "x", [b"", b""], {"segmentation": classes}, logits)

    def found(answer, tolerance):
        return [str(f) for f in compare(case, {"segmentation": answer}, tolerance)]

    assert (classes != other).sum() > 10
    assert found(other, 2e-2) == []  # what half precision does
    assert "logit is up to" in found(other, 1e-4)[0]  # and float32 must not
    # A single pixel that is clear is enough, in half precision too.
    best = np.sort(logits[:, :, :50], axis=-1)
    row = np.unravel_index(np.argmax(best[..., -1] - best[..., -2]), (2, 40, 50))
    wrong = classes.copy()
    wrong[row] = (wrong[row] + 1) % 5
    assert "1 of 4800 pixels" in found(wrong, 2e-2)[0]
    wrong[row] = 255
    assert "void or unknown on one side" in found(wrong, 2e-2)[0]


def test_a_folder_that_does_not_load_is_a_finding(tmp_path):
    (tmp_path / "saved_model.pb").write_bytes(b"not a protobuf")
    (finding,) = check_answers(tmp_path, [], 1e-4)
    assert finding.op == "load"


def test_the_report_is_a_table_or_one_line(tmp_path):
    save(tmp_path, half)
    console = Console(file=io.StringIO(), width=200)
    findings = tuple(check_graph(tmp_path, 0))
    report = GateReport("saved", findings, ("graph",))
    report.print(console)
    GateReport("fine", (), ("graph", "answers")).print(console)
    text = console.file.getvalue()
    assert not report.passed and "bfloat16" in text and "what to do" in text
    assert "fine: passed graph, answers" in text
