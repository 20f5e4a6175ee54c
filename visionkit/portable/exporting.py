"""Writing a model in a small format, whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import tensorflow as tf

from visionkit._version import __version__
from visionkit.exporting import exportable
from visionkit.inference import graph
from visionkit.inference.runtimes import Runtime
from visionkit.metrics.classification import to_json_safe
from visionkit.ops.boxes import iou_matrix
from visionkit.portable.convert import convert
from visionkit.portable.formats import Format, check_format
from visionkit.serving.publish import publish
from visionkit.serving.replay import Case, compare
from visionkit.serving.report import ExportRefused, Finding, GateReport
from visionkit.serving.samples import sample_images
from visionkit.types import BOX_TASKS

INSIDE = {
    "classification": "the network, its probabilities and the best class",
    "semantic_segmentation": "the network, its logits and the best class of each pixel",
    "detection": "the network, decoding and non-maximum suppression",
    "instance_segmentation": "the network, decoding, non-maximum suppression and a "
    "mask for each detection, in its box",
}
"""What of the pipeline the file holds, by task."""

SAME_BOX = 0.9
"""Overlap (IoU) of two boxes that are the same detection, of the same label."""

SHARE_OF_BOXES = 0.9
"""Of the model's detections in sample images, what a file must find too."""

OUTSIDE = (
    "decoding the image, turning it upright, resizing it as `preprocessing` says, and "
    "taking boxes, masks and classes of pixels back to the original image; class names"
)
"""What whoever reads the file does around it."""


def export_portable(
    model,
    path: str | os.PathLike,
    format: str,
    *,
    version: int | None = None,
    calibration: Iterable[np.ndarray] | None = None,
    evaluate: Callable[[Runtime], dict] | None = None,
    metadata: dict | None = None,
) -> Path:
    """Write a model as LiteRT or ONNX, from images at model size to answers.

    The input is `images` float32 (1, h, w, C) 0..255 (ONNX: of any batch), already
    resized; the outputs are those of `model.predict`, by name. `model.json` beside the
    file says what is inside and what is not.

    Before the version appears, the file answers sample images as the model does, up to
    the format's rounding, and `evaluate` has seen it.

    Args:
        model: A `VisionTask`, a run folder or a `.keras` file.
        path: The model's folder; its numeric children are the versions.
        format: "litert", "litert-float16", "litert-int8" or "onnx".
        version: Default the next free number.
        calibration: Images (h, w, C) 0..255 at model size, for "litert-int8": the
            ranges of its integers come from them. 100 of the training set are enough.
        evaluate: Called with the file's `Runtime`; what it returns goes into
            `model.json`. When it raises, nothing is published.
        metadata: Written into `model.json`.

    Returns:
        The published folder, `path/<version>`.

    Raises:
        ExportRefused: The file does not answer as the model does.
        RuntimeError: A package is missing, or the backend is not TensorFlow.
        ValueError: The task does not go into the format, an op of the model does not
            convert, there are no images for int8, or `path` holds SavedModels.
    """
    model = exportable(model)
    kind = check_format(format, model.task)
    if format == "litert-int8" and calibration is None:
        raise ValueError(
            "litert-int8 needs `calibration`: about 100 images of the training set at "
            "model size, which the ranges of its integers are taken from."
        )

    def build(folder: Path):
        content = convert(model, format, calibration)
        file = folder / kind.file
        file.write_bytes(content)
        runtime = Runtime(file)
        answers = _check(model, runtime, format, kind)
        evaluation = evaluate(runtime) if evaluate else {}
        description = {
            "task": model.task,
            "name": model.name,
            "format": format,
            "arithmetic": kind.arithmetic,
            "class_names": list(model.class_names),
            "multi_label": getattr(model, "multi_label", False),
            "preprocessing": model.preprocessing.get_config(),
            "inside": INSIDE[model.task],
            "outside": OUTSIDE,
            "inputs": {"images": "float32, 0..255, resized, channels last, RGB if 3"},
            "outputs": {k: f"{v.dtype} {v.shape[1:]}" for k, v in answers.items()},
            "evaluation": to_json_safe(evaluation),
            "versions": {"visionkit": __version__, "tensorflow": tf.__version__},
            "metadata": to_json_safe(metadata or {}),
        }
        text = json.dumps(description, indent=2, allow_nan=False)
        (folder / "model.json").write_text(f"{text}\n", "utf-8")

    return publish(path, build, version, portable=True)


def sample_inputs(model) -> np.ndarray:
    """(3, h, w, C) float32: sample images as the model's input."""
    preprocessing = model.preprocessing
    prepared = [
        graph.prepare_encoded(tf.constant(picture), preprocessing)["images"].numpy()
        for picture in sample_images(preprocessing.channels)
    ]
    return np.stack(prepared)


def _check(model, runtime: Runtime, name: str, kind: Format) -> dict:
    """The file's answers to sample images, which are the model's where one can say."""
    images = sample_inputs(model)
    got = runtime.predict_on_batch(images)
    expected = model.predictor.predict_on_batch(images)
    expected = {key: np.asarray(value) for key, value in expected.items()}
    findings = []
    if kind.tolerance is not None and model.task in BOX_TASKS:
        findings = _lost_boxes(name, expected, got)
    elif kind.tolerance is not None:
        case = Case(name, "images", images, expected, expected.get("logits"))
        findings = compare(case, got, kind.tolerance)
    if findings:
        raise ExportRefused(GateReport(name, tuple(findings), ("answers",)))
    return got


def _lost_boxes(name: str, expected: dict, got: dict) -> list[Finding]:
    """A finding if many of the model's detections are not among the file's.

    Another runtime's rounding may decide otherwise which of two boxes that overlap
    just as much as is allowed stays, and all behind it move up: ranks say nothing.
    """
    found = total = 0
    for row, count in enumerate(expected["num_detections"]):
        boxes = np.asarray(
            iou_matrix(expected["boxes"][row, :count], got["boxes"][row])
        )
        same = expected["labels"][row, :count, None] == got["labels"][row]
        close = (
            np.abs(expected["scores"][row, :count, None] - got["scores"][row]) < 0.02
        )
        found += int(np.any((boxes > SAME_BOX) & same & close, axis=1).sum())
        total += int(count)
    if found >= SHARE_OF_BOXES * total:
        return []
    problem = f"Of the model's {total} detections in sample images it has {found}"
    return [Finding("boxes", name, problem, "Export a SavedModel, or another format.")]
