"""Precision and recall of each class along the scores."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Ranking(NamedTuple):
    """The detections of one class over all images, the surest first.

    Attributes:
        scores: (n,) float64, descending.
        hits: (n,) bool, whether it found an object.
        support: How many there are to find.
    """

    scores: np.ndarray
    hits: np.ndarray
    support: int

    def average_precision(self, levels=None) -> float:
        """Mean over recall levels of the best precision at that recall or above it.

        Args:
            levels: Recalls in [0, 1]; None for every point, the area under the curve.

        Returns:
            In [0, 1]; NaN where there is nothing to find.
        """
        if not self.support:
            return float("nan")
        rank = np.flatnonzero(self.hits) + 1  # precision is highest at a hit
        found = np.arange(1, len(rank) + 1)
        best = np.maximum.accumulate((found / rank)[::-1])[::-1]
        if levels is None:
            return float(best.sum() / self.support)
        place = np.searchsorted(found / self.support, levels, "left")
        return float(np.append(best, 0)[place].mean())

    def best_f1(self) -> dict[str, float]:
        """The score threshold with the highest F1, and what it gives.

        Returns:
            threshold, precision, recall and f1; NaN where there is nothing to find,
            zeros and a threshold of NaN where nothing is found.
        """
        keys = ("threshold", "precision", "recall", "f1")
        if not self.support:
            return dict.fromkeys(keys, float("nan"))
        found = np.cumsum(self.hits)
        count = np.arange(1, len(found) + 1)
        f1 = 2 * found / (self.support + count)
        # A threshold keeps all detections of one score or none.
        f1[:-1][self.scores[1:] == self.scores[:-1]] = 0
        if not f1.any():
            return dict.fromkeys(keys, 0.0) | {"threshold": float("nan")}
        i = int(f1.argmax())
        values = (self.scores[i], found[i] / count[i], found[i] / self.support, f1[i])
        return dict(zip(keys, map(float, values), strict=True))


def rank_classes(labels, scores, hits, keep, support) -> list[Ranking]:
    """A `Ranking` of each class.

    Args:
        labels: (D,) int64.
        scores: (D,) float64, descending.
        hits: (D,) bool.
        keep: (D,) bool, detections that are right or wrong.
        support: (K,) int64.
    """
    rows = np.flatnonzero(keep)
    small = np.min_scalar_type(len(support))  # NumPy's radix sort takes 16 bits
    rows = rows[np.argsort(labels[rows].astype(small), kind="stable")]
    edges = np.searchsorted(labels[rows], np.arange(len(support) + 1))
    return [
        Ranking(scores[rows[a:b]], hits[rows[a:b]], int(n))
        for a, b, n in zip(edges[:-1], edges[1:], support, strict=True)
    ]
