"""Overlaps of instance masks that stay RLE: decoded one by one, and only where needed.

Boundary IoU is that of Cheng et al. 2021, "Boundary IoU: Improving Object-Centric Image
Segmentation Evaluation".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from visionkit.metrics.coco import IOU_THRESHOLDS, RECALLS, rle_library
from visionkit.metrics.curves import rank_classes
from visionkit.metrics.matching import Pairs, match
from visionkit.metrics.objects import Answers, Truth
from visionkit.metrics.segmentation import boundary, boundary_depth


class Crop(NamedTuple):
    """What one mask has of its image.

    Attributes:
        mask: (rows, columns) bool.
        top: Row of the image that it begins at.
        left: Column of the image that it begins at.
    """

    mask: np.ndarray
    top: int
    left: int

    @classmethod
    def of(cls, rle: dict) -> Crop:
        """The part that holds the mask of {"size", "counts"}."""
        library = rle_library()
        left, top, width, height = library.toBbox(rle).astype(int).tolist()
        mask = library.decode(rle)[top : top + height, left : left + width]
        return cls(np.ascontiguousarray(mask, bool), top, left)

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns of the image."""
        height, width = self.mask.shape
        return slice(self.top, self.top + height), slice(self.left, self.left + width)


def find_mask_pairs(answers: Answers, truth: Truth, minimum: float) -> Pairs:
    """As `matching.find_pairs`, of masks."""
    library, parts = rle_library(), [(np.zeros((2, 0), np.int64), np.zeros(0))]
    for rows, objects in rows_by_image(answers, truth):
        if not (rows.size and objects.size):
            continue
        iou = library.iou(
            answers.masks[rows].tolist(),
            truth.masks[objects].tolist(),
            truth.is_crowd[objects].tolist(),
        )
        near = np.nonzero(iou >= minimum)
        parts.append((np.stack([rows[near[0]], objects[near[1]]]), iou[near]))
    (answer, object_), iou = (np.concatenate(c, -1) for c in zip(*parts, strict=True))
    order = np.lexsort((object_, answer))
    answer, object_ = answer[order], object_[order]
    same_class = answers.labels[answer] == truth.labels[object_]
    return Pairs(answer, object_, iou[order], same_class)


def rows_by_image(
    answers: Answers, truth: Truth
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Of each image that has any: rows of its answers, the surest first, and truth."""
    order = np.argsort(answers.images, kind="stable")
    numbers = answers.images[order]
    for number in np.union1d(numbers, truth.images):
        first, end = np.searchsorted(numbers, (number, number + 1))
        start, stop = np.searchsorted(truth.images, (number, number + 1))
        yield order[first:end], np.arange(start, stop)


def boundary_pairs(answers: Answers, truth: Truth, pairs: Pairs) -> Pairs:
    """The pairs with the lower of the IoU of masks and that of their boundaries.

    A boundary reaches as deep into its mask as 0.02 of the image's diagonal. Crowds
    have none: of those the mask counts alone.

    Args:
        answers: The detections, with masks.
        truth: The objects, with masks.
        pairs: Of masks, of any overlap above 0.
    """
    iou, kept = pairs.iou.copy(), (-1, {}, {})
    for row in np.argsort(truth.images[pairs.truth], kind="stable").tolist():
        answer, object_ = int(pairs.answer[row]), int(pairs.truth[row])
        if truth.is_crowd[object_]:
            continue
        image = truth.images[object_]
        if image != kept[0]:  # those of one image at a time
            kept = (image, {}, {})
        sides = ((kept[1], answers.masks, answer), (kept[2], truth.masks, object_))
        for known, masks, index in sides:
            if index not in known:
                known[index] = _edge(masks[index])
        iou[row] = min(iou[row], _iou(kept[1][answer], kept[2][object_]))
    return pairs._replace(iou=iou)


def boundary_precision(
    answers: Answers, truth: Truth, pairs: Pairs, num_classes: int
) -> np.ndarray:
    """Average precision as in COCO, by the overlaps of `boundary_pairs`.

    Args:
        answers: The detections, with masks.
        truth: The objects, with masks.
        pairs: Of masks, at least those from IoU 0.5 on.
        num_classes: K.

    Returns:
        (10, K) float64, at IoU thresholds .50 to .95; NaN for a class without objects.
    """
    # Those of other classes find nothing, and a lower overlap only falls.
    near = pairs.where(pairs.same_class & (pairs.iou >= IOU_THRESHOLDS[0]))
    near = boundary_pairs(answers, truth, near)
    support, table = truth.support(num_classes), []
    for threshold in IOU_THRESHOLDS:
        found = match(answers, truth, near, threshold)
        rankings = rank_classes(
            answers.labels, answers.scores, found.right, ~found.ignored, support
        )
        table.append([ranking.average_precision(RECALLS) for ranking in rankings])
    return np.array(table)


def _edge(rle: dict) -> Crop:
    crop = Crop.of(rle)
    near = boundary(crop.mask.astype(np.uint8), boundary_depth(rle["size"]))
    return crop._replace(mask=crop.mask & near)


def _iou(a: Crop, b: Crop) -> float:
    top, left = max(a.top, b.top), max(a.left, b.left)
    parts = [c.mask[max(0, top - c.top) :, max(0, left - c.left) :] for c in (a, b)]
    height, width = np.min([part.shape for part in parts], axis=0)
    common = np.count_nonzero(parts[0][:height, :width] & parts[1][:height, :width])
    union = np.count_nonzero(a.mask) + np.count_nonzero(b.mask) - common
    return common / union if union else 0.0
