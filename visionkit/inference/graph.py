"""The one graph from image bytes to answers in original pixels.

Functions on tensors. `predict` runs them around a Keras model; an export freezes the
same functions into the SavedModel.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import tensorflow as tf

from visionkit.data.decode import decode_image
from visionkit.data.graph_headers import require
from visionkit.data.resize import (
    boxes_to_original,
    classes_to_original,
    logits_to_original,
    resize_image,
)
from visionkit.types import VOID_CLASS, Preprocessing

MAX_CANVAS_VALUES = 1 << 29
"""Of the answers for the pixels of a batch; as float32 they fill a gRPC message."""


def prepare_image(image, preprocessing: Preprocessing) -> dict:
    """One image as the model's input, with what leads back to original pixels.

    Args:
        image: (H, W, C) uint8, upright.
        preprocessing: How it becomes the model's input.

    Returns:
        "images" (h, w, C) float32 0..255; "placement" (4,) float32, resized = original
        * scale + offset as [scale_y, scale_x, offset_y, offset_x]; "image_size" (2,)
        int32, original (height, width).
    """
    resized, placement = resize_image(image, preprocessing)
    shape = (*preprocessing.image_size, preprocessing.channels)
    return {
        "images": tf.ensure_shape(tf.cast(resized, tf.float32), shape),
        "placement": placement,
        "image_size": tf.shape(image)[:2],
    }


def prepare_encoded(encoded, preprocessing: Preprocessing) -> dict:
    """`prepare_image` for encoded bytes () string.

    Limits are checked in the header before anything is decoded; a broken or oversized
    image raises `tf.errors.InvalidArgumentError`.
    """
    image = decode_image(encoded, preprocessing.channels, preprocessing.exif)
    return prepare_image(image, preprocessing)


def prepared_spec(preprocessing: Preprocessing) -> dict:
    """`tf.TensorSpec`s of what `prepare_image` returns."""
    shape = (*preprocessing.image_size, preprocessing.channels)
    return {
        "images": tf.TensorSpec(shape, tf.float32),
        "placement": tf.TensorSpec((4,), tf.float32),
        "image_size": tf.TensorSpec((2,), tf.int32),
    }


@tf.autograph.experimental.do_not_convert
def tolerant_map(dataset, prepare, preprocessing: Preprocessing):
    """`dataset.map(prepare)` in parallel and in order, past images that fail.

    Each element passes through a data set of its own, which may come out empty; a
    black image marked `image_valid` 0 then takes its place.

    Returns:
        A `tf.data.Dataset` of `prepared_spec` and "image_valid" () int32.
    """

    def mark(element, valid):
        return {**element, "image_valid": tf.constant(valid, tf.int32)}

    def one(*element):
        good = tf.data.Dataset.from_tensors(element)
        good = good.map(lambda *e: mark(prepare(*e), 1)).ignore_errors()
        blank = {
            name: tf.zeros(spec.shape, spec.dtype)
            for name, spec in prepared_spec(preprocessing).items()
        }
        marker = tf.data.Dataset.from_tensors(mark(blank, 0))
        return good.concatenate(marker).take(1)

    return dataset.interleave(
        one, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
    )


def finite(tensor):
    """The tensor as float32, with zeros in place of NaN and infinity."""
    tensor = tf.cast(tensor, tf.float32)
    return tf.where(tf.math.is_finite(tensor), tensor, tf.zeros_like(tensor))


def classification_answers(outputs: dict, prepared: dict, class_names) -> dict:
    """Answers of a classifier; there are no pixels to go back to.

    Args:
        outputs: Of the predictor: "probabilities" (B, K) and "labels" (B,).
        prepared: Batch of `prepare_image`.
        class_names: (K,) string tensor.

    Returns:
        "probabilities" (B, K) float32, "labels" (B,) int32, "label_names" (B,) string.
    """
    del prepared
    labels = tf.cast(outputs["labels"], tf.int32)
    return {
        "probabilities": finite(outputs["probabilities"]),
        "labels": labels,
        "label_names": tf.gather(class_names, labels),
    }


def detection_answers(outputs: dict, prepared: dict, class_names) -> dict:
    """Answers of a detector in pixels of the original images.

    Args:
        outputs: Of the predictor: "boxes" (B, D, 4), "scores" and "labels" (B, D),
            "num_detections" (B,).
        prepared: Batch of `prepare_image`.
        class_names: (K,) string tensor.

    Returns:
        "boxes" (B, D, 4) float32 xyxy pixels, clipped to the image, "scores" (B, D)
        float32, falling, "labels" (B, D) int32, "label_names" (B, D) string and
        "num_detections" (B,) int32. Padded rows: 0, label -1, the empty name.
    """
    labels = tf.cast(outputs["labels"], tf.int32)
    found = labels >= 0
    boxes = boxes_to_original(
        tf.cast(outputs["boxes"], tf.float32),
        prepared["placement"],
        prepared["image_size"],
    )
    names = tf.gather(class_names, tf.maximum(labels, 0))
    return {
        "boxes": finite(tf.where(found[..., None], boxes, 0.0)),
        "scores": finite(outputs["scores"]),
        "labels": labels,
        "label_names": tf.where(found, names, ""),
        "num_detections": tf.cast(outputs["num_detections"], tf.int32),
    }


def instance_answers(outputs: dict, prepared: dict, class_names) -> dict:
    """Answers of an instance segmenter: a detector's, and masks in their boxes.

    A box that reaches into the border of the model's input is cut where the image ends,
    and its mask with it.

    Args:
        outputs: As for `detection_answers`, and "masks" (B, D, m, m) probabilities,
            each framed by its box.
        prepared: Batch of `prepare_image`.
        class_names: (K,) string tensor.

    Returns:
        As `detection_answers`, and "masks" (B, D, m, m) float32 in 0..1, framed by the
        "boxes"; zeros in padded rows.
    """
    found = detection_answers(outputs, prepared, class_names)
    boxes = boxes_to_original(
        tf.cast(outputs["boxes"], tf.float32), prepared["placement"]
    )
    masks = _reframe(finite(outputs["masks"]), boxes, found["boxes"])
    present = (found["labels"] >= 0)[..., None, None]
    return {**found, "masks": tf.where(present, masks, 0.0)}


def _reframe(masks, boxes, frames):
    """TensorFlow's twin of `paste.reframe_masks`, for a batch."""

    def weights(axis, cells):
        low, first = boxes[..., axis], frames[..., axis]
        side = boxes[..., axis + 2] - low
        # From the differences to the box: where there are none, nothing is rounded.
        shift = tf.math.divide_no_nan(first - low, side)
        share = tf.math.divide_no_nan(frames[..., axis + 2] - first, side)
        index = tf.range(cells, dtype=tf.float32)
        place = shift[..., None] * cells + (index + 0.5) * share[..., None] - 0.5
        place = tf.where(side[..., None] > 0, place, -1.0)  # beside all cells
        return tf.maximum(1.0 - tf.abs(place[..., None] - index), 0.0)

    rows, columns = masks.shape[2:]
    return weights(1, rows) @ masks @ tf.linalg.matrix_transpose(weights(0, columns))


def segmentation_answers(outputs: dict, prepared: dict, class_names) -> dict:
    """Answers of a segmenter in pixels of the original images.

    Args:
        outputs: Of the predictor: "logits" (B, h, w, K).
        prepared: Batch of `prepare_image`.
        class_names: Not needed.

    Returns:
        "segmentation" (B, Hmax, Wmax) uint8 class ids, 255 beyond each image's own size
        and where the model saw nothing; "image_size" (B, 2) int32.
    """
    del class_names
    sizes = prepared["image_size"]
    found = _padded_classes(outputs["logits"], prepared["placement"], sizes)
    return {"segmentation": found, "image_size": sizes}


def original_logits(outputs: dict, prepared: dict) -> dict:
    """What a segmenter says of each pixel of the original images.

    Args:
        outputs: Of the predictor: "logits" (B, h, w, K).
        prepared: Batch of `prepare_image`.

    Returns:
        "logits" (B, Hmax, Wmax, K) float32, zeros beyond each image's own size and
        where the model saw nothing; "image_size" (B, 2) int32.
    """
    sizes = prepared["image_size"]
    found = _padded_logits(outputs["logits"], prepared["placement"], sizes)
    return {"logits": found, "image_size": sizes}


def check_canvas(prepared: dict, values: int) -> dict:
    """The same batch, once it is known how much the answers for its pixels will hold.

    They are padded to the largest height and the largest width, and two images that
    are small may bring one each.

    Args:
        prepared: Batch of `prepare_image`.
        values: Numbers that answer one pixel.

    Raises:
        InvalidArgumentError: More than `MAX_CANVAS_VALUES`.
    """
    sizes = tf.cast(prepared["image_size"], tf.int64)
    canvas = tf.concat([tf.shape(sizes, tf.int64)[:1], tf.reduce_max(sizes, 0)], 0)
    checked = require(
        tf.reduce_prod(canvas) * values <= MAX_CANVAS_VALUES,
        prepared["image_size"],
        f"batch.too_large: at most {MAX_CANVAS_VALUES:,} values, {values} for each "
        "pixel; images, and the largest height and width of them:",
        canvas,
    )
    return {**prepared, "image_size": checked}


@tf.function(autograph=False)
def _padded_classes(logits, placements, sizes):
    spec = tf.TensorSpec((None, None), tf.uint8)
    rows = logits, placements, sizes
    return _pad_to_largest(classes_to_original, rows, spec, VOID_CLASS)


@tf.function(autograph=False)
def _padded_logits(logits, placements, sizes):
    spec = tf.TensorSpec((None, None, logits.shape[-1]), tf.float32)
    return _pad_to_largest(logits_to_original, (logits, placements, sizes), spec, 0)


def _pad_to_largest(function, rows, spec, value):
    """`function` of each image of a batch, padded to the largest of them."""
    largest = tf.reduce_max(rows[-1], axis=0)

    def one(row):
        found = function(*row)
        after = tf.pad(largest - tf.shape(found)[:2], [[0, spec.shape.rank - 2]])
        pads = tf.stack([tf.zeros_like(after), after], axis=1)
        return tf.pad(found, pads, constant_values=tf.cast(value, found.dtype))

    return tf.map_fn(one, rows, fn_output_signature=spec, parallel_iterations=2)


# Task -> function from predictor outputs at model size to answers in original pixels.
ANSWERS = {
    "classification": classification_answers,
    "detection": detection_answers,
    "instance_segmentation": instance_answers,
    "semantic_segmentation": segmentation_answers,
}


def encode_names(class_names: Sequence[str]):
    """(K,) string tensor of the names; bytes that are not UTF-8 survive."""
    return tf.constant([os.fsencode(name) for name in class_names], tf.string)
