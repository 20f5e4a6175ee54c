"""Answers of a LiteRT or ONNX file, by the format's own runtime, without TensorFlow."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np


class Runtime:
    """What answers images at model size with one file.

    Args:
        file: "model.tflite" or "model.onnx".
        threads: Threads of the runtime; default all cores.

    Attributes:
        file: The file's path.

    Raises:
        RuntimeError: The format's package is not installed.
    """

    def __init__(self, file: str | os.PathLike, threads: int | None = None):
        self.file = Path(file)
        build, extra = _FORMATS[self.file.suffix]
        try:
            self._run = build(os.fspath(file), threads or os.cpu_count() or 1)
        except ModuleNotFoundError as error:
            raise RuntimeError(
                f"{self.file.name} needs {error.name}, which is not installed. Do: "
                f"pip install 'visionkit[{extra}]'"
            ) from error

    def predict_on_batch(self, images) -> dict[str, np.ndarray]:
        """Answers for (B, h, w, C) 0..255, image by image, by name."""
        images = np.asarray(images, np.float32)
        rows = [self._run(images[i : i + 1]) for i in range(len(images))]
        return {name: np.concatenate([r[name] for r in rows]) for name in rows[0]}


def _litert(file: str, threads: int):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=file, num_threads=threads)
    runner = interpreter.get_signature_runner()
    # What it returns lies in the interpreter, which writes over it.
    return lambda images: {k: v.copy() for k, v in runner(images=images).items()}


def _onnx(file: str, threads: int):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(
        file, options, providers=["CPUExecutionProvider"]
    )
    outputs = [output.name for output in session.get_outputs()]
    return lambda images: dict(
        zip(outputs, session.run(outputs, {"images": images}), strict=True)
    )


_FORMATS = {".tflite": (_litert, "litert"), ".onnx": (_onnx, "onnx")}
SUFFIXES = tuple(_FORMATS)
"""Of the files that are run."""


def latency(predict, images, *, runs: int = 20, seconds: float = 10.0) -> float:
    """Median seconds of `predict(images)`, behind two that warm up.

    Args:
        predict: What is timed.
        images: What it is given.
        runs: How often at most.
        seconds: No new run begins behind this time.
    """
    start, times = time.monotonic(), []
    while len(times) < runs + 2 and (
        len(times) < 3 or time.monotonic() - start < seconds
    ):
        begin = time.perf_counter()
        predict(images)
        times.append(time.perf_counter() - begin)
    return float(np.median(times[2:]))
