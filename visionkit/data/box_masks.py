"""Instance masks in their boxes, in TensorFlow's graph.

A mask (MASK_SIZE, MASK_SIZE) uint8 of 0 and 1 is framed by its box: cell (i, j) is the
object at the point x1 + (j + 0.5) / MASK_SIZE * (x2 - x1), and y likewise.
`ops/box_masks.py` is the same on the device.
"""

from __future__ import annotations

from visionkit.data.lazy import tf
from visionkit.types import MASK_SIZE


def sample_masks(regions, size, boxes, placement):
    """The masks of RLE strings in boxes of the image as it is now.

    Args:
        regions: (N,) string, RLE strings.
        size: (2,) int32, (height, width) that they are of.
        boxes: (N, 4) float32, xyxy pixels of the image, not beyond where it is seen.
        placement: (4,) float32, where the image went; see `geometric`.

    Returns:
        (N, MASK_SIZE, MASK_SIZE) uint8, the nearest pixels.

    Raises:
        InvalidArgumentError: As `graph_rle.decode_rle`.
    """
    from visionkit.data.graph_rle import sample_grids

    def pixels(low, high, axis):
        points = (cell_centres(low, high) - placement[2 + axis]) / placement[axis]
        index = tf.cast(tf.floor(points), tf.int32)
        return tf.clip_by_value(index, 0, size[axis] - 1)

    x1, y1, x2, y2 = tf.unstack(boxes, axis=-1)
    y, x = pixels(y1, y2, 0), pixels(x1, x2, 1)
    upside_down = placement[0] < 0
    y = tf.cond(upside_down, lambda: tf.reverse(y, [1]), lambda: y)
    masks = sample_grids(regions, size, y, x)
    return tf.cond(upside_down, lambda: tf.reverse(masks, [1]), lambda: masks)


def cell_centres(low, high):
    """(..., MASK_SIZE) float32, the centres of the cells between two edges (...)."""
    share = (tf.range(MASK_SIZE, dtype=tf.float32) + 0.5) / MASK_SIZE
    return low[..., None] + share * (high - low)[..., None]


def reframe_masks(masks, boxes, frames):
    """Masks in other frames than their boxes.

    Args:
        masks: (N, MASK_SIZE, MASK_SIZE) uint8.
        boxes: (N, 4) float32, their frames.
        frames: (N, 4) float32, others within them.

    Returns:
        (N, MASK_SIZE, MASK_SIZE) uint8, the nearest cells.
    """

    def cells(low, high, new_low, new_high):
        share = (cell_centres(new_low, new_high) - low[:, None]) / (high - low)[:, None]
        index = tf.cast(tf.floor(share * MASK_SIZE), tf.int32)
        return tf.clip_by_value(index, 0, MASK_SIZE - 1)

    x1, y1, x2, y2 = tf.unstack(boxes, axis=-1)
    left, top, right, bottom = tf.unstack(frames, axis=-1)
    rows, columns = cells(y1, y2, top, bottom), cells(x1, x2, left, right)
    # Each gather takes whole rows, which is faster than cell by cell.
    masks = tf.gather(masks, rows, axis=1, batch_dims=1)
    masks = tf.gather(tf.transpose(masks, (0, 2, 1)), columns, axis=1, batch_dims=1)
    return tf.transpose(masks, (0, 2, 1))


def tighten(boxes, masks, chosen):
    """The boxes of `chosen` (N,) bool tight around their masks, and the masks in them.

    Args:
        boxes: (N, 4) float32.
        masks: (N, MASK_SIZE, MASK_SIZE) uint8; the box of an empty one stays.
        chosen: (N,) bool.

    Returns:
        Boxes and masks of the same shapes.
    """

    def near(boxes, masks):
        tight = mask_extents(boxes, masks)
        return tight, reframe_masks(masks, boxes, tight)

    return change_rows(near, chosen, boxes, masks)


def mask_extents(boxes, masks):
    """(N, 4) float32, the tight boxes of masks; the box itself where one is empty."""

    def edges(low, high, axis):
        seen = tf.reduce_max(masks, axis=axis)
        first = tf.argmax(seen, axis=1, output_type=tf.int32)
        last = tf.argmax(tf.reverse(seen, [1]), axis=1, output_type=tf.int32)
        step = (high - low) / MASK_SIZE
        return (
            low + tf.cast(first, tf.float32) * step,
            high - tf.cast(last, tf.float32) * step,
        )

    x1, y1, x2, y2 = tf.unstack(boxes, axis=-1)
    (top, bottom), (left, right) = edges(y1, y2, 2), edges(x1, x2, 1)
    return tf.stack([left, top, right, bottom], axis=-1)


def change_rows(change, chosen, boxes, masks, *more):
    """`change` done to the rows of `chosen` (N,) bool alone.

    Args:
        change: (boxes, masks, *more) -> (boxes, masks) of some rows.
        chosen: (N,) bool.
        boxes: (N, 4) float32.
        masks: (N, MASK_SIZE, MASK_SIZE) uint8.
        more: (N, ...), what `change` needs beside them.

    Returns:
        Boxes and masks of the same shapes.
    """
    index = tf.where(chosen)

    def some():
        rows = (tf.gather(x, index[:, 0]) for x in (boxes, masks, *more))
        new_boxes, new_masks = change(*rows)
        return (
            tf.tensor_scatter_nd_update(boxes, index, new_boxes),
            tf.tensor_scatter_nd_update(masks, index, new_masks),
        )

    return tf.cond(tf.size(index) > 0, some, lambda: (boxes, masks))


def paint_masks(boxes, masks, owners, shape):
    """Which pixels of several images are in masks.

    Args:
        boxes: (N, 4) float32, xyxy pixels.
        masks: (N, MASK_SIZE, MASK_SIZE) uint8.
        owners: (N,) int32, the image of each.
        shape: (3,) int32: the number of images, their height and width.

    Returns:
        `shape` bool; a pixel is in a mask if its centre lies in a cell of 1.
    """
    height, width = shape[1], shape[2]

    def touched(low, high, side):  # pixels with their centres between two edges
        first = tf.cast(tf.math.ceil(low - 0.5), tf.int32)
        behind = tf.cast(tf.math.ceil(high - 0.5), tf.int32)
        first = tf.clip_by_value(first, 0, side)
        return first, tf.clip_by_value(behind, first, side) - first

    x1, y1, x2, y2 = tf.unstack(boxes, axis=-1)
    (left, across), (top, down) = touched(x1, x2, width), touched(y1, y2, height)
    pixels = tf.ragged.range(across * down)  # of each row, those of its box
    row, number = pixels.value_rowids(), pixels.flat_values
    across = tf.gather(across, row)
    y = tf.gather(top, row) + number // across
    x = tf.gather(left, row) + number % across

    def cell(place, low, high):
        low, high = tf.gather(low, row), tf.gather(high, row)
        share = (tf.cast(place, tf.float32) + 0.5 - low) / (high - low)
        index = tf.cast(tf.floor(share * MASK_SIZE), tf.int32)
        return tf.clip_by_value(index, 0, MASK_SIZE - 1)

    place = (tf.cast(row, tf.int32) * MASK_SIZE + cell(y, y1, y2)) * MASK_SIZE
    inside = tf.gather(tf.reshape(masks, [-1]), place + cell(x, x1, x2))
    target = (tf.gather(owners, row) * height + y) * width + x
    painted = tf.tensor_scatter_nd_max(
        tf.zeros(tf.reduce_prod(shape)[None], tf.uint8), target[:, None], inside
    )
    return tf.reshape(painted > 0, shape)


def uncovered(boxes, masks, owners, covered):
    """Masks without the pixels that something covers.

    Args:
        boxes: (N, 4) float32, xyxy pixels, inside the image.
        masks: (N, MASK_SIZE, MASK_SIZE) uint8.
        owners: (N,) int32, the image of each.
        covered: (B, h, w) bool.

    Returns:
        (N, MASK_SIZE, MASK_SIZE) uint8.
    """
    _, height, width = tf.unstack(tf.shape(covered))

    def pixels(low, high, side):
        index = tf.cast(tf.floor(cell_centres(low, high)), tf.int32)
        return tf.clip_by_value(index, 0, side - 1)

    x1, y1, x2, y2 = tf.unstack(boxes, axis=-1)
    rows = pixels(y1, y2, height) + owners[:, None] * height
    place = rows[:, :, None] * width + pixels(x1, x2, width)[:, None, :]
    hidden = tf.gather(tf.reshape(tf.cast(covered, tf.uint8), [-1]), place)
    return masks & (1 - hidden)
