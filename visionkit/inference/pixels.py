"""Classes of pixels from several looks at one image: windows, mirrored, zoomed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from visionkit.data.geometry import STRIP_VALUES, original_strips
from visionkit.inference.views import View, check_views, tile_windows
from visionkit.types import VOID_CLASS


def pixel_views(
    image_size: tuple[int, int],
    tile: int | None = None,
    overlap: float = 0.2,
    flip: bool = False,
    scales: Sequence[float] = (),
) -> list[View]:
    """The views of one image that together show all of it, at each scale.

    Args:
        image_size: (height, width).
        tile: Side of the windows in pixels; None to look at the whole image.
        overlap: Share of a window that its neighbour sees too, 0 <= overlap < 1.
        flip: Whether each view is there mirrored too.
        scales: Further factors by which things appear: windows of the sides over the
            factor; below 1 the whole image lies in a wider frame.

    Raises:
        ValueError: A tile below 1, an overlap or a scale that is out of range.
    """
    check_views(tile, overlap, scales)
    height, width = image_size
    windows = []
    for scale in (1.0, *scales):
        sides = (height, width) if tile is None else (tile, tile)
        sides = round(sides[0] / scale), round(sides[1] / scale)
        if tile is None and scale < 1:
            top, left = (sides[0] - height) // 2, (sides[1] - width) // 2
            windows.append((-left, -top, sides[1] - left, sides[0] - top))
        else:
            windows += tile_windows(image_size, sides, overlap)
    flips = (False, True) if flip else (False,)
    return [View(window, flipped) for window in windows for flipped in flips]


def merge_pixels(
    views: Sequence[View],
    answers: Iterable[dict],
    image_size: tuple[int, int],
    num_classes: int,
    overlap: float = 0.2,
) -> dict:
    """The probabilities of all views, averaged in pixels of the original image.

    Towards a border of its window that is none of the image a view counts for less: its
    weight falls linearly to zero over `overlap` of the window's side.

    Args:
        views: V views.
        answers: V dicts of "logits" (h, w, K) at the model's size and "placement" (4,)
            of the view in it, read one at a time.
        image_size: (height, width).
        num_classes: K.
        overlap: As for `pixel_views`.

    Returns:
        "probabilities" (height, width, K) float32, the one array of this size that is
        made, zeros where no view saw anything; "segmentation" (height, width) uint8,
        255 there; "image_size".
    """
    total = np.zeros((*image_size, num_classes), np.float32)
    weight = np.zeros(image_size, np.float32)
    for view, answer in zip(views, answers, strict=True):
        _add(total, weight, view, answer, overlap)
    classes = np.full(image_size, VOID_CLASS, np.uint8)
    count = max(1, STRIP_VALUES // (image_size[1] * num_classes))
    for start in range(0, image_size[0], count):
        rows = slice(start, start + count)
        seen = weight[rows] > 0
        total[rows] /= np.where(seen, weight[rows], 1)[..., None]
        classes[rows][seen] = total[rows].argmax(axis=-1)[seen]
    return {"probabilities": total, "segmentation": classes, "image_size": image_size}


def _add(total, weight, view: View, answer: dict, overlap: float) -> None:
    """Add what one view says, times its weight, and the weight."""
    x1, y1, x2, y2 = view.window
    height, width = weight.shape
    down, across = _ramp(y1, y2, height, overlap), _ramp(x1, x2, width, overlap)
    for rows, columns, strip in original_strips(
        answer["logits"], answer["placement"], (y2 - y1, x2 - x1)
    ):
        if view.flip:
            strip = strip[:, ::-1]
            columns = slice(x2 - x1 - columns.stop, x2 - x1 - columns.start)
        rows, inner_rows = _inside(rows, y1, height)
        columns, inner_columns = _inside(columns, x1, width)
        share = down[rows.start - y1 : rows.stop - y1, None]
        share = share * across[columns.start - x1 : columns.stop - x1]
        found = softmax(strip[inner_rows, inner_columns])
        total[rows, columns] += found * share[..., None]
        weight[rows, columns] += share


def _inside(part: slice, first: int, length: int) -> tuple[slice, slice]:
    """A part of a window that begins at `first`: what of it lies inside of the image.

    In pixels of the image, and in those of the part.
    """
    start = max(part.start + first, 0)
    stop = max(min(part.stop + first, length), start)
    begin = part.start + first
    return slice(start, stop), slice(start - begin, stop - begin)


def _ramp(start: int, stop: int, length: int, overlap: float) -> np.ndarray:
    """(stop - start,) float32 weights of the pixels of a window along one axis."""
    side = stop - start
    place = np.arange(side, dtype=np.float32) + 0.5
    width = max(side * overlap, 0.5)
    weights = np.ones(side, np.float32)
    if start > 0:
        weights = np.minimum(weights, place / width)
    if stop < length:
        weights = np.minimum(weights, (side - place) / width)
    return weights.astype(np.float32)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities along the last axis, float32."""
    exponents = np.exp(logits - logits.max(axis=-1, keepdims=True))
    exponents /= exponents.sum(axis=-1, keepdims=True)
    return exponents
