"""Instance masks in their boxes, on the device; the twin of `data/box_masks.py`.

A mask (MASK_SIZE, MASK_SIZE) uint8 of 0 and 1 is framed by its box: cell (i, j) is the
object at the point x1 + (j + 0.5) / MASK_SIZE * (x2 - x1), and y likewise. What padded
rows hold is of no meaning, but finite.
"""

from __future__ import annotations

from keras import ops

from visionkit.ops.gather import gather_rows
from visionkit.types import MASK_SIZE

TINY = 1e-6  # pixels, in place of the side of a padded box


def reframe_masks(masks, boxes, frames):
    """Masks in other frames than their boxes.

    Args:
        masks: (N, MASK_SIZE, MASK_SIZE) uint8.
        boxes: (N, 4) float32, their frames.
        frames: (N, 4) float32, others within them.

    Returns:
        (N, MASK_SIZE, MASK_SIZE) uint8, the nearest cells.
    """
    x1, y1, x2, y2 = ops.unstack(boxes, 4, axis=-1)
    left, top, right, bottom = ops.unstack(frames, 4, axis=-1)
    masks = gather_rows(masks, _cells(_centres(top, bottom), y1, y2))
    columns = _cells(_centres(left, right), x1, x2)
    return _turned(gather_rows(_turned(masks), columns))


def mask_extents(boxes, masks):
    """(N, 4) float32, the tight boxes of masks; the box itself where one is empty."""

    def edges(low, high, axis):
        seen = ops.max(masks, axis=axis)
        first, last = ops.argmax(seen, axis=1), ops.argmax(ops.flip(seen, 1), axis=1)
        step = (high - low) / MASK_SIZE
        low = low + ops.cast(first, "float32") * step
        return low, high - ops.cast(last, "float32") * step

    x1, y1, x2, y2 = ops.unstack(boxes, 4, axis=-1)
    (top, bottom), (left, right) = edges(y1, y2, 2), edges(x1, x2, 1)
    return ops.stack([left, top, right, bottom], axis=-1)


def paint_masks(boxes, masks, chosen, size):
    """Which pixels of each image are in masks.

    Args:
        boxes: (B, M, 4) float32, xyxy pixels.
        masks: (B, M, MASK_SIZE, MASK_SIZE) uint8.
        chosen: (B, M) bool, which of them.
        size: (height, width) of the images.

    Returns:
        (B, height, width) bool; a pixel is in a mask if its centre lies in a cell of 1.
    """
    height, width = size
    centres = [ops.arange(side, dtype="float32")[None] + 0.5 for side in size]

    def paint(row, painted):  # one object of each image: no stack of full sizes
        x1, y1, x2, y2 = ops.unstack(ops.take(boxes, row, axis=1), 4, axis=-1)
        mask = gather_rows(ops.take(masks, row, axis=1), _cells(centres[0], y1, y2))
        mask = _turned(gather_rows(_turned(mask), _cells(centres[1], x1, x2)))
        down, across = _between(centres[0], y1, y2), _between(centres[1], x1, x2)
        inside = ops.logical_and(down[:, :, None], across[:, None, :])
        inside = ops.logical_and(inside, mask > 0)
        own = ops.take(chosen, row, axis=1)[:, None, None]
        return ops.logical_or(painted, ops.logical_and(inside, own))

    number = ops.arange(1, chosen.shape[1] + 1, dtype="int32")
    behind = ops.max(ops.where(chosen, number, 0))
    start = ops.zeros((chosen.shape[0], height, width), "bool")
    return ops.fori_loop(0, behind, paint, start)


def uncovered(boxes, masks, covered):
    """Masks without the pixels that something covers.

    Args:
        boxes: (B, M, 4) float32, xyxy pixels, inside the images.
        masks: (B, M, MASK_SIZE, MASK_SIZE) uint8.
        covered: (B, h, w) bool.

    Returns:
        (B, M, MASK_SIZE, MASK_SIZE) uint8.
    """
    batch, height, width = covered.shape

    def pixels(low, high, side):
        index = ops.cast(ops.floor(_centres(low, high)), "int32")
        return ops.clip(index, 0, side - 1)

    x1, y1, x2, y2 = ops.unstack(boxes, 4, axis=-1)
    rows, columns = pixels(y1, y2, height), pixels(x1, x2, width)
    place = rows[..., :, None] * width + columns[..., None, :]
    flat = ops.reshape(ops.cast(covered, "uint8"), (batch, height * width))
    hidden = gather_rows(flat, ops.reshape(place, (batch, -1)))
    return ops.where(ops.reshape(hidden, masks.shape) > 0, 0, masks)


def _centres(low, high):
    """(..., MASK_SIZE) float32, the centres of the cells between two edges (...)."""
    share = (ops.arange(MASK_SIZE, dtype="float32") + 0.5) / MASK_SIZE
    return low[..., None] + share * (high - low)[..., None]


def _cells(points, low, high):
    """(N, n) int32, the cells between two edges (N,) that points are in."""
    side = ops.maximum(high - low, TINY)[:, None]
    index = ops.floor((points - low[:, None]) / side * MASK_SIZE)
    return ops.cast(ops.clip(index, 0, MASK_SIZE - 1), "int32")


def _between(points, low, high):
    return ops.logical_and(points >= low[:, None], points < high[:, None])


def _turned(masks):
    return ops.swapaxes(masks, 1, 2)
