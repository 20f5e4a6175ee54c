"""Masks as runs of pixels: the instances of an id image, the extent of RLE strings.

A run is an interval of the image read column by column, as in COCO's RLE.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np

from visionkit.data.rle import decode_runs, encode_runs


@dataclasses.dataclass(frozen=True)
class Instances:
    """The masks of one image.

    Attributes:
        ids: (N,) int64, what the pixels of each are called.
        masks: (N,) object, RLE strings.
        boxes: (N, 4) float32, tight around each: [x_min, y_min, x_max + 1, y_max + 1].
        area: (N,) float32, pixels.
        size: (height, width) of the image.
    """

    ids: np.ndarray
    masks: np.ndarray
    boxes: np.ndarray
    area: np.ndarray
    size: tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Extents:
    """What the RLE strings of one image cover.

    Attributes:
        boxes: (N, 4) float64 as in `Instances`; zeros for an empty mask.
        area: (N,) int64, pixels; 0 where the string is damaged.
        total: (N,) int64, pixels of the image it was made for, -1 if damaged.
        shared: Pixels that are in more than one mask, counted once for each but one.
    """

    boxes: np.ndarray
    area: np.ndarray
    total: np.ndarray
    shared: int


def split_ids(ids: np.ndarray) -> Instances:
    """The instances of an image whose pixels are numbers of instances.

    Args:
        ids: (H, W) of integers; 0 is background.
    """
    flat = ids.T.reshape(-1)
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    starts = np.concatenate([[0], edges])
    ends = np.concatenate([edges, [flat.size]])
    values = flat[starts]
    inside = np.flatnonzero(values)
    order = inside[np.argsort(values[inside], kind="stable")]
    starts, ends = starts[order], ends[order]
    found, first = np.unique(values[order], return_index=True)
    bounds = [*first.tolist(), len(starts)]
    masks = np.empty(len(found), object)
    for i, (a, b) in enumerate(itertools.pairwise(bounds)):
        masks[i] = _encode(starts[a:b], ends[a:b], flat.size)
    boxes, area = _extents(starts, ends, first, ids.shape[0])
    return Instances(
        found.astype(np.int64),
        masks,
        boxes.astype(np.float32),
        area.astype(np.float32),
        ids.shape,
    )


def no_instances(size: tuple[int, int]) -> Instances:
    """Those of an image of (height, width) `size` that shows nothing."""
    return dataclasses.replace(split_ids(np.zeros((1, 1), np.uint8)), size=size)


def join_instances(parts: Sequence[Instances]) -> Instances:
    """The instances of all `parts` (at least one) in one image, called 1, 2, 3..."""
    columns = [
        np.concatenate([getattr(part, key) for part in parts])
        for key in ("masks", "boxes", "area")
    ]
    return Instances(np.arange(1, len(columns[0]) + 1), *columns, parts[0].size)


def measure(masks: Sequence[bytes], height: int) -> Extents:
    """What the RLE strings of an image of `height` pixels cover."""
    boxes, area = np.zeros((len(masks), 4)), np.zeros(len(masks), np.int64)
    total = np.full(len(masks), -1, np.int64)
    starts, ends, rows, first = [], [], [], [0]
    for index, counts in enumerate(masks):
        try:
            low, high, total[index] = intervals(counts)
        except ValueError:
            continue
        if len(low):
            starts.append(low)
            ends.append(high)
            rows.append(index)
            first.append(first[-1] + len(low))
    if not rows:
        return Extents(boxes, area, total, 0)
    start, end = np.concatenate(starts), np.concatenate(ends)
    boxes[rows], area[rows] = _extents(start, end, np.array(first[:-1]), max(height, 1))
    order = np.argsort(start)
    start, end = start[order], end[order]
    before = np.concatenate([[0], np.maximum.accumulate(end)[:-1]])
    union = np.maximum(end - np.maximum(start, before), 0).sum()
    return Extents(boxes, area, total, int(area.sum() - union))


def intervals(counts: bytes) -> tuple[np.ndarray, np.ndarray, int]:
    """(starts, ends, pixels of the image): the runs of ones in an RLE string.

    Raises:
        ValueError: The string is damaged.
    """
    runs = decode_runs(counts)
    if runs.min() < 0:
        raise ValueError(f"An RLE string with a run of {runs.min()} pixels.")
    ends = np.cumsum(runs)
    starts = ends - runs
    ones = np.flatnonzero(runs[1::2]) * 2 + 1
    return starts[ones], ends[ones], int(ends[-1])


def _encode(starts: np.ndarray, ends: np.ndarray, total: int) -> bytes:
    edges = np.stack([starts, ends], axis=1).reshape(-1)
    runs = np.diff(np.concatenate([[0], edges, [total]]))
    return encode_runs(runs if runs[-1] else runs[:-1])


def _extents(starts, ends, first, height: int) -> tuple[np.ndarray, np.ndarray]:
    """((N, 4) boxes, (N,) areas) of N groups of runs, which begin at `first`."""
    if not len(starts):
        return np.zeros((0, 4)), np.zeros(0, np.int64)
    (left, top), (right, bottom) = divmod(starts, height), divmod(ends - 1, height)
    over = right > left  # it goes on at the top of the next column
    top, bottom = np.where(over, 0, top), np.where(over, height - 1, bottom)
    low = [np.minimum.reduceat(side, first) for side in (left, top)]
    high = [np.maximum.reduceat(side, first) + 1 for side in (right, bottom)]
    return np.stack([*low, *high], axis=1), np.add.reduceat(ends - starts, first)
