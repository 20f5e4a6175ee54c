"""Which detection finds which object, in NumPy.

The overlaps of all images are computed at once; only the pairs that overlap enough
reach the one loop, which is greedy by nature.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from visionkit.metrics.objects import Answers, Truth

CHUNK = 1 << 16  # pairs whose overlap is computed at once; they fit the cache
MAX_DETECTIONS = 100  # of a class in an image, as COCO has it


class Pairs(NamedTuple):
    """Detections and objects of one image that overlap.

    Attributes:
        answer: (P,) int64 row of `Answers`, ascending.
        truth: (P,) int64 row of `Truth`.
        iou: (P,) float64; for a crowd the share of the detection that lies in it.
        same_class: (P,) bool.
    """

    answer: np.ndarray
    truth: np.ndarray
    iou: np.ndarray
    same_class: np.ndarray

    def where(self, chosen) -> Pairs:
        """The pairs that a (P,) mask chooses."""
        return Pairs(*(column[chosen] for column in self))


class Matches(NamedTuple):
    """What became of each detection.

    Attributes:
        truth: (D,) int64, row of the object that it found, -1 for none.
        ignored: (D,) bool: on a crowd or a difficult object, or beyond 100 of its
            class in the image: neither right nor wrong.
    """

    truth: np.ndarray
    ignored: np.ndarray

    @property
    def right(self) -> np.ndarray:
        """(D,) bool."""
        return self.truth >= 0

    @property
    def wrong(self) -> np.ndarray:
        """(D,) bool."""
        return ~self.right & ~self.ignored

    def missed(self, truth: Truth, among=slice(None)) -> np.ndarray:
        """(N,) bool, counted objects that no detection `among` these has found."""
        free = truth.counted
        found = self.truth[among]
        free[found[found >= 0]] = False
        return free


def find_pairs(answers: Answers, truth: Truth, minimum: float) -> Pairs:
    """All pairs within an image that overlap by at least `minimum` > 0."""
    images = np.arange(answers.images.max(initial=-1) + 2)
    edges = np.searchsorted(truth.images, images)
    first, count = edges[answers.images], np.diff(edges)[answers.images]
    boxes, objects = (np.ascontiguousarray(t.boxes.T) for t in (answers, truth))
    # Cut where the running number of pairs passes a multiple of CHUNK.
    cuts = np.flatnonzero(np.diff(np.cumsum(count) // CHUNK, prepend=0))
    parts = []
    for rows in np.split(np.arange(len(count)), cuts):
        n = count[rows]
        answer = np.repeat(rows, n)
        start = np.repeat(first[rows] - np.cumsum(n) + n, n)
        object_ = start + np.arange(len(start))
        iou = _overlap(boxes[:, answer], objects[:, object_], truth.is_crowd[object_])
        near = iou >= minimum
        parts.append((answer[near], object_[near], iou[near]))
    answer, object_, iou = (np.concatenate(c) for c in zip(*parts, strict=True))
    same_class = answers.labels[answer] == truth.labels[object_]
    return Pairs(answer, object_, iou, same_class)


def match(answers: Answers, truth: Truth, pairs: Pairs, iou=0.5) -> Matches:
    """COCO's rule: the surest detection first takes the object that it overlaps most.

    Among the free and counted objects of its class, from `iou` on; of equals the last.
    A detection that gets none and lies on a crowd or difficult object is ignored.
    """
    beyond = _rank_in_class(answers) >= MAX_DETECTIONS
    near = pairs.where(
        pairs.same_class & (pairs.iou >= min(iou, 1 - 1e-10)) & ~beyond[pairs.answer]
    )
    counted = truth.counted[near.truth]
    found = take_best_first(near.where(counted), len(answers.labels), len(truth.labels))
    ignored = beyond.copy()
    ignored[near.answer[~counted]] = True
    return Matches(found, ignored & (found < 0))


def take_best_first(pairs: Pairs, num_answers: int, num_truths: int) -> np.ndarray:
    """(num_answers,) int64: in its turn each answer takes the best free object, or -1.

    Answers take turns in their order, which is by score.
    """
    order = np.lexsort((-pairs.truth, -pairs.iou, pairs.answer))
    found, taken = [-1] * num_answers, [False] * num_truths
    for row, column in zip(
        pairs.answer[order].tolist(), pairs.truth[order].tolist(), strict=True
    ):
        if found[row] < 0 and not taken[column]:
            found[row], taken[column] = column, True
    return np.array(found, np.int64)


def best_overlap(pairs: Pairs, num_answers: int) -> tuple[np.ndarray, np.ndarray]:
    """The highest overlap of each answer among `pairs`, 0 for none, and its object.

    Returns:
        (num_answers,) float64 and (num_answers,) int64, -1 for none; the first of
        equals.
    """
    iou, truth = np.zeros(num_answers), np.full(num_answers, -1)
    np.maximum.at(iou, pairs.answer, pairs.iou)
    best = pairs.where(pairs.iou == iou[pairs.answer])
    truth[best.answer[::-1]] = best.truth[::-1]
    return iou, truth


def _overlap(a, b, is_crowd) -> np.ndarray:
    """(4, P) and (4, P) -> (P,) IoU; for crowds intersection over the area of `a`."""
    width = np.minimum(a[2], b[2]) - np.maximum(a[0], b[0])
    height = np.minimum(a[3], b[3]) - np.maximum(a[1], b[1])
    common = width.clip(0) * height.clip(0)
    union = (a[2] - a[0]) * (a[3] - a[1])
    union += np.where(is_crowd, 0, (b[2] - b[0]) * (b[3] - b[1]) - common)
    return np.divide(common, union, out=np.zeros_like(common), where=common > 0)


def _rank_in_class(answers: Answers) -> np.ndarray:
    """(D,) int64, place of each detection among those of its image and class."""
    key = answers.images * (answers.labels.max(initial=0) + 1) + answers.labels
    order = np.argsort(key, kind="stable")  # the surest first
    new = np.diff(key[order], prepend=-1) != 0
    places = np.arange(len(order))
    rank = np.empty_like(places)
    rank[order] = places - np.maximum.accumulate(np.where(new, places, 0))
    return rank
