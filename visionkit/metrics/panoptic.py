"""Panoptic quality of instance masks (Kirillov et al. 2019, section 4)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from visionkit.metrics.masks import Crop, rows_by_image
from visionkit.metrics.objects import Answers, Truth

MATCHED = 0.5  # IoU above which a segment is found; at most one can be
MIN_VISIBLE = 0.5  # share of a detection that surer ones must have left of it


class Panoptic(NamedTuple):
    """Panoptic, segmentation and recognition quality: pq = sq * rq.

    Attributes:
        pq: (K,) float64; NaN for a class that neither is true nor was answered.
        sq: (K,) mean IoU of what was found; 0 where nothing was.
        rq: (K,) F1 of finding.
    """

    pq: np.ndarray
    sq: np.ndarray
    rq: np.ndarray


def panoptic_quality(
    truth: Truth, answers: Answers, shown: np.ndarray, num_classes: int
) -> Panoptic:
    """How well the shown detections cut the images into their objects.

    A pixel has one owner. Among detections it is the surest; of a detection that surer
    ones leave less than half of, nothing is kept. Among objects it is the smallest; one
    that is wholly hidden does not count. Detections that lie for the most part on
    crowds or difficult objects of their class count for nothing.

    Args:
        truth: The objects, with masks.
        answers: The detections, with masks.
        shown: (D,) bool, the detections that are sure enough.
        num_classes: K.
    """
    sums = np.zeros((4, num_classes))
    for rows, objects in rows_by_image(answers, truth):
        sums += _compare(truth, answers, rows[shown[rows]], objects, num_classes)
    hits, overlap, false, missed = sums
    whole = hits + (false + missed) / 2
    present = whole > 0
    rq = np.where(present, hits / np.where(present, whole, 1), np.nan)
    sq = np.where(present, overlap / np.maximum(hits, 1), np.nan)
    return Panoptic(sq * rq, sq, rq)


def _compare(truth, answers, rows, objects, num_classes) -> np.ndarray:
    """(4, K): objects found, sum of their IoU, false detections, objects missed."""
    seen, known = answers.masks[rows].tolist(), truth.masks[objects].tolist()
    if not seen + known:
        return np.zeros((4, num_classes))
    size = (seen + known)[0]["size"]
    crops = [Crop.of(rle) for rle in known]
    area = [np.count_nonzero(crop.mask) for crop in crops]
    order = np.lexsort((area, ~truth.counted[objects]))
    objects, labels = objects[order], truth.labels[objects[order]]
    true = _cut([crops[i] for i in order], size)
    found = _cut([Crop.of(rle) for rle in seen], size, MIN_VISIBLE)

    shape = len(objects) + 1, len(rows) + 1
    cells = np.bincount((true * shape[1] + found).ravel(), minlength=np.prod(shape))
    cells = cells.reshape(shape).astype(np.float64)
    true_area, found_area = cells.sum(1)[1:], cells.sum(0)[1:]
    common, answered = cells[1:, 1:], answers.labels[rows]
    common = np.where(labels[:, None] == answered, common, 0)
    union = true_area[:, None] + found_area - common

    counted = truth.counted[objects]
    iou = common / np.maximum(union, 1)
    pairs = (iou > MATCHED) & counted[:, None]
    # What lies on objects that do not count is neither right nor wrong.
    free = common[~counted].sum(axis=0) > MATCHED * found_area
    false = (found_area > 0) & ~pairs.any(axis=0) & ~free
    missed = counted & (true_area > 0) & ~pairs.any(axis=1)
    row, column = np.nonzero(pairs)
    return np.stack(
        [
            np.bincount(labels[row], minlength=num_classes),
            np.bincount(labels[row], iou[row, column], num_classes),
            np.bincount(answered[false], minlength=num_classes),
            np.bincount(labels[missed], minlength=num_classes),
        ]
    )


def _cut(crops, size, least: float = 0.0) -> np.ndarray:
    """(H, W) int64, the number of the first crop that has a pixel, from 1; 0 for none.

    A crop is left out when no more than `least` of it is free.
    """
    owners = np.zeros(size, np.int64)
    for number, crop in enumerate(crops, 1):
        part = owners[crop.window]
        free = crop.mask & (part == 0)
        if np.count_nonzero(free) > least * np.count_nonzero(crop.mask):
            part[free] = number
    return owners
