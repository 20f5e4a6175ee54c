"""Several looks at one image: tiles of a large one, mirrored and zoomed ones.

A view is a window of the original image, perhaps larger than it, perhaps mirrored. The
model answers each view as an image of its own; the answers are then brought back to the
original and those of one object are made one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from visionkit.types import PAD_VALUE

AGREE = 0.5
"""IoU from which two boxes, as far as both views could see them, are one object."""

SEAM = 2.0
"""Pixels from the inner border of a window within which a box counts as cut."""


TTA_SCALES = (0.83, 1.2)
"""What `tta=True` shows the model beside the image itself and its mirror image."""


@dataclasses.dataclass(frozen=True)
class View:
    """One look at an image.

    Attributes:
        window: (x1, y1, x2, y2), whole pixels of the original image; what lies outside
            of it is `PAD_VALUE`.
        flip: Whether left and right are exchanged.
    """

    window: tuple[int, int, int, int]
    flip: bool = False

    def cut(self, image: np.ndarray) -> np.ndarray:
        """What the view shows of `image` (H, W, C)."""
        height, width = image.shape[:2]
        x1, y1, x2, y2 = self.window
        inner = image[max(y1, 0) : min(y2, height), max(x1, 0) : min(x2, width)]
        pads = (
            (max(-y1, 0), max(y2 - height, 0)),
            (max(-x1, 0), max(x2 - width, 0)),
            (0, 0),
        )
        if any(map(any, pads)):
            inner = np.pad(inner, pads, constant_values=PAD_VALUE)
        return inner[:, ::-1] if self.flip else inner

    def boxes_to_original(self, boxes: np.ndarray) -> np.ndarray:
        """Boxes (N, 4) xyxy pixels of the view in those of the original image."""
        x1, y1, x2, _ = self.window
        if self.flip:
            right, left = x2 - x1 - boxes[:, 0], x2 - x1 - boxes[:, 2]
            boxes = np.stack([left, boxes[:, 1], right, boxes[:, 3]], axis=1)
        return boxes + np.array([x1, y1, x1, y1], boxes.dtype)


def view_options(
    task: str, tile: int | None, overlap: float, tta: bool | Sequence[float]
) -> dict | None:
    """What `predict` is told of views as keywords of `list_views` and `pixel_views`.

    None where each image is looked at once.

    Raises:
        ValueError: Out of range, or not for this task.
    """
    if tile is None and not tta:
        return None
    if task == "classification":
        raise ValueError(
            "`tile` and `tta` are for detection and segmentation. Received: a model "
            f"for {task}"
        )
    scales = TTA_SCALES if tta is True else tuple(tta or ())
    views = {"tile": tile, "overlap": overlap, "flip": bool(tta), "scales": scales}
    list_views((1, 1), **views)  # refuses what is out of range
    return views


def list_views(
    image_size: tuple[int, int],
    tile: int | None = None,
    overlap: float = 0.2,
    flip: bool = False,
    scales: Sequence[float] = (),
) -> list[View]:
    """The views of one image: the whole of it, its tiles, and other scales.

    Args:
        image_size: (height, width).
        tile: Side of the tiles in pixels; None for no tiles.
        overlap: Share of a tile that its neighbour sees too, 0 <= overlap < 1.
        flip: Whether each view is there mirrored too.
        scales: Further factors by which objects appear: below 1 the image lies in a
            wider frame, above 1 in tiles of its sides over the factor.

    Raises:
        ValueError: A tile below 1, an overlap or a scale that is out of range.
    """
    check_views(tile, overlap, scales)
    height, width = image_size
    windows = [(0, 0, width, height)]
    if tile is not None:
        windows += tile_windows(image_size, (tile, tile), overlap)
    for scale in scales:
        sides = (round(height / scale), round(width / scale))
        if scale > 1:
            windows += tile_windows(image_size, sides, overlap)
        else:
            top, left = (sides[0] - height) // 2, (sides[1] - width) // 2
            windows.append((-left, -top, sides[1] - left, sides[0] - top))
    windows = list(dict.fromkeys(windows))
    flips = (False, True) if flip else (False,)
    return [View(window, flipped) for window in windows for flipped in flips]


def check_views(tile, overlap, scales) -> None:
    """Refuse options of views that are out of range.

    Raises:
        ValueError: A tile below 1, an overlap or a scale that is out of range.
    """
    if tile is not None and tile < 1:
        raise ValueError(f"`tile` must be at least 1 pixel. Received: tile={tile}")
    if not 0 <= overlap < 1:
        raise ValueError(f"`overlap` must be in [0, 1). Received: overlap={overlap}")
    if any(not 0.1 <= scale <= 10 for scale in scales):
        raise ValueError(f"`scales` must be in 0.1..10. Received: scales={scales}")


def tile_windows(image_size, sides, overlap: float) -> list[tuple[int, int, int, int]]:
    """Windows (x1, y1, x2, y2) of `sides` (height, width) that cover the image.

    They are evenly spread; a side is no longer than the image's.
    """
    starts = []
    for length, side in zip(image_size, sides, strict=True):
        side = min(max(side, 1), length)
        count = 1 + int(np.ceil((length - side) / max(side * (1 - overlap), 1)))
        starts.append((np.linspace(0, length - side, count).round().astype(int), side))
    (rows, height), (columns, width) = starts
    return [
        (int(x), int(y), int(x + width), int(y + height)) for y in rows for x in columns
    ]


def merge_views(
    views: Sequence[View], answers: Sequence[dict], image_size, agreement=None
) -> dict:
    """The answers of all views as one, in pixels of the original image.

    Two boxes of a class from different views are one object when they agree on what
    both windows show: their parts there have an IoU of at least `AGREE`. So what a seam
    has cut finds its whole, or its other half. The surest box stands for the object,
    widened by the others where a seam cut it.

    Args:
        views: V views.
        answers: V dicts of "boxes" (N, 4) pixels of the view, "scores" and "labels"
            (N,).
        image_size: (height, width).
        agreement: Function from two rows of all answers to how far they agree on what
            both windows show, asked where their boxes overlap; default the boxes' IoU.

    Returns:
        "boxes" (M, 4), "scores" (M,), falling, "labels" (M,), and "members": of each
        the rows of all answers, one view's after another's, that it was made of, the
        surest first.
    """
    height, width = image_size
    frame = np.array([0, 0, width, height], np.float32)
    boxes = [
        v.boxes_to_original(a["boxes"]) for v, a in zip(views, answers, strict=True)
    ]
    owner = np.repeat(np.arange(len(views)), [len(b) for b in boxes])
    boxes = _clip(np.concatenate(boxes).astype(np.float32), frame)
    scores = np.concatenate([a["scores"] for a in answers])
    labels = np.concatenate([a["labels"] for a in answers])
    windows = np.array([view.window for view in views], np.float32)
    windows = _clip(windows, frame)[owner]
    order = np.argsort(-scores, kind="stable")
    order = order[_area(boxes[order]) > 0]
    boxes, scores, labels, owner, windows = (
        rows[order] for rows in (boxes, scores, labels, owner, windows)
    )
    # A side of the box lies on a side of the window that is none of the image.
    cut = (np.abs(boxes - windows) <= SEAM) & (windows != frame)

    def agreements(row, others):
        iou = _agreement(boxes[row], windows[row], boxes[others], windows[others])
        if agreement is not None:
            for i in np.flatnonzero(iou):
                iou[i] = agreement(order[row], order[others[i]])
        return iou

    group = _group(labels, owner, agreements)
    first = np.unique(group, return_index=True)[1]
    # The widest box of each object; only a side that a seam has cut gives way to it.
    place = np.searchsorted(first, group)
    widest = boxes[first] * [1, 1, -1, -1]
    np.minimum.at(widest, place, boxes * np.float32([1, 1, -1, -1]))
    merged = np.where(cut[first], widest * [1, 1, -1, -1], boxes[first])
    members = [order[group == head] for head in first]
    return {
        "boxes": merged,
        "scores": scores[first],
        "labels": labels[first],
        "members": members,
    }


def _group(labels, owner, agreements) -> np.ndarray:
    """(N,) the row of the surest box of the same object; boxes sorted by score."""
    group = np.arange(len(labels))
    for row in range(1, len(labels)):
        earlier = np.flatnonzero(labels[:row] == labels[row])
        heads = group[earlier]
        iou = agreements(row, earlier)
        # A view sees an object once.
        taken = heads[owner[earlier] == owner[row]]
        iou[np.isin(heads, taken)] = 0
        if iou.max(initial=0) >= AGREE:
            group[row] = heads[iou.argmax()]
    return group


def _agreement(box, window, boxes, windows) -> np.ndarray:
    """IoU of `box` and `boxes` (N, 4) within what both of their windows show."""
    both = np.concatenate(
        [
            np.maximum(window[:2], windows[:, :2]),
            np.minimum(window[2:], windows[:, 2:]),
        ],
        axis=1,
    )
    both[:, 2:] = np.maximum(both[:, 2:], both[:, :2])
    one, other = _clip(box[None], both), _clip(boxes, both)
    shared = _area(
        np.concatenate(
            [
                np.maximum(one[:, :2], other[:, :2]),
                np.minimum(one[:, 2:], other[:, 2:]),
            ],
            axis=1,
        )
    )
    union = _area(one) + _area(other) - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def _clip(boxes, frame):
    """Boxes (N, 4) inside frames (4,) or (N, 4)."""
    low, high = frame[..., [0, 1, 0, 1]], frame[..., [2, 3, 2, 3]]
    return np.minimum(np.maximum(boxes, low), high)


def _area(boxes):
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 0)
    return sides[:, 0] * sides[:, 1]
