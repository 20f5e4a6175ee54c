"""What becomes of instance masks where images of a batch are put into one.

Masks are framed by their boxes, see `box_masks`. Only rows that hold an object are
worked on, and only the cut and covered ones of them are sampled anew.
"""

from __future__ import annotations

from visionkit.data.box_masks import (
    change_rows,
    mask_extents,
    paint_masks,
    reframe_masks,
    uncovered,
)
from visionkit.data.image_ops import select
from visionkit.data.lazy import tf
from visionkit.data.targets import (
    MIN_CUT,
    MIN_VISIBLE,
    is_large,
    is_seen,
    pack_rows,
)


def follow_boxes(target, rows):
    """The target of batches whose boxes were moved, zoomed and cut, but not mirrored.

    Boxes that were cut are the tight ones of what is left of the masks, and objects of
    which nothing is left are dropped.

    Args:
        target: The batch as it was: "masks" (B, M, MASK_SIZE, MASK_SIZE) uint8.
        rows: "boxes" (B, M, 4) and "labels" (B, M) as they are; of each row the box
            it had, "own" (B, M, 4), what is seen of that, "seen", and "source" (B, M)
            int32, its number among all B * M.

    Returns:
        The target, all in the order of `rows`.
    """
    index = tf.where(rows["labels"] >= 0)
    boxes, own, seen, source = (
        tf.gather_nd(rows[key], index) for key in ("boxes", "own", "seen", "source")
    )
    masks = target["masks"]
    masks = tf.gather(tf.reshape(masks, (-1, *masks.shape[2:])), source)

    def change(boxes, masks, own, seen):
        masks = reframe_masks(masks, own, seen)
        tight = mask_extents(boxes, masks)
        return tight, reframe_masks(masks, boxes, tight)

    cut = tf.reduce_any(tf.abs(own - seen) > MIN_CUT, axis=1)
    boxes, masks = change_rows(change, cut, boxes, masks, own, seen)
    return _pack(target, rows["labels"][:, None], _in_layer(index, 0), boxes, masks)


def paste_instances(images, target, chosen):
    """Objects pasted by their masks; see `box_mixing.copy_paste`.

    Args:
        images: (B, h, w, C) uint8.
        target: Dict with "boxes", "labels" and "masks".
        chosen: (B, M) bool, which rows of the partner are pasted; no padded ones.

    Returns:
        (images, target) of the same shapes.
    """
    masks, labels = target["masks"], target["labels"]
    batch = tf.shape(labels, tf.int64)[0]
    pasted = tf.where(chosen)
    partner = tf.stack([(pasted[:, 0] - 1) % batch, pasted[:, 1]], axis=1)
    new_boxes = tf.gather_nd(target["boxes"], partner)
    new_masks = tf.gather_nd(masks, partner)
    owners = tf.cast(pasted[:, 0], tf.int32)
    covered = paint_masks(new_boxes, new_masks, owners, tf.shape(images)[:3])
    images = select(covered[..., None], tf.roll(images, 1, axis=0), images)

    def change(boxes, masks, owners):
        left = uncovered(boxes, masks, owners, covered)
        before, after = (_cells(masks), _cells(left))
        enough = tf.cast(after >= MIN_VISIBLE * before, tf.uint8)
        moved = mask_extents(boxes, left)
        moved = tf.where(moved == mask_extents(boxes, masks), boxes, moved)
        left = left * enough[:, None, None]
        return moved, reframe_masks(left, boxes, moved)

    below = tf.where(labels >= 0)
    owners = tf.cast(below[:, 0], tf.int32)
    hit = tf.gather(tf.reduce_any(covered, axis=(1, 2)), owners)
    boxes, left = change_rows(
        change,
        hit,
        tf.gather_nd(target["boxes"], below),
        tf.gather_nd(masks, below),
        owners,
    )
    index = tf.concat([_in_layer(below, 0), _in_layer(pasted, 1)], axis=0)
    labels = tf.stack([labels, tf.roll(labels, 1, axis=0)], axis=1)
    boxes = tf.concat([boxes, new_boxes], axis=0)
    masks = tf.concat([left, new_masks], axis=0)
    return images, _pack(target, labels, index, boxes, masks)


def _cells(masks):
    return tf.reduce_sum(tf.cast(masks, tf.float32), axis=(1, 2))


def _in_layer(index, layer: int):
    """(N, 3) int64, the places (N, 2) of rows of the K-th image."""
    layers = tf.fill(tf.shape(index[:, :1]), tf.constant(layer, tf.int64))
    return tf.concat([index[:, :1], layers, index[:, 1:]], axis=1)


def _pack(target, labels, index, boxes, masks):
    """The target with objects in the rows of the batch, without those gone.

    Args:
        target: What else is in it stays.
        labels: (B, K, M) int32 of K images, of which one is made.
        index: (N, 3) int64, the place in `labels` of each object.
        boxes: (N, 4) float32.
        masks: (N, MASK_SIZE, MASK_SIZE) uint8.
    """
    fine = is_seen(masks) & is_large(boxes)
    number = tf.where(fine, tf.range(1, tf.size(fine) + 1), 0)
    shape = tf.shape(labels, tf.int64)
    columns = {
        "boxes": tf.scatter_nd(index, boxes, tf.concat([shape, [4]], axis=0)),
        "labels": labels,
        "number": tf.scatter_nd(index, number, shape),
    }
    columns = {
        key: tf.ensure_shape(value, [*labels.shape, *value.shape[3:]])
        for key, value in columns.items()
    }
    rows = pack_rows(columns, columns["number"] > 0)
    none = tf.zeros_like(target["masks"][0, :1])
    masks = tf.gather(tf.concat([none, masks], axis=0), rows.pop("number"))
    return {**target, **rows, "masks": masks}
