"""Samples at model size to padded ground truth; nothing is encoded for a loss."""

from __future__ import annotations

import warnings

import numpy as np

from visionkit.data.box_masks import sample_masks, tighten
from visionkit.data.geometric import visible_boxes
from visionkit.data.lazy import tf
from visionkit.data.resize import boxes_to_input
from visionkit.data.sources.base import Source
from visionkit.data.tuning import without_autotuning
from visionkit.types import MASK_SIZE, PADDING_LABEL

MAX_BOXES = 400  # per image; more of them cost more than they teach

MAX_LOST = 0.01
"""Share of the boxes of mixed images that may find no room without a warning."""

MIN_VISIBLE = 0.1
"""Share of a box that must be left in the image, or the box is dropped."""

MIN_SIDE = 1.0
"""Shortest side of a box in pixels of the model's input, or the box is dropped."""

MIN_CUT = 0.01
"""Pixels by which an edge of a box has to move, or it was not cut but rounded."""


def count_boxes(source: Source):
    """(len,) int32, the number of boxes of each record; None if it has no boxes."""
    records = source.raw_dataset()
    if "boxes" not in records.element_spec:
        return None

    @tf.autograph.experimental.do_not_convert
    def count(record):
        return tf.shape(record["boxes"])[0]

    counts = without_autotuning(records.map(count))
    return np.concatenate([[], *counts.batch(4096).as_numpy_iterator()]).astype(int)


def choose_max_boxes(counts, images: int = 1) -> int:
    """Rows for all boxes of any image, in eights, at most `MAX_BOXES`.

    Args:
        counts: (N,) int, boxes of each image.
        images: Images that are mixed into one; then hardly any mix has more, three
            standard deviations above the mean.
    """
    rows = most = counts.max(initial=1)
    if images > 1 and len(counts):
        usual = images * counts.mean() + 3 * np.sqrt(images) * counts.std()
        rows = np.clip(usual, most, images * most)
    return min(MAX_BOXES, int(-(-rows // 8)) * 8)


def limit_boxes(source: Source, max_boxes: int | None, report, images: int = 1):
    """The rows of the target; says how many boxes find no room in them.

    Those of the source are counted ("boxes.over_max_boxes"); for what an epoch of mixed
    images loses there is an upper bound ("boxes.over_max_boxes_mixed").

    Args:
        source: Of a task with boxes.
        max_boxes: What was asked for; None for `choose_max_boxes`.
        report: The `DataReport` that counts.
        images: Images that are mixed into one.
    """
    counts = count_boxes(source)
    if max_boxes is None:
        max_boxes = choose_max_boxes(counts, images)
    over = np.maximum(counts - max_boxes, 0)
    report.note_count("boxes.over_max_boxes", over.sum())
    if over.any():
        warnings.warn(
            f"{over.sum()} of {counts.sum()} boxes, in {np.count_nonzero(over)} images "
            f"({source.info.name}, {source.info.split}), are more than `max_boxes` = "
            f"{max_boxes} per image and are left out",
            stacklevel=3,
        )
    lost = share_without_room(counts, max_boxes, images)
    report.note_count("boxes.over_max_boxes_mixed", round(lost * images * counts.sum()))
    if lost > MAX_LOST:
        warnings.warn(
            f"Where {images} images are mixed into one, up to {lost:.1%} of their "
            f"boxes are more than `max_boxes` = {max_boxes} per image and are left out",
            stacklevel=3,
        )
    return max_boxes


def share_without_room(counts, max_boxes: int, images: int) -> float:
    """The share of the boxes of mixed images that find no room, at most.

    As if every image were mixed and every box seen whole, estimated from random mixes
    that are the same every time. What is really left out depends on the draws.

    Args:
        counts: (N,) int, boxes of each image.
        max_boxes: Rows of the target.
        images: Images that are mixed into one; 1 for none.
    """
    if images == 1 or not counts.any():
        return 0.0
    mixes = np.random.default_rng(0).choice(counts, (10_000, images)).sum(axis=1)
    return float(np.maximum(mixes - max_boxes, 0).sum() / max(mixes.sum(), 1))


def make_target(sample, task: str, max_boxes: int | None, with_ids: bool) -> dict:
    """The ground truth of one sample, by name; see `simplify`."""
    if task == "classification":
        target = {"labels": sample["labels"]}
    elif task == "semantic_segmentation":
        target = {"segmentation_masks": sample["segmentation_masks"]}
    elif task == "detection":
        target = pad_boxes(map_boxes(sample), max_boxes)
    else:
        target = pad_boxes(map_instances(sample, max_boxes), max_boxes)
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
        `Boxes`; where the sample has instance masks with "instance_masks" (N,) string
        and "cut" (N,) bool, whether the box was.
    """
    rows = dict(sample["bounding_boxes"])
    boxes, share = visible_boxes(sample, rows["boxes"])
    if "instance_masks" in sample:
        rows["instance_masks"] = sample["instance_masks"]
        whole = boxes_to_input(rows["boxes"], sample["placement"])
        rows["cut"] = tf.reduce_any(tf.abs(whole - boxes) > MIN_CUT, axis=1)
    rows["boxes"] = boxes
    keep = (share >= MIN_VISIBLE) & is_large(boxes)
    if "is_crowd" in rows:
        keep &= ~rows["is_crowd"]
    return {key: tf.boolean_mask(value, keep) for key, value in rows.items()}


def map_instances(sample, limit: int):
    """The first `limit` boxes of `map_boxes`, with the masks in them.

    A box that was cut is the tight one of what is left of the mask. Dropped too are
    objects of which no pixel is left, though a part of their box is.

    Returns:
        {"boxes": (N, 4) float32, "labels": (N,) int32, "masks": (N, MASK_SIZE,
        MASK_SIZE) uint8}; see `box_masks`.
    """
    rows = {key: value[:limit] for key, value in map_boxes(sample).items()}
    where = sample["mask_size"], rows["boxes"], sample["placement"]
    masks = sample_masks(rows["instance_masks"], *where)
    boxes, masks = tighten(rows["boxes"], masks, rows["cut"])
    rows = {"boxes": boxes, "labels": rows["labels"], "masks": masks}
    keep = is_large(boxes) & is_seen(masks)
    return {key: tf.boolean_mask(value, keep) for key, value in rows.items()}


def pad_boxes(rows, max_boxes: int):
    """{"boxes": (M, 4) float32, "labels": (M,) int32}, labels padded with -1.

    And "masks" (M, MASK_SIZE, MASK_SIZE) uint8 where there are.
    """
    boxes, labels = rows["boxes"][:max_boxes], rows["labels"][:max_boxes]
    room = max_boxes - tf.shape(boxes)[0]
    boxes = tf.pad(boxes, [[0, room], [0, 0]])
    labels = tf.pad(
        tf.cast(labels, tf.int32), [[0, room]], constant_values=PADDING_LABEL
    )
    out = {
        "boxes": tf.ensure_shape(boxes, [max_boxes, 4]),
        "labels": tf.ensure_shape(labels, [max_boxes]),
    }
    if "masks" in rows:
        masks = tf.pad(rows["masks"][:max_boxes], [[0, room], [0, 0], [0, 0]])
        out["masks"] = tf.ensure_shape(masks, [max_boxes, MASK_SIZE, MASK_SIZE])
    return out


def pack_rows(columns: dict, keep):
    """Rows of K images in M rows, those to keep first, in their order.

    Args:
        columns: Name -> (B, K, M, ...); "labels" among them.
        keep: (B, K, M) bool.

    Returns:
        Name -> (B, M, ...); other rows are zeros with the label -1. What finds no room
        is dropped.
    """
    rows, images = keep.shape[2], keep.shape[1]
    keep = tf.reshape(keep, (-1, images * rows))
    order = tf.argsort(tf.cast(~keep, tf.int32), axis=1, stable=True)[:, :rows]
    keep = tf.gather(keep, order, batch_dims=1)
    out = {}
    for key, column in columns.items():
        rest = column.shape[3:]
        column = tf.reshape(column, (-1, images * rows, *rest))
        column = tf.gather(column, order, batch_dims=1)
        fill = tf.cast(PADDING_LABEL if key == "labels" else 0, column.dtype)
        out[key] = tf.where(
            tf.reshape(keep, (-1, rows, *[1] * len(rest))), column, fill
        )
    return out


def map_proposals(sample):
    """(P, 4) float32, the sample's proposals in pixels of its image, clipped to it.

    Those with a side below `MIN_SIDE` are dropped.
    """
    boxes, _ = visible_boxes(sample, sample["proposals"])
    return tf.boolean_mask(boxes, is_large(boxes))


def pad_proposals(boxes, max_proposals: int):
    """(max_proposals, 4) float32, the first proposals, padded with rows of zeros."""
    boxes = boxes[:max_proposals]
    boxes = tf.pad(boxes, [[0, max_proposals - tf.shape(boxes)[0]], [0, 0]])
    return tf.ensure_shape(boxes, [max_proposals, 4])


def is_large(boxes):
    """(...) bool, whether boxes (..., 4) have no side below `MIN_SIDE`."""
    return tf.reduce_all(boxes[..., 2:] - boxes[..., :2] >= MIN_SIDE, axis=-1)


def is_seen(masks):
    """(N,) bool, which of masks (N, h, w) have a cell of their object."""
    return tf.reduce_max(masks, axis=(1, 2)) > 0
