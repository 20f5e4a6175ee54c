"""Running a SavedModel through TensorFlow's C API, as a model server does.

There is no Python in that process, and XLA is disabled in it. A C compiler builds the
program, `c_runtime.c`; the libraries and headers are those of the TensorFlow wheel.
"""

from __future__ import annotations

import functools
import os
import shutil
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from visionkit.serving.replay import Case, compare, run_bounded
from visionkit.serving.report import Finding
from visionkit.serving.warmup import read_warmup

_SOURCE = Path(__file__).with_suffix(".c")
_INVALID_ARGUMENT = 3  # TF_INVALID_ARGUMENT: a server answers 400
_ADVICE = "Use ops of stock TensorFlow that have a CPU kernel."


def missing() -> str | None:
    """Why there is no C runtime here, or None where there is one."""
    if _compiler() is None:
        return "no C compiler was found (cc, gcc or clang; or name it in CC)"
    if len(_libraries()) < 2:
        return "this TensorFlow has no libtensorflow_framework and libtensorflow_cc"
    _, problem = _program()
    return f"the C program does not compile here: {problem}" if problem else None


def check_c_runtime(
    folder: Path, cases: Sequence[Case], tolerance: float
) -> list[Finding]:
    """Faults found by running every case, and every warm-up record, without Python.

    Args:
        folder: The folder that holds `saved_model.pb`.
        cases: Requests and the answers expected.
        tolerance: Largest difference allowed between float answers, relative to the
            largest of them where that exceeds 1.
    """
    saved = saved_model_pb2.SavedModel()
    saved.ParseFromString((Path(folder) / "saved_model.pb").read_bytes())
    signatures = saved.meta_graphs[0].signature_def
    warmup = [
        Case(signature, name, value, {})
        for signature, inputs in read_warmup(folder)
        for name, value in inputs.items()
    ]
    with tempfile.TemporaryDirectory() as work:
        requests = [*cases, *warmup]
        plan = [
            _write_request(Path(work), str(index), case, signatures[case.signature])
            for index, case in enumerate(requests)
        ]
        Path(work, "plan.txt").write_text("\n".join(plan) + "\n")
        problem, statuses = _run(folder, Path(work))
        if problem:
            return [Finding("load", "C runtime", problem, _ADVICE)]
        findings = []
        for index, (case, status) in enumerate(zip(requests, statuses, strict=True)):
            outputs = sorted(signatures[case.signature].outputs)
            read = functools.partial(_read_answers, Path(work), str(index), outputs)
            findings += _judge(case, status, read, tolerance)
    return findings


def _judge(case: Case, status: str, read, tolerance: float) -> list[Finding]:
    """What is wrong with one answer; `read` gives its outputs."""
    code, _, message = status.partition(" ")
    where = f"{case.signature} (C runtime)"
    if case.expected is None:
        if int(code) == _INVALID_ARGUMENT:
            return []
        problem = f"A broken image is answered with status {code}: {message[-300:]}"
        return [Finding("run", where, problem, "It must be INVALID_ARGUMENT (3).")]
    if int(code):
        return [Finding("run", where, f"It fails: {message[-300:]}", _ADVICE)]
    return compare(case, read(), tolerance, "C runtime") if case.expected else []


def _run(folder: Path, work: Path) -> tuple[str, list[str]]:
    """(what keeps it from loading or "", a status line per request)."""
    program, problem = _program()
    if problem:
        return f"The C program does not compile: {problem}", []
    (work / "c_runtime").write_bytes(program)
    (work / "c_runtime").chmod(0o700)
    done = run_bounded(
        [work / "c_runtime", Path(folder).resolve(), *_libraries()],
        cwd=work,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    last = " | ".join(done.stderr.strip().splitlines()[-3:])
    if not (work / "status.txt").exists():  # a library cannot be loaded
        return f"It ends with {done.returncode} before it loads: {last}", []
    lines = (work / "status.txt").read_text("utf-8", "replace").splitlines()
    if len(lines) > 1 and not lines[1].startswith("0"):
        return f"It does not load: {lines[1][-300:]}", []
    requests = (work / "plan.txt").read_text().count("\n")
    if done.returncode or len(lines) != requests + 2:
        place = f"at request {len(lines) - 2}" if len(lines) > 1 else "before it loads"
        return f"It ends with {done.returncode} {place}: {last}", []
    if not lines[0].startswith("0"):
        warnings.warn(
            "The C runtime answered with XLA enabled, which a server has not: this "
            "TensorFlow has no DisableXlaCompilation.",
            stacklevel=2,
        )
    return "", lines[2:]


def _compiler() -> str | None:
    names = (os.environ.get("CC", ""), "cc", "gcc", "clang")
    return next(filter(None, map(shutil.which, filter(None, names))), None)


def _libraries() -> list[str]:
    """The shared libraries, what others need first."""
    folder = Path(tf.sysconfig.get_lib())
    names = ("libtensorflow_framework", "libtensorflow_cc")
    found = [sorted(folder.glob(f"{n}.so*")) or [*folder.glob(f"{n}*")] for n in names]
    return [str(files[0]) for files in found if files]


@functools.cache
def _program() -> tuple[bytes, str]:
    """The compiled program and "", or b"" and why it does not compile."""
    include = tf.sysconfig.get_include()
    command = [_compiler(), "-O1", _SOURCE, f"-I{include}", "-ldl", "-o", "c_runtime"]
    with tempfile.TemporaryDirectory() as folder:
        built = run_bounded(command, cwd=folder)
        if built.returncode:
            return b"", "".join(built.stderr.strip().splitlines()[-1:])
        return Path(folder, "c_runtime").read_bytes(), ""


def _write_request(work: Path, name: str, case: Case, signature) -> str:
    """Write the input of a request; the line of the plan for it."""
    value = case.value
    if not isinstance(value, np.ndarray):
        value = np.array(value, object)
    kind = tf.string if value.dtype == object else tf.as_dtype(value.dtype)
    head = np.array([kind.as_datatype_enum, value.ndim], np.int32).tobytes()
    head += np.array(value.shape, np.int64).tobytes()
    if kind == tf.string:
        parts = (np.int64(len(item)).tobytes() + item for item in value.ravel())
        data = b"".join(parts)
    else:
        data = np.ascontiguousarray(value).tobytes()
    (work / f"{name}.in").write_bytes(head + data)
    words = [*_endpoint(signature.inputs[case.name]), f"{name}.in"]
    words.append(str(len(signature.outputs)))
    for index, key in enumerate(sorted(signature.outputs)):
        words += [*_endpoint(signature.outputs[key]), f"{name}.out{index}"]
    return " ".join(words)


def _endpoint(info) -> list[str]:
    operation, _, index = info.name.partition(":")
    return [operation, index or "0"]


def _read_answers(work: Path, name: str, outputs: Sequence[str]) -> dict:
    files = [work / f"{name}.out{index}" for index in range(len(outputs))]
    return dict(zip(outputs, map(_read_tensor, files), strict=True))


def _read_tensor(file: Path) -> np.ndarray:
    data = file.read_bytes()
    kind, rank = np.frombuffer(data, np.int32, 2)
    shape = np.frombuffer(data, np.int64, rank, offset=8)
    data, kind = data[8 + 8 * rank :], tf.as_dtype(int(kind))
    if kind != tf.string:
        return np.frombuffer(data, kind.as_numpy_dtype).reshape(shape)
    strings = []
    while data:
        end = 8 + int(np.frombuffer(data, np.int64, 1)[0])
        strings.append(data[8:end])
        data = data[end:]
    return np.array(strings, "S").reshape(shape)
