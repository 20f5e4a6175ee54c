"""Where an image goes when it is resized: the one arithmetic of every resize.

Written once for TensorFlow's graph and for NumPy: the caller passes the module.
"""

from __future__ import annotations

import numpy as np

from visionkit.types import Preprocessing


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


def boxes_to_original(boxes, placements, image_sizes) -> np.ndarray:
    """NumPy's twin of `resize.boxes_to_original`.

    Args:
        boxes: (B, N, 4) float32, xyxy pixels of the resized images.
        placements: (B, 4), scales positive.
        image_sizes: (B, 2) int, original (height, width).

    Returns:
        (B, N, 4) float32, xyxy pixels of the originals, clipped to them.
    """
    scale, offset = placements[:, [1, 0, 1, 0]], placements[:, [3, 2, 3, 2]]
    limit = np.asarray(image_sizes, np.float32)[:, [1, 0, 1, 0]]
    return np.clip((boxes - offset[:, None]) / scale[:, None], 0, limit[:, None])
