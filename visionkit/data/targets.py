"""Samples at model size to padded ground truth; nothing is encoded for a loss."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from visionkit.data.resize import boxes_to_input
from visionkit.data.sources.base import Source
from visionkit.types import PADDING_LABEL

MAX_BOXES = 400  # per image; more of them cost more than they teach

MIN_VISIBLE = 0.1
"""Share of a box that must be left in the image, or the box is dropped."""

MIN_SIDE = 1.0
"""Shortest side of a box in pixels of the model's input, or the box is dropped."""


def count_boxes(source: Source):
    """(len,) int32, the number of boxes of each record; None if it has no boxes."""
    records = source.raw_dataset()
    if "boxes" not in records.element_spec:
        return None
    counts = records.map(lambda record: tf.shape(record["boxes"])[0])
    return np.concatenate([[], *counts.batch(4096).as_numpy_iterator()]).astype(int)


def choose_max_boxes(counts) -> int:
    """The largest of `counts`, in eights, at most `MAX_BOXES`."""
    return min(MAX_BOXES, -(-int(counts.max(initial=1)) // 8) * 8)


def make_target(sample, task: str, max_boxes: int | None, with_ids: bool) -> dict:
    """The ground truth of one sample, by name; see `simplify`."""
    if task == "classification":
        target = {"labels": sample["labels"]}
    elif task == "semantic_segmentation":
        target = {"segmentation_masks": sample["segmentation_masks"]}
    else:
        target = pad_boxes(map_boxes(sample), max_boxes)
    if with_ids:
        return {**target, **{key: sample[key] for key in ("image_id", "image_size")}}
    return target


def simplify(target: dict):
    """The target as a loss reads it: the one tensor, or the dict of several."""
    return target if len(target) > 1 else next(iter(target.values()))


def map_boxes(sample):
    """The sample's boxes in pixels of its image, all rows beside them kept in step.

    Boxes are clipped to what is visible. Dropped are crowds, boxes of which less than
    `MIN_VISIBLE` is left, and those with a side below `MIN_SIDE` pixels.

    Returns:
        `Boxes`, with "instance_masks" (N,) string where the sample has them.
    """
    rows = dict(sample["bounding_boxes"])
    if "instance_masks" in sample:
        rows["instance_masks"] = sample["instance_masks"]
    boxes = tf.ensure_shape(rows["boxes"], [None, 4])
    y1, x1, y2, x2 = tf.unstack(sample["visible"])
    low, high = tf.stack([x1, y1, x1, y1]), tf.stack([x2, y2, x2, y2])
    clipped = tf.clip_by_value(boxes, low, high)
    rows["boxes"] = boxes_to_input(clipped, sample["placement"])
    sides = rows["boxes"][:, 2:] - rows["boxes"][:, :2]
    keep = tf.reduce_all(sides >= MIN_SIDE, axis=1)
    keep &= _area(clipped) >= MIN_VISIBLE * _area(boxes)
    if "is_crowd" in rows:
        keep &= ~rows["is_crowd"]
    return {key: tf.boolean_mask(value, keep) for key, value in rows.items()}


def pad_boxes(rows, max_boxes: int):
    """{"boxes": (M, 4) float32, "labels": (M,) int32}, labels padded with -1."""
    boxes, labels = rows["boxes"][:max_boxes], rows["labels"][:max_boxes]
    room = max_boxes - tf.shape(boxes)[0]
    boxes = tf.pad(boxes, [[0, room], [0, 0]])
    labels = tf.pad(
        tf.cast(labels, tf.int32), [[0, room]], constant_values=PADDING_LABEL
    )
    return {
        "boxes": tf.ensure_shape(boxes, [max_boxes, 4]),
        "labels": tf.ensure_shape(labels, [max_boxes]),
    }


def _area(boxes):
    return tf.reduce_prod(boxes[:, 2:] - boxes[:, :2], axis=1)
