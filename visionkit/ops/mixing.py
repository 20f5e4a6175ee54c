"""Mosaic, MixUp and Copy-Paste with boxes, on the device, for any backend.

The twin of `data/box_mixing.py`, for batches that come from elsewhere than tf.data: in
`ArrayDataset(transform=...)`, or under `jax.jit`. Static shapes; padded rows have the
label -1; what is left of the boxes comes first, own ones before those of the others,
and what finds no room is dropped.
"""

from __future__ import annotations

import keras
from keras import ops

from visionkit.ops.gather import pack_rows
from visionkit.ops.instance_mixing import (
    MIN_SIDE,
    MIN_VISIBLE,
    follow_boxes,
    paste_instances,
)
from visionkit.types import PAD_VALUE

MIN_PASTED = 0.5  # share of a box that must be pasted to be an object of the new image


def random_mosaic(images, target, seed, *, p=1.0, scale=(0.5, 1.5)):
    """Four images around a random point, as in YOLOv8; see `mosaic`.

    Args:
        images: (B, h, w, C).
        target: {"boxes": (B, M, 4), "labels": (B, M)}; further keys stay.
        seed: A `keras.random.SeedGenerator`.
        p: Probability, of each image.
        scale: Smallest and largest zoom.
    """
    batch = images.shape[0]
    drawn = keras.random.uniform((batch,), seed=seed) < p
    zoom = keras.random.uniform((batch,), *scale, seed=seed)
    point = keras.random.uniform((batch, 2), -0.5, 0.5, seed=seed)
    return mosaic(images, target, drawn, zoom, 0.5 + zoom[:, None] * point)


def random_mixup(images, target, seed, *, alpha=32.0, p=1.0):
    """Blends each image with the one before it; see `mixup`.

    Args:
        images: (B, h, w, C).
        target: {"boxes": (B, M, 4), "labels": (B, M)}; further keys stay.
        seed: A `keras.random.SeedGenerator`.
        alpha: Of Beta(alpha, alpha), from which each image's weight is drawn.
        p: Probability, of each image.
    """
    batch = images.shape[0]
    own = keras.random.beta((batch,), alpha, alpha, seed=seed)
    drawn = keras.random.uniform((batch,), seed=seed) < p
    return mixup(images, target, ops.where(drawn, own, 1.0))


def random_copy_paste(images, target, seed, *, p=0.5, share=0.5):
    """Pastes objects of the image before it into each image; see `copy_paste`.

    Args:
        images: (B, h, w, C).
        target: {"boxes": (B, M, 4), "labels": (B, M)}; further keys stay.
        seed: A `keras.random.SeedGenerator`.
        p: Probability, of each image.
        share: Probability, of each object.
    """
    rows = target["labels"].shape
    drawn = keras.random.uniform((rows[0], 1), seed=seed) < p
    chosen = keras.random.uniform(rows, seed=seed) < share
    return copy_paste(images, target, ops.logical_and(drawn, chosen))


def mosaic(images, target, drawn, scale, point):
    """Mosaics of given draws, of each image and the three before it in the batch.

    Args:
        images: (B, h, w, C), any type.
        target: Dict with "boxes" (B, M, 4) and "labels" (B, M), and perhaps "masks"
            (B, M, MASK_SIZE, MASK_SIZE) uint8, framed by the boxes.
        drawn: (B,) bool; other images stay.
        scale: (B,) float32, zoom; below 0.5 the interpolation skips pixels.
        point: (B, 2) float32 (y, x), where the four meet, as shares of the frame.

    Returns:
        (images, target) of the same shapes and types.
    """
    tiles = _tiles(images.shape[1:3], scale, point)
    parts = [ops.roll(images, shift, axis=0) for shift in range(4)]
    upper, lower = (ops.concatenate(parts[i : i + 2], axis=2) for i in (0, 2))
    values = ops.concatenate([upper, lower], axis=1)  # (B, 2h, 2w, C)
    rows, columns = (
        _positions(images.shape[axis + 1], *(part[..., axis] for part in tiles))
        for axis in (0, 1)
    )
    values = ops.swapaxes(_interpolate(values, *rows[:3]), 1, 2)
    values = ops.swapaxes(_interpolate(values, *columns[:3]), 1, 2)
    inside = ops.logical_and(rows[3][:, :, None], columns[3][:, None, :])
    mixed = ops.where(inside[..., None], ops.round(values), float(PAD_VALUE))
    mixed = ops.cast(mixed, images.dtype)

    labels = _rolled(target["labels"], 4)
    own = ops.cast(_rolled(target["boxes"], 4), "float32")
    seen, boxes, keep = _boxes_in_tiles(own, tiles)
    keep = ops.where(drawn[:, None, None], keep, (ops.arange(4) == 0)[:, None])
    keep = ops.logical_and(keep, labels >= 0)
    changed = drawn[:, None, None, None]
    boxes, seen = (ops.where(changed, new, own) for new in (boxes, seen))
    images = ops.where(changed, mixed, images)
    columns = {"boxes": boxes, "labels": labels}
    if "masks" not in target:
        return images, {**target, **pack_rows(columns, keep)}
    rows = ops.arange(labels.shape[0] * labels.shape[2], dtype="int32")
    source = _rolled(ops.reshape(rows, target["labels"].shape), 4)
    columns |= {"own": own, "seen": seen, "source": source}
    return images, follow_boxes(target, pack_rows(columns, keep))


def mixup(images, target, own):
    """Images blended with the one before them, with the boxes of both in full.

    Args:
        images: (B, h, w, C), any type.
        target: Dict with "boxes" (B, M, 4) and "labels" (B, M), and perhaps "masks"
            (B, M, MASK_SIZE, MASK_SIZE) uint8, framed by the boxes.
        own: (B,) float32, the weight of the image itself; 1 leaves it as it is.

    Returns:
        (images, target) of the same shapes and types.
    """
    values = ops.cast(images, "float32")
    other = ops.roll(values, 1, axis=0)
    values = other + own[:, None, None, None] * (values - other)
    boxes, labels = _rolled(target["boxes"], 2), _rolled(target["labels"], 2)
    # Alone in a batch, an image is its own partner.
    mixed = ops.logical_and(own < 1, images.shape[0] > 1)
    keep = ops.stack([ops.ones_like(mixed), mixed], axis=1)[..., None]
    keep = ops.logical_and(keep, labels >= 0)
    images = ops.cast(ops.round(values), images.dtype)
    columns = {"boxes": boxes, "labels": labels}
    if "masks" in target:  # objects stay whole, and so do masks in their boxes
        columns["masks"] = _rolled(target["masks"], 2)
    return images, {**target, **pack_rows(columns, keep)}


def copy_paste(images, target, chosen):
    """Objects of the image before, pasted as the rectangles of their boxes.

    Or, where the target has masks, by those. Own objects of which less than
    `MIN_VISIBLE` stays uncovered are dropped.

    Args:
        images: (B, h, w, C), any type.
        target: Dict with "boxes" (B, M, 4) and "labels" (B, M), and perhaps "masks"
            (B, M, MASK_SIZE, MASK_SIZE) uint8, framed by the boxes.
        chosen: (B, M) bool, which rows of the image before are pasted.

    Returns:
        (images, target) of the same shapes and types.
    """
    height, width = images.shape[1:3]
    boxes, labels = _rolled(target["boxes"], 2), _rolled(target["labels"], 2)
    chosen = ops.logical_and(chosen, labels[:, 1] >= 0)
    chosen = ops.logical_and(chosen, images.shape[0] > 1)
    if "masks" in target:
        return paste_instances(images, target, chosen)
    rows, columns = _pixels(boxes[:, 1], height, width)
    pasted = ops.swapaxes(rows * ops.cast(chosen, "float32")[..., None], 1, 2)
    pasted = ops.matmul(pasted, columns) > 0
    images = ops.where(pasted[..., None], ops.roll(images, 1, axis=0), images)
    pasted = ops.cast(pasted, "float32")
    own = _share(pasted, *_pixels(boxes[:, 0], height, width)) <= 1 - MIN_VISIBLE
    # What stands in a pasted rectangle comes along, chosen or not.
    come = _share(pasted, rows, columns) >= MIN_PASTED
    come = ops.logical_and(come, ops.any(chosen, axis=1, keepdims=True))
    keep = ops.logical_and(ops.stack([own, come], axis=1), labels >= 0)
    return images, {**target, **pack_rows({"boxes": boxes, "labels": labels}, keep)}


def _tiles(size, scale, point):
    """Which part of each image goes where, in whole pixels.

    Returns:
        Source start and extent, target start and extent, each (B, 2, 2) float32 for
        [before, behind] the point and (y, x).
    """
    size = ops.convert_to_tensor(size, "float32")
    point, scale = ops.cast(point, "float32"), ops.cast(scale, "float32")
    centre = ops.clip(ops.round(point * size), 1.0, size - 1)
    scale = scale[:, None, None]
    room = ops.stack([centre, size - centre], axis=1)
    extent = ops.minimum(room, ops.maximum(ops.round(scale * size), 1.0))
    source = ops.clip(ops.round(extent / scale), 1.0, size)
    before = ops.convert_to_tensor([[1.0], [0.0]])  # its last pixels meet the point
    return (size - source) * before, source, centre[:, None] - extent * before, extent


def _positions(side: int, start, source, target, extent):
    """Where the pixels of one axis come from, in two images one behind the other.

    Args:
        side: Pixels of the axis in one image.
        start: (B, 2), as from `_tiles`; so are the others.
        source: (B, 2).
        target: (B, 2).
        extent: (B, 2).

    Returns:
        Two indices (B, side) int32 into 2 * side, the second's weight, and whether
        there is anything.
    """
    pixel = ops.arange(side, dtype="float32")
    behind = pixel >= target[:, 1:]
    start, source, target, extent = (
        ops.where(behind, part[:, 1:], part[:, :1])
        for part in (start, source, target, extent)
    )
    place = (pixel - target + 0.5) * (source / extent) - 0.5
    place = ops.clip(place, 0.0, source - 1)
    low = ops.floor(place)
    high = ops.minimum(low + 1, source - 1)
    inside = ops.logical_and(pixel >= target, pixel < target + extent)
    offset = start + ops.cast(behind, "float32") * side
    low_index, high_index = (ops.cast(x + offset, "int32") for x in (low, high))
    return low_index, high_index, place - low, inside


def _interpolate(values, low, high, weight):
    """(B, n, k, C) float32 between two rows of `values` (B, m, k, C) for each of n."""
    batch, count, *rest = values.shape
    flat = ops.reshape(values, (batch * count, -1))
    first = count * ops.arange(batch, dtype="int32")[:, None]
    low, high = (
        ops.cast(ops.take(flat, index + first, axis=0), "float32")
        for index in (low, high)
    )
    mixed = low + weight[..., None] * (high - low)
    return ops.reshape(mixed, (batch, mixed.shape[1], *rest))


def _boxes_in_tiles(boxes, tiles):
    """Boxes (B, 4, M, 4): what is seen of them, in the mosaic, and which to keep."""

    def of_tiles(part):  # (B, 2, 2) to (B, 4, 1, 4): x of j, y of i, twice
        y = ops.repeat(part[:, :, 0], 2, axis=1)
        x = ops.tile(part[:, :, 1], [1, 2])
        return ops.stack([x, y, x, y], axis=-1)[:, :, None]

    start, source, target, extent = map(of_tiles, tiles)
    clipped = ops.clip(boxes, start, start + source)
    scale = extent / source
    placed = clipped * scale + (target - start * scale)
    keep = _area(clipped) >= MIN_VISIBLE * _area(boxes)
    large = ops.all(placed[..., 2:] - placed[..., :2] >= MIN_SIDE, axis=-1)
    return clipped, placed, ops.logical_and(keep, large)


def _pixels(boxes, height, width):
    """(B, M, h) and (B, M, w) float32, 1 for rows and columns that a box touches."""

    def touched(low, high, side):
        pixel = ops.arange(side, dtype="float32")
        return ops.cast(
            ops.logical_and(pixel + 1 > low[..., None], pixel < high[..., None]),
            "float32",
        )

    x1, y1, x2, y2 = ops.unstack(ops.cast(boxes, "float32"), 4, axis=-1)
    return touched(y1, y2, height), touched(x1, x2, width)


def _share(mask, rows, columns):
    """(B, M) float32, the share of each box's pixels in which `mask` (B, h, w) is 1."""
    inside = ops.sum(ops.matmul(rows, mask) * columns, axis=-1)
    area = ops.sum(rows, axis=-1) * ops.sum(columns, axis=-1)
    return inside / ops.maximum(area, 1.0)


def _rolled(values, count: int):
    """(B, count, ...): the values of each image and of those before it."""
    return ops.stack([ops.roll(values, i, axis=0) for i in range(count)], axis=1)


def _area(boxes):
    return ops.prod(boxes[..., 2:] - boxes[..., :2], axis=-1)
