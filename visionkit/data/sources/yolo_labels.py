"""The lines of a YOLO label file."""

from __future__ import annotations

import dataclasses

import numpy as np

TOLERANCE = 0.01
"""How far outside [0, 1] a share may be: tools round."""


MAX_ID = 2**31
"""Ids of classes are below it."""


@dataclasses.dataclass(frozen=True)
class Labels:
    """What a label file says.

    Attributes:
        ids: (N,) int64 class ids.
        boxes: (N, 4) float64 centre x, centre y, width, height, as shares of the image.
        polygons: Per object its outline, (P, 2) float64 shares, or None where the line
            is a box.
    """

    ids: np.ndarray
    boxes: np.ndarray
    polygons: list[np.ndarray | None]


def parse_labels(text: str, path: str) -> Labels:
    """The objects of a file: `id cx cy w h`, or `id x1 y1 x2 y2 x3 y3 ...`, per line.

    Args:
        text: The file's.
        path: Its name, for messages.

    Raises:
        ValueError: Naming file, line and value.
    """
    ids, boxes, polygons = [], [], []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words:
            continue
        place = f"{path}, line {number}"
        if len(words) != 5 and (len(words) < 7 or len(words) % 2 == 0):
            raise ValueError(
                f"{place}: {len(words)} values. Expected 5 (id, centre x, centre y, "
                "width, height), or an id and at least three points x y."
            )
        try:
            label, *values = map(float, words)
        except ValueError:
            raise ValueError(
                f"{place}: {line.strip()[:60]!r} is not all numbers, with a point for "
                "decimals."
            ) from None
        if not (0 <= label < MAX_ID and label.is_integer()):
            raise ValueError(f"{place}: {words[0]!r} is no class id. Expected 0, 1...")
        _check_shares(values, words, place)
        ids.append(int(label))
        if len(values) == 4:
            boxes.append(values)
            polygons.append(None)
        else:
            points = np.array(values).reshape(-1, 2)
            low, high = points.min(axis=0), points.max(axis=0)
            boxes.append([*((low + high) / 2), *(high - low)])
            polygons.append(points)
    return Labels(
        np.array(ids, np.int64), np.array(boxes, np.float64).reshape(-1, 4), polygons
    )


def _check_shares(values: list[float], words: list[str], place: str) -> None:
    for position, value in enumerate(values, 1):
        if not -TOLERANCE <= value <= 1 + TOLERANCE and np.isfinite(value):
            raise ValueError(
                f"{place}: value {position + 1} is {words[position]}. Expected a share "
                "of the image's width or height in [0, 1]; divide pixels by them."
            )
