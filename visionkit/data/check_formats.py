"""Which box format the numbers of a data set are in, by what fits the images."""

from __future__ import annotations

import numpy as np


def _from_size(raw):
    return np.concatenate([raw[:, :2], raw[:, :2] + raw[:, 2:]], axis=1)


def _to_size(boxes):
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)


def _from_centre(raw):
    return np.concatenate(
        [raw[:, :2] - raw[:, 2:] / 2, raw[:, :2] + raw[:, 2:] / 2], axis=1
    )


def _to_centre(boxes):
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    return np.concatenate([middle, boxes[:, 2:] - boxes[:, :2]], axis=1)


def _swap(boxes):
    return boxes[:, [1, 0, 3, 2]]


def _interleave(boxes):
    return boxes[:, [0, 2, 1, 3]]


FORMATS = {
    "xyxy": (lambda boxes: boxes, lambda raw: raw),
    "xywh": (_to_size, _from_size),
    "cxcywh": (_to_centre, _from_centre),
    "yxyx": (_swap, _swap),
    "yxhw": (lambda b: _swap(_to_size(b)), lambda r: _from_size(_swap(r))),
    "xxyy": (_interleave, _interleave),
}
"""Name -> (xyxy boxes to the four numbers of the format, and back)."""

ORDERS = {
    "xyxy": "(x1, y1, x2, y2)",
    "xywh": "(x, y, width, height), x and y of the corner",
    "cxcywh": "(x, y, width, height), x and y of the centre",
    "yxyx": "(y1, x1, y2, x2)",
    "yxhw": "(y, x, height, width)",
    "xxyy": "(x1, x2, y1, y2)",
}
"""Format -> what it is, for a person."""

MIN_WRONG = 0.02
"""Share of boxes that do not fit before another format is looked for."""

MIN_BOXES = 5
"""Number of such boxes at least: a few are mistakes of their own."""

MAX_WRONG_AFTER = 0.1
"""A better format leaves at most this share of them."""


def fits(boxes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """(N,) bool, boxes with a positive area that lie in their images.

    Args:
        boxes: (N, 4) xyxy pixels.
        sizes: (N, 2) (height, width) of each box's image.

    A hundredth of a side, and at least two pixels, may stick out: tools round.
    """
    limit = sizes[:, ::-1].astype(np.float64)
    room = np.maximum(2, 0.01 * limit)
    inside = (boxes[:, :2] >= -room) & (boxes[:, 2:] <= limit + room)
    return (inside & (boxes[:, 2:] > boxes[:, :2])).all(axis=1)


def guess_format(
    boxes: np.ndarray, sizes: np.ndarray, read_as: str
) -> tuple[str, float, float] | None:
    """The format that fits the images better than the one the boxes were read as.

    Args:
        boxes: (N, 4) xyxy pixels, as read.
        sizes: (N, 2) (height, width) of each box's image.
        read_as: Key of `FORMATS`, how the source took the files' numbers.

    Returns:
        (format, share of boxes that fit as read, share that fit then); None where the
        boxes fit as they are, or no format is clearly better.
    """
    wrong = (~fits(boxes, sizes)).sum()
    if wrong < MIN_BOXES or wrong < MIN_WRONG * len(boxes):
        return None
    raw = FORMATS[read_as][0](boxes.astype(np.float64))
    left = {
        name: (~fits(decode(raw), sizes)).sum()
        for name, (_, decode) in FORMATS.items()
        if name != read_as
    }
    best = min(left, key=left.get)
    if left[best] > MAX_WRONG_AFTER * wrong:
        return None
    return best, 1 - wrong / len(boxes), 1 - left[best] / len(boxes)
