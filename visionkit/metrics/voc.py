"""PASCAL VOC's average precision, by every point (2010 on) and by 11 points (2007)."""

from __future__ import annotations

import numpy as np

from visionkit.metrics.curves import Ranking, rank_classes
from visionkit.metrics.matching import Pairs, best_overlap, find_pairs
from visionkit.metrics.objects import Answers, Truth

ELEVEN_POINTS = np.linspace(0, 1, 11)


def rank_voc(
    truth: Truth,
    answers: Answers,
    num_classes: int,
    *,
    iou: float = 0.5,
    pairs: Pairs | None = None,
) -> list[Ranking]:
    """The detections of each class as the VOC development kit judges them.

    A detection speaks of the object of its class that it overlaps most. Below `iou` it
    is wrong; on a difficult object (or a crowd) it is ignored; else the surest one of
    an object is right and the others are wrong, even where they overlap a second
    object enough, which COCO would grant.

    The kit counts whole pixels, x2 - x1 + 1 wide. Boxes with continuous edges, as
    everywhere here, are that wide by themselves once x2 is the edge *after* the last
    pixel.

    Args:
        truth: The objects.
        answers: The detections.
        num_classes: K.
        iou: Overlap from which an object counts as found.
        pairs: Those of at least `iou` or less, where they are known already.

    Returns:
        K `Ranking`s; `average_precision()` is that of every point,
        `average_precision(ELEVEN_POINTS)` that of 2007.
    """
    if pairs is None:
        pairs = find_pairs(answers, truth, iou)
    overlap, target = best_overlap(pairs.where(pairs.same_class), len(answers.labels))
    near = overlap >= iou
    ignored = np.zeros(len(near), bool)
    ignored[near] = ~truth.counted[target[near]]
    rows = np.flatnonzero(near & ~ignored)
    hits = np.zeros(len(near), bool)
    hits[rows[np.unique(target[rows], return_index=True)[1]]] = True
    support = truth.support(num_classes)
    return rank_classes(answers.labels, answers.scores, hits, ~ignored, support)
