"""Masks that are framed by boxes, pasted into the image. NumPy alone.

A client of a served instance segmenter may copy this file: it needs nothing else.

    full = paste_masks(answer["masks"][0], answer["boxes"][0], (height, width))

The one rule, here and wherever masks are measured: pixel (x, y) has its centre at (x +
0.5, y + 0.5) and lies in the m cells of a box from x1 to x2 at (x + 0.5 - x1) / (x2 -
x1) * m - 0.5, between whose neighbours the value is interpolated; beyond the cells all
is 0. A value of `threshold` and above is the object's.
"""

from __future__ import annotations

import numpy as np


def paste_masks(masks, boxes, image_size, threshold: float = 0.5) -> np.ndarray:
    """Masks of full size.

    Args:
        masks: (N, h, w) probabilities 0..1, each framed by its box.
        boxes: (N, 4) xyxy pixels of the image, or beyond it.
        image_size: (height, width) of the image.
        threshold: Lowest probability of a pixel of the object, 0.5 <= threshold <= 1.

    Returns:
        (N, height, width) bool.

    Raises:
        ValueError: Not one box per mask, or a threshold that is out of range.
    """
    check_framed(masks, boxes)
    out = np.zeros((len(masks), *image_size), bool)
    for full, mask, box in zip(out, masks, boxes, strict=True):
        crop, top, left = paste_mask(mask, box, image_size, threshold)
        full[top : top + crop.shape[0], left : left + crop.shape[1]] = crop
    return out


def paste_mask(
    mask, box, image_size, threshold: float = 0.5
) -> tuple[np.ndarray, int, int]:
    """One mask, in the pixels whose centres lie in its box: elsewhere there is nothing.

    Args:
        mask: (h, w) probabilities 0..1.
        box: (4,) xyxy pixels of the image, or beyond it.
        image_size: (height, width) of the image.
        threshold: As for `paste_masks`.

    Returns:
        (rows, columns) bool, perhaps empty, and the row and the column of the image
        that it begins at.

    Raises:
        ValueError: A threshold that is out of range.
    """
    # Below a half, the fading border would reach beyond the box.
    if not 0.5 <= threshold <= 1:
        raise ValueError(
            f"`threshold` must be in [0.5, 1]. Received: threshold={threshold}"
        )
    x1, y1, x2, y2 = map(float, box)
    mask = np.asarray(mask, np.float32)
    top, down = _weights(y1, y2, image_size[0], mask.shape[0])
    left, across = _weights(x1, x2, image_size[1], mask.shape[1])
    return down @ mask @ across.T >= threshold, top, left


def reframe_masks(masks, boxes, frames) -> np.ndarray:
    """Masks framed by other boxes, such as by what of their own the image holds.

    A frame that is the box gives back the mask, bit by bit.

    Args:
        masks: (N, h, w) probabilities, each framed by its box.
        boxes: (N, 4) xyxy pixels.
        frames: (N, 4) xyxy pixels, inside of the boxes.

    Returns:
        (N, h, w) float32; zeros where the box has no area.
    """
    check_framed(masks, boxes)
    masks = np.asarray(masks, np.float32)
    boxes, frames = np.asarray(boxes, np.float32), np.asarray(frames, np.float32)
    rows = _cells(boxes[:, 1::2], frames[:, 1::2], masks.shape[1])
    columns = _cells(boxes[:, 0::2], frames[:, 0::2], masks.shape[2])
    found = _tent(rows, masks.shape[1]) @ masks
    return found @ _tent(columns, masks.shape[2]).swapaxes(1, 2)


def check_framed(masks, boxes) -> None:
    """Refuse what is not one mask per box.

    Raises:
        ValueError: Not masks (N, h, w) and boxes (N, 4).
    """
    if np.ndim(masks) != 3 or np.shape(boxes) != (len(masks), 4):
        raise ValueError(
            "Masks must be (N, h, w) and their boxes (N, 4). Received: "
            f"{np.shape(masks)} and {np.shape(boxes)}"
        )


def _weights(low: float, high: float, length: int, cells: int):
    """The first pixel inside of a box along one axis, and each one's share of cells.

    The shares are (pixels, cells) float32.
    """
    first, last = max(np.ceil(low - 0.5), 0), min(np.floor(high - 0.5), length - 1)
    if not (high > low and last >= first):
        return 0, np.zeros((0, cells), np.float32)
    centres = np.arange(first, last + 1) + 0.5
    return int(first), _tent((centres - low) / (high - low) * cells - 0.5, cells)


def _cells(sides, frame_sides, cells: int) -> np.ndarray:
    """(N, cells), where the cells of frames lie among those of boxes, on one axis."""
    low, high = sides.T
    side = high - low
    side = np.where(side > 0, side, np.inf)
    shift = (frame_sides[:, 0] - low) / side
    share = (frame_sides[:, 1] - frame_sides[:, 0]) / side
    centres = np.arange(cells, dtype=np.float32) + 0.5
    place = (shift * cells)[:, None] + centres * share[:, None] - 0.5
    # Without a side the place is beside all cells.
    return np.where((high > low)[:, None], place, -1)


def _tent(places, cells: int) -> np.ndarray:
    """The share of each of `cells` neighbours in each place, float32."""
    distance = np.abs(places[..., None] - np.arange(cells))
    return np.maximum(1 - distance, 0).astype(np.float32)
