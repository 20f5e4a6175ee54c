"""Instance masks where images of a batch are put into one, on the device.

The twin of `data/instance_mixing.py`, in static shapes: all rows are worked on.
"""

from __future__ import annotations

from keras import ops

from visionkit.ops.box_masks import (
    mask_extents,
    paint_masks,
    reframe_masks,
    uncovered,
)
from visionkit.ops.gather import pack_rows
from visionkit.types import MASK_SIZE

MIN_VISIBLE = 0.1  # share of an object that must be left
MIN_SIDE = 1.0  # pixels
MIN_CUT = 0.01  # pixels; less is rounding


def follow_boxes(target, rows):
    """The target of batches whose boxes were moved, zoomed and cut, but not mirrored.

    Args:
        target: The batch as it was: "masks" (B, M, MASK_SIZE, MASK_SIZE) uint8.
        rows: "boxes" (B, M, 4) and "labels" (B, M) as they are; of each row the box
            it had, "own" (B, M, 4), what is seen of that, "seen", and "source" (B, M)
            int32, its number among all B * M.

    Returns:
        The target, all in the order of `rows`. Boxes that were cut are the tight ones
        of what is left of the masks; objects of which nothing is left are dropped.
    """
    boxes, own, seen = (
        ops.reshape(rows[key], (-1, 4)) for key in ("boxes", "own", "seen")
    )
    masks = ops.take(_flat(target["masks"]), ops.reshape(rows["source"], (-1,)), axis=0)
    cut = ops.any(ops.abs(own - seen) > MIN_CUT, axis=1, keepdims=True)
    changed = reframe_masks(masks, own, seen)
    tight = ops.where(cut, mask_extents(boxes, changed), boxes)
    changed = reframe_masks(changed, boxes, tight)
    masks = ops.where(cut[..., None], changed, masks)
    labels = rows["labels"]
    tight = ops.reshape(tight, rows["boxes"].shape)
    masks = ops.reshape(masks, (*labels.shape, MASK_SIZE, MASK_SIZE))
    return _pack(target, [tight], [masks], [labels], [labels >= 0])


def paste_instances(images, target, chosen):
    """Objects pasted by their masks; see `mixing.copy_paste`.

    Args:
        images: (B, h, w, C), any type.
        target: Dict with "boxes", "labels" and "masks".
        chosen: (B, M) bool, which rows of the partner are pasted; no padded ones.

    Returns:
        (images, target) of the same shapes and types.
    """
    boxes, masks, labels = (target[key] for key in ("boxes", "masks", "labels"))
    boxes = ops.cast(boxes, "float32")
    others = [ops.roll(x, 1, axis=0) for x in (boxes, masks, labels)]
    covered = paint_masks(*others[:2], chosen, images.shape[1:3])
    images = ops.where(covered[..., None], ops.roll(images, 1, axis=0), images)

    left = _flat(uncovered(boxes, masks, covered))
    flat_boxes, flat = ops.reshape(boxes, (-1, 4)), _flat(masks)
    before, after = _count(flat), _count(left)
    moved = mask_extents(flat_boxes, left)
    moved = ops.where(moved == mask_extents(flat_boxes, flat), flat_boxes, moved)
    enough = (after >= MIN_VISIBLE * before)[:, None, None]
    left = ops.where(enough, reframe_masks(left, flat_boxes, moved), 0)
    hit = ops.repeat(ops.any(covered, axis=(1, 2)), labels.shape[1])
    left = ops.where(hit[:, None, None], left, flat)
    moved = ops.where(hit[:, None], moved, flat_boxes)
    return images, _pack(
        target,
        [ops.reshape(moved, boxes.shape), others[0]],
        [ops.reshape(left, masks.shape), others[1]],
        [labels, others[2]],
        [labels >= 0, chosen],
    )


def _flat(masks):
    return ops.reshape(masks, (-1, MASK_SIZE, MASK_SIZE))


def _count(masks):
    return ops.sum(ops.cast(masks, "float32"), axis=(1, 2))


def _pack(target, boxes, masks, labels, keep):
    """The target with the rows of K images, lists of (B, M, ...), those of `keep`."""
    columns = {"boxes": boxes, "masks": masks, "labels": labels}
    columns = {key: ops.stack(parts, axis=1) for key, parts in columns.items()}
    boxes = columns["boxes"]
    fine = ops.all(boxes[..., 2:] - boxes[..., :2] >= MIN_SIDE, axis=-1)
    fine = ops.logical_and(fine, ops.max(columns["masks"], axis=(-2, -1)) > 0)
    fine = ops.logical_and(fine, ops.stack(keep, axis=1))
    return {**target, **pack_rows(columns, fine)}
