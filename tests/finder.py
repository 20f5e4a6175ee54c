"""A detector that needs no training: it finds rectangles of two pure colours."""

from __future__ import annotations

import io

import keras
import numpy as np
from keras import ops
from PIL import Image, ImageDraw

from visionkit.tasks.detection.detector import Detector
from visionkit.types import Preprocessing

RED, GREEN = (255, 0, 0), (0, 255, 0)
NAMES = ("red", "grün")
MAX_DETECTIONS = 3


class Finder(keras.layers.Layer):
    """Images (B, h, w, 3) to one box per colour, around the pixels that have it."""

    def call(self, images):
        height, width = images.shape[1:3]
        red = ops.logical_and(images[..., 0] > 180, images[..., 1] < 90)
        green = ops.logical_and(images[..., 1] > 180, images[..., 0] < 90)
        boxes, scores = [], []
        for mask, score in ((red, 0.9), (green, 0.6)):
            columns, rows = ops.any(mask, axis=1), ops.any(mask, axis=2)

            def span(there, count):
                places = ops.arange(count, dtype="float32")
                low = ops.min(ops.where(there, places, float(count)), axis=1)
                return low, ops.max(ops.where(there, places + 1, 0.0), axis=1)

            (x1, x2), (y1, y2) = span(columns, width), span(rows, height)
            boxes.append(ops.stack([x1, y1, x2, y2], axis=-1))
            scores.append(ops.where(x2 > x1, score, 0.0))
        return {"boxes": ops.stack(boxes, 1), "scores": ops.stack(scores, 1)}


class Answers(keras.layers.Layer):
    """What is found first, padding behind it."""

    def call(self, raw):
        order = ops.argsort(-raw["scores"], axis=1)
        scores = ops.take_along_axis(raw["scores"], order, axis=1)
        boxes = ops.take_along_axis(raw["boxes"], order[..., None], axis=1)
        found = scores > 0
        pad = ((0, 0), (0, MAX_DETECTIONS - 2))
        labels = ops.where(found, ops.cast(order, "int32"), -1)
        return {
            "boxes": ops.pad(ops.where(found[..., None], boxes, 0.0), (*pad, (0, 0))),
            "scores": ops.pad(scores, pad),
            "labels": ops.pad(labels, pad, constant_values=-1),
            "num_detections": ops.sum(ops.cast(found, "int32"), axis=1),
        }


def build_finder(image_size=(120, 160), resize="letterbox") -> Detector:
    """The detector, for images of any size."""
    images = keras.Input((*image_size, 3), name="images")
    backbone = keras.Model(images, {"P3": keras.layers.Conv2D(1, 1)(images)})
    outputs = Finder(dtype="float32")(images)
    outputs["unused"] = ops.mean(backbone(images)["P3"], axis=(1, 2, 3))[:, None]
    return Detector(
        images,
        outputs,
        num_classes=2,
        backbone=backbone,
        postprocess=Answers(dtype="float32"),
        preprocessing=Preprocessing(image_size, resize, crop_fraction=1.0),
        class_names=NAMES,
    )


def draw(size, boxes, *, exif: int | None = None) -> bytes:
    """An encoded scene of (height, width) with a red and perhaps a green box, xyxy."""
    image = Image.new("RGB", size[::-1], (40, 40, 60))
    for box, color in zip(boxes, (RED, GREEN), strict=False):
        x1, y1, x2, y2 = box
        ImageDraw.Draw(image).rectangle((x1, y1, x2 - 1, y2 - 1), fill=color)
    options = {}
    if exif:
        tags = Image.Exif()
        tags[0x0112] = exif
        options["exif"] = tags
    out = io.BytesIO()
    image.save(out, "PNG" if exif is None else "JPEG", **options)
    return out.getvalue()


def iou(a, b) -> float:
    """Of two boxes xyxy."""
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
    shared = np.prod(np.maximum(high - low, 0))
    area = [np.prod(np.subtract(x[2:], x[:2])) for x in (a, b)]
    return float(shared / (sum(area) - shared))
