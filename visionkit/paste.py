"""Masks that are framed by boxes, pasted into the image. NumPy alone.

A client of a served instance segmenter may copy this file: it needs nothing else.

    full = paste_masks(answer["masks"][0], answer["boxes"][0], (height, width))

The one rule, here and wherever masks are measured: pixel (x, y) has its centre at (x +
0.5, y + 0.5) and lies in the m cells of a box from x1 to x2 at (x + 0.5 - x1) / (x2 -
x1) * m - 0.5, between whose neighbours the value is interpolated; beyond the cells all
is 0. A value of `threshold` and above is the object's.
"""

from __future__ import annotations

import math

import numpy as np

# Multiplications up to which OpenBLAS works alone. Above it wakes its threads, which on
# a busy machine take twenty times as long as these small products themselves.
_ALONE = 2**18


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
    _check_threshold(threshold)
    masks = np.asarray(masks, np.float32)
    out = np.zeros((len(masks), *image_size), bool)
    shares = _shares(boxes, image_size, masks.shape[1:])
    for full, mask, ((top, down), (left, across)) in zip(
        out, masks, shares, strict=True
    ):
        window = full[top : top + len(down), left : left + len(across)]
        _paste(mask, down, across, threshold, window)
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
    _check_threshold(threshold)
    mask = np.asarray(mask, np.float32)
    (((top, down), (left, across)),) = _shares([box], image_size, mask.shape)
    crop = np.empty((len(down), len(across)), bool)
    _paste(mask, down, across, threshold, crop)
    return crop, top, left


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


def _check_threshold(threshold: float) -> None:
    # Below a half, the fading border would reach beyond the box.
    if not 0.5 <= threshold <= 1:
        raise ValueError(
            f"`threshold` must be in [0.5, 1]. Received: threshold={threshold}"
        )


def _paste(mask, down, across, threshold: float, out: np.ndarray) -> None:
    """Write where a mask reaches the threshold.

    Args:
        mask: (h, w) float32.
        down: (rows, h) float32, each row's share of the cells.
        across: (columns, w) float32.
        threshold: As for `paste_masks`.
        out: (rows, columns) bool.
    """
    step = math.isqrt(_ALONE // max(*mask.shape, 1)) or 1
    for top in range(0, len(down), step):
        rows = slice(top, top + step)
        found = down[rows] @ mask
        for left in range(0, len(across), step):
            columns = slice(left, left + step)
            values = found @ across[columns].T
            np.greater_equal(values, threshold, out=out[rows, columns])


def _shares(boxes, image_size, mask_size):
    """Which pixels are inside of each box, and their shares of the mask's cells.

    All boxes in one go: one by one, the calls would take longer than the numbers.

    Args:
        boxes: (N, 4) xyxy pixels.
        image_size: (height, width) of the image.
        mask_size: (h, w) of the masks.

    Returns:
        For each box the first row and (rows, h) float32, then the first column and
        (columns, w): ((int, array), (int, array)).
    """
    low, high = np.asarray(boxes, float)[:, [1, 3, 0, 2]].reshape(-1, 2).T
    length, cells = (np.tile(size, len(boxes)) for size in (image_size, mask_size))
    side = high - low
    first = np.maximum(np.ceil(low - 0.5), 0)
    count = np.minimum(np.floor(high - 0.5), length - 1) - first + 1
    count = np.where((side > 0) & (side < np.inf) & (count > 0), count, 0).astype(int)
    first = np.where(count > 0, first, 0).astype(int)
    ends = np.cumsum(count)
    begins = ends - count
    row = np.arange(ends[-1] if len(ends) else 0)
    of = np.repeat(np.arange(len(count)), count)
    pixel = row + (first - begins)[of]
    place = (pixel + 0.5 - low[of]) / side[of] * cells[of] - 0.5
    # The two neighbours of each place; there is one more cell at either end.
    before = np.floor(place)
    shares = np.zeros((len(row), max(mask_size) + 2), np.float32)
    column = before.astype(int) + 1
    shares[row, column] = 1 - (place - before)
    shares[row, column + 1] = 1 - (before + 1 - place)
    parts = zip(begins.tolist(), ends.tolist(), cells.tolist(), strict=True)
    found = [shares[begin:end, 1 : 1 + size] for begin, end, size in parts]
    found = list(zip(first.tolist(), found, strict=True))
    return zip(found[0::2], found[1::2], strict=True)


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
