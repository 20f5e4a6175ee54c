"""Where an image goes when it is resized: the one arithmetic of every resize.

Written once for TensorFlow's graph and for NumPy: the caller passes the module.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from visionkit.types import VOID_CLASS, Preprocessing

STRIP_VALUES = 4_000_000
"""Logits that are held at once on the way back to original pixels (16 MB)."""


def resize_geometry(height, width, preprocessing: Preprocessing, xp):
    """Which part of an image is resized to what size, and put where.

    Args:
        height: () float64, original pixels.
        width: () float64, original pixels.
        preprocessing: Names the mode and the size of the frame.
        xp: The module that computes: `numpy` or `tensorflow`.

    Returns:
        Three pairs of () float64, each a whole number: `start` (y, x) and `size`
        (height, width) of the part used, in original pixels; `target` (height, width)
        it is resized to; `offset` (y, x) of its first pixel in the frame, which is
        `preprocessing.image_size`. Packed as `(start, size), target, offset`.
    """
    frame_height, frame_width = map(float, preprocessing.image_size)
    zero = (height * 0.0, width * 0.0)
    whole = (zero, (height, width))
    if preprocessing.resize == "stretch":
        return whole, (zero[0] + frame_height, zero[1] + frame_width), zero

    def whole_pixels(x):
        return xp.maximum(xp.floor(x + 0.5), 1.0)

    if preprocessing.resize == "center_crop":
        keep = preprocessing.crop_fraction
        size = (
            whole_pixels(xp.minimum(height, width * frame_height / frame_width) * keep),
            whole_pixels(xp.minimum(width, height * frame_width / frame_height) * keep),
        )
        start = (xp.floor((height - size[0]) / 2), xp.floor((width - size[1]) / 2))
        return (start, size), (zero[0] + frame_height, zero[1] + frame_width), zero

    scale = xp.minimum(frame_height / height, frame_width / width)
    if preprocessing.resize == "shortest_edge":
        # The frame is static, so that an image in portrait has to fit a frame in
        # landscape too.
        shortest = preprocessing.min_edge or min(frame_height, frame_width)
        longest = preprocessing.max_edge or max(frame_height, frame_width)
        scale = xp.minimum(scale, shortest / xp.minimum(height, width))
        scale = xp.minimum(scale, longest / xp.maximum(height, width))
    target = (whole_pixels(height * scale), whole_pixels(width * scale))
    if preprocessing.resize == "shortest_edge":
        return whole, target, zero
    offset = (
        xp.floor((frame_height - target[0]) / 2),
        xp.floor((frame_width - target[1]) / 2),
    )
    return whole, target, offset


def placement_of(start, size, target, offset):
    """(scale_y, scale_x, offset_y, offset_x): resized = original * scale + offset."""
    scale = (target[0] / size[0], target[1] / size[1])
    return (
        *scale,
        offset[0] - start[0] * scale[0],
        offset[1] - start[1] * scale[1],
    )


def placements(image_sizes, preprocessing: Preprocessing) -> np.ndarray:
    """Placements of many images, in NumPy.

    Args:
        image_sizes: (B, 2), original (height, width).
        preprocessing: How they were resized.

    Returns:
        (B, 4) float32 [scale_y, scale_x, offset_y, offset_x].
    """
    height, width = np.asarray(image_sizes, np.float64).T
    (start, size), target, offset = resize_geometry(height, width, preprocessing, np)
    return np.stack(placement_of(start, size, target, offset), -1).astype(np.float32)


def boxes_to_original(boxes, placements, image_sizes=None) -> np.ndarray:
    """NumPy's twin of `resize.boxes_to_original`.

    Args:
        boxes: (B, N, 4) float32, xyxy pixels of the resized images.
        placements: (B, 4), scales positive.
        image_sizes: (B, 2) int, original (height, width); None to clip nothing.

    Returns:
        (B, N, 4) float32, xyxy pixels of the originals, clipped to them.
    """
    scale, offset = placements[:, [1, 0, 1, 0]], placements[:, [3, 2, 3, 2]]
    boxes = (boxes - offset[:, None]) / scale[:, None]
    if image_sizes is None:
        return boxes
    limit = np.asarray(image_sizes, np.float32)[:, [1, 0, 1, 0]]
    return np.clip(boxes, 0, limit[:, None])


def logits_to_original(logits, placement, image_size) -> np.ndarray:
    """NumPy's twin of `resize.logits_to_original`, for one image.

    Args:
        logits: (h, w, K), at the model's size; what is not finite counts as 0.
        placement: (4,) [scale_y, scale_x, offset_y, offset_x], scales positive.
        image_size: Original (height, width).

    Returns:
        (height, width, K) float32; zeros where the model saw nothing.
    """
    out = np.zeros((*image_size, logits.shape[-1]), np.float32)
    for rows, columns, strip in original_strips(logits, placement, image_size):
        out[rows, columns] = strip
    return out


def classes_to_original(logits, placement, image_size) -> np.ndarray:
    """NumPy's twin of `resize.classes_to_original`, for one image.

    Args:
        logits: (h, w, K), at the model's size; what is not finite counts as 0.
        placement: (4,) [scale_y, scale_x, offset_y, offset_x], scales positive.
        image_size: Original (height, width).

    Returns:
        (height, width) uint8, the first of the best classes; 255 where the model saw
        nothing.
    """
    out = np.full(image_size, VOID_CLASS, np.uint8)
    for rows, columns, strip in original_strips(logits, placement, image_size):
        out[rows, columns] = strip.argmax(axis=-1)
    return out


def original_strips(
    logits, placement, image_size
) -> Iterator[tuple[slice, slice, np.ndarray]]:
    """The logits of an image in original pixels, some rows at a time.

    Yields:
        Rows and columns of the original that the model saw, and their logits (rows,
        columns, K) float32.
    """
    logits = np.asarray(logits, np.float32)
    logits = np.where(np.isfinite(logits), logits, np.float32(0))
    (top, low, high, down), (left, *across) = (
        _taps(image_size[axis], logits.shape[axis], *placement[axis::2])
        for axis in (0, 1)
    )
    before, after, right = across
    columns = slice(left, left + len(before))
    count = max(1, STRIP_VALUES // max(1, len(before) * logits.shape[-1]))
    for start in range(0, len(low), count):
        part = slice(start, start + count)
        strip = _mix(logits, low[part], high[part], down[part, None, None], 0)
        strip = _mix(strip, before, after, right[:, None], 1)
        yield slice(top + start, top + start + len(strip)), columns, strip


def image_window(placement, image_size, frame_size) -> tuple[slice, slice]:
    """Rows and columns of the model's input that hold image.

    Args:
        placement: (4,) [scale_y, scale_x, offset_y, offset_x], scales positive.
        image_size: Original (height, width).
        frame_size: (height, width) of the input.
    """
    return tuple(
        slice(*_held(image_size[axis], frame_size[axis], *placement[axis::2]))
        for axis in (0, 1)
    )


def _held(length, size, scale, offset) -> tuple[int, int]:
    """The first pixel of the frame that holds image, and the one after the last."""
    return round(max(offset, 0.0)), round(min(length * scale + offset, size))


def _mix(values, low, high, weight, axis: int) -> np.ndarray:
    first = np.take(values, low, axis)
    first += (np.take(values, high, axis) - first) * weight
    return first


def _taps(length: int, size: int, scale: float, offset: float):
    """Between which pixels of the frame the pixels of the original lie, on one axis.

    Args:
        length: Of the original.
        size: Of the frame.
        scale: Of the placement.
        offset: Of the placement.

    Returns:
        The first pixel of the original that the model saw; of each that it saw the
        pixels of the frame below and above, and the share of the latter, float32.
    """
    scale, offset = float(scale), float(offset)
    centre = (np.arange(length) + 0.5) * scale + offset
    seen = np.flatnonzero((centre > 0) & (centre < size))
    # Never beyond the centres of the first and the last pixel that hold image.
    first, end = _held(length, float(size), scale, offset)
    last = end - 1
    place = np.clip(centre[seen] - 0.5, first, last)
    low = np.floor(place).astype(np.int64)
    high = np.minimum(low + 1, last)
    return int(seen.min(initial=length)), low, high, (place - low).astype(np.float32)
