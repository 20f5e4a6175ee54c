"""What a smaller format of a run costs and gains: metric, size and latency."""

from __future__ import annotations

import math

import numpy as np

from visionkit.data.sources.base import Subset
from visionkit.training.evaluation import evaluate_model

METRICS = {
    "classification": "accuracy",
    "detection": "map",
    "instance_segmentation": "mask_map",
    "semantic_segmentation": "mean_iou",
}
"""Task -> the metric whose drop counts; of many labels "mean_average_precision"."""

MAX_IMAGES = 1000  # of the validation set: a file answers one image at a time
CALIBRATION_IMAGES = 100


class _Answering:
    """A runtime, as `evaluate_model` asks a model."""

    def __init__(self, model, runtime):
        self.task, self.class_names = model.task, model.class_names
        self.preprocessing = model.preprocessing
        self.multi_label = getattr(model, "multi_label", False)
        self.scorer = model.scorer
        self.predict_on_batch = runtime.predict_on_batch


def measure_portable(
    model, runtime, source, *, batch_size: int = 8, max_images: int = MAX_IMAGES
) -> dict:
    """A model and a file of it, side by side on the same validation images.

    Args:
        model: The `VisionTask` that was converted.
        runtime: The file's `visionkit.inference.runtimes.Runtime`.
        source: Validation data.
        batch_size: Images that the model answers at once; latencies are of one.
        max_images: Of a larger source, so many evenly spaced ones.

    Returns:
        {"metric": its name, "images": their number, "drop": model - file}, and of
        "model" and "file" each {"value", "bytes", "seconds"}: the metric, the size of
        the weights or of the file, and the median time of one image.
    """
    from visionkit.inference.runtimes import latency
    from visionkit.portable.exporting import sample_inputs

    metric = METRICS[model.task]
    if getattr(model, "multi_label", False):
        metric = "mean_average_precision"
    source = evenly(source, max_images)
    one = sample_inputs(model)[:1]
    weights = sum(math.prod(w.shape) * _bytes_of(w.dtype) for w in model.weights)
    sides = {
        "model": (model, model, weights),
        "file": (_Answering(model, runtime), runtime, runtime.file.stat().st_size),
    }
    found = {
        name: {
            "value": evaluate_model(asked, source, batch_size=batch_size)[metric],
            "bytes": size,
            "seconds": latency(timed.predict_on_batch, one),
        }
        for name, (asked, timed, size) in sides.items()
    }
    drop = found["model"]["value"] - found["file"]["value"]
    return {"metric": metric, "images": len(source), "drop": float(drop), **found}


def calibration_images(model, source, count: int = CALIBRATION_IMAGES) -> list:
    """Images (h, w, C) of a training set, evenly spaced, without augmentation."""
    from visionkit.data import DataReport, make_dataset

    source = evenly(source, count)
    report = DataReport(source, max_bad=1.0)
    batches = make_dataset(source, model.preprocessing, 1, report=report)
    return [images[0].numpy() for images, _ in batches]


def evenly(source, count: int):
    """At most `count` records of a source, evenly spaced."""
    if len(source) <= count:
        return source
    rows = np.linspace(0, len(source) - 1, count).round().astype(int)
    return Subset(source, rows, source.info.split)


def _bytes_of(dtype: str) -> int:
    return {"bfloat16": 2}.get(dtype) or np.dtype(dtype).itemsize
