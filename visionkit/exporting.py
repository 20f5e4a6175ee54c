"""A model as a SavedModel that TF Serving loads as it is."""

from __future__ import annotations

import contextlib
import json
import math
import os
import warnings
from pathlib import Path

import tensorflow as tf

from visionkit._version import __version__
from visionkit.inference import graph
from visionkit.inference.styles import style_function
from visionkit.serving.cases import build_cases
from visionkit.serving.folding import folded_norms
from visionkit.serving.gate import CHECKS, run_gate
from visionkit.serving.publish import publish
from visionkit.serving.report import ExportRefused, GateReport
from visionkit.serving.signatures import build_signatures
from visionkit.serving.warmup import warmup_requests, write_warmup

SEGMENTATION_CONVENTIONS = {
    "segmentation": "uint8 class ids, an index into class_names, in pixels of the "
    "original, upright image; 255 beyond an image's own image_size and where the model "
    "saw nothing",
    "logits": "before softmax, in pixels of the original image; 0 where segmentation "
    "is 255",
    "broken_images": "they fail the batch; in `tolerant`: image_size 0, segmentation "
    "255 and image_valid 0",
}
"""What `model.json` says of a segmenter besides, or otherwise."""

INSTANCE_CONVENTIONS = {
    "masks": "float32 0..1 of the detection's own class, in m x m cells that its box "
    "divides into; in the image, interpolate between the cells' centres, 0 outside of "
    "the box, and take 0.5 and above: `visionkit/paste.py` does so, with NumPy alone",
}
"""What `model.json` says of an instance segmenter besides; `detection_masks` alike."""

_TASK_CONVENTIONS = {
    "semantic_segmentation": SEGMENTATION_CONVENTIONS,
    "instance_segmentation": INSTANCE_CONVENTIONS,
}

CONVENTIONS = {
    "image_bytes": "one encoded image per element, JPEG or PNG",
    "images": "uint8 0..255, channels last, RGB when there are 3 channels, upright",
    "tensors": "float32 0..255, images already resized as `preprocessing` says",
    "broken_images": "they fail the batch; in `tolerant`: zeros, and image_valid 0",
    "non_finite": "NaN and infinity are answered as 0",
    "warmup": "false: written only where tensorflow-serving-api is installed",
}


def export(
    model,
    path: str | os.PathLike,
    *,
    version: int | None = None,
    style: str = "visionkit",
    gate: bool = True,
    metadata: dict | None = None,
) -> Path:
    """Write the whole pipeline, from image bytes to answers, as a SavedModel.

    It holds pure TensorFlow ops, takes any batch size and needs neither visionkit nor
    Keras. Batch normalisations in float32 are folded into the convolutions that they
    follow. Its signatures:

    - `serving_default(image_bytes: string [B])`: encoded images to answers;
    - `images(images: uint8 [B, H, W, C])`: decoded images of any size, same answers;
    - `tensors(images: float32 [B, h, w, C])`: resized images to raw outputs;
    - `tolerant(image_bytes: string [B])`: as `serving_default`, with `image_valid`
      int32 [B]; a broken image is answered with zeros (a segmentation with 255) and
      does not fail the batch.

    A classifier answers `probabilities` (B, K) float32, `labels` (B,) int32 and
    `label_names` (B,) string: the names' bytes, UTF-8 or not. A detector answers
    `boxes` (B, D, 4) float32 xyxy pixels of the original image, `scores` (B, D)
    float32, falling, `labels` (B, D) int32, `label_names` (B, D) string and
    `num_detections` (B,) int32. An instance segmenter answers a detector's and `masks`
    (B, D, m, m) float32 in 0..1, each framed by its box: `visionkit.paste` puts them
    into the image. A segmenter answers `segmentation` (B, Hmax, Wmax)
    uint8 class ids in pixels of the original images, 255 beyond each one's own size,
    and `image_size` (B, 2) int32; it has a fifth signature `logits(image_bytes)`, with
    `logits` (B, Hmax, Wmax, K) float32, 0 beyond each image's own size, and
    `image_size`. Float outputs are never NaN: what is not finite becomes 0.
    `model.json` beside `saved_model.pb` describes the model for clients.

    The version appears in one step when it is complete and has passed the gate
    (`visionkit.serving.gate`); a killed or refused export leaves nothing a server
    would see.

    Args:
        model: A `VisionTask`, a run folder or a `.keras` file.
        path: The model's folder, e.g. "saved_models/flowers"; its numeric children are
            the versions.
        version: Default the next free number. An existing one is never overwritten.
        style: "visionkit" as above; for boxes, with or without masks, also
            "modelgarden" and "odapi", the names, order and units of those projects'
            exports, with their input names (`visionkit.inference.styles`).
        gate: Whether to check the export before it is published.
        metadata: Written into `model.json`, e.g. {"val_accuracy": 0.93}.

    Returns:
        The published folder, `path/<version>`.

    Raises:
        ExportRefused: The gate found faults; nothing is published.
        FileExistsError: `version` exists.
        OSError: The disk is full or not writable; nothing is published.
        RuntimeError: The backend is not TensorFlow.
        TypeError: `model` is not a visionkit task.
        ValueError: Unknown style, or one that the task does not have, or a model that
            reads more than images (Fast R-CNN), or `path` holds LiteRT or ONNX files.
    """
    model = exportable(model)
    style_function(style, model.task)
    with folded_norms(model.predictor):
        functions = build_signatures(model, style)
        # The functions hold their variables weakly, and nobody else has those folded.
        weights = {id(v): v for f in functions.values() for v in f.variables}
        weights = list(weights.values())

    def build(folder: Path):
        with _written_below(folder.parent):
            _write(folder, functions, weights)
            more = tuple(functions.keys() & {"logits"})
            requests = warmup_requests(model.preprocessing, style, more)
            warmup = write_warmup(folder, requests)
        checks, unchecked = (), dict.fromkeys(CHECKS, "the export was told not to")
        if gate:
            report = _check(folder, model, style)
            checks, unchecked = report.checks, report.skipped
        description = _describe(model, functions)
        description |= {
            "style": style,
            "warmup": warmup,
            "gate": checks,
            "unchecked": unchecked,
            "metadata": _plain(metadata or {}),
        }
        if not warmup:
            warnings.warn(
                "The export has no warm-up requests, so that a server's first clients "
                "wait longer. They need tensorflow-serving-api: pip install "
                "'visionkit[serving]'",
                stacklevel=4,
            )
        with _written_below(folder.parent):
            text = json.dumps(description, indent=2, allow_nan=False)
            (folder / "model.json").write_text(f"{text}\n", "utf-8")

    return publish(path, build, version)


def exportable(model):
    """The `VisionTask`, loaded where it is a path; refused what `export` refuses."""
    import keras

    if keras.backend.backend() != "tensorflow":
        raise RuntimeError(
            "A SavedModel is written by the TensorFlow backend; the active one is "
            f"{keras.backend.backend()!r}. Save the model as a .keras file and export "
            "that file in a process started with KERAS_BACKEND=tensorflow."
        )
    if isinstance(model, str | os.PathLike):
        from visionkit.tasks.loading import load

        model = load(model)
    if not hasattr(model, "predictor"):
        raise TypeError(
            "`model` must be a visionkit task, a run folder or a .keras file. "
            f"Received: {type(model).__name__}"
        )
    if isinstance(model.input, dict):
        raise ValueError(
            "An export takes images alone. Received: a model that reads "
            f"{', '.join(model.input)}"
        )
    if model.task not in graph.ANSWERS:
        raise TypeError(
            f"`model` must be of a task that can be exported: "
            f"{', '.join(graph.ANSWERS)}. Received: task={model.task!r}"
        )
    return model


@contextlib.contextmanager
def _written_below(base: Path):
    try:
        yield
    except (OSError, tf.errors.OpError) as error:
        raise OSError(
            f"The export could not be written below {base}, and nothing is published: "
            f"{error}. Check the free space and the folder's permissions."
        ) from error


def _write(folder: Path, functions: dict, weights: list) -> None:
    """Write the SavedModel."""
    # The module tracks the variables that the functions read and not the Keras model,
    # with which every weight would be written a second time.
    module = tf.Module()
    module.weights = weights
    logger = tf.get_logger()
    level = logger.level
    logger.setLevel("WARNING")  # it would tell of the temporary folder
    try:
        tf.saved_model.save(module, str(folder), signatures=functions)
    finally:
        logger.setLevel(level)


def _check(folder: Path, model, style: str) -> GateReport:
    """What the gate says of an export that it lets through."""
    # Half precision rounds differently wherever the graph is ordered differently.
    types = {layer.compute_dtype for layer in model.backbone.layers}
    tolerance = 2e-2 if types & {"bfloat16", "float16"} else 1e-4
    parameter_bytes = sum(
        math.prod(weight.shape) * tf.as_dtype(weight.dtype).size
        for weight in model.weights
    )
    report = run_gate(folder, parameter_bytes, build_cases(model, style), tolerance)
    if not report.passed:
        raise ExportRefused(report)
    return report


def _describe(model, functions: dict) -> dict:
    """What `model.json` says."""
    import keras

    return {
        "task": model.task,
        "name": model.name,
        "class_names": list(model.class_names),
        "multi_label": getattr(model, "multi_label", False),
        "preprocessing": model.preprocessing.get_config(),
        "conventions": CONVENTIONS | _TASK_CONVENTIONS.get(model.task, {}),
        "signatures": {name: _describe_function(f) for name, f in functions.items()},
        "parameters": model.count_params(),
        "versions": {
            "visionkit": __version__,
            "keras": keras.__version__,
            "tensorflow": tf.__version__,
        },
    }


def _describe_function(function) -> dict:
    def describe(spec):
        return {"dtype": spec.dtype.name, "shape": spec.shape.as_list()}

    (spec,), _ = function.structured_input_signature
    outputs = function.structured_outputs
    return {
        "inputs": {spec.name: describe(spec)},
        "outputs": {name: describe(output) for name, output in outputs.items()},
    }


def _plain(value):
    """JSON without NaN: what is not finite becomes null, NumPy numbers plain ones."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
