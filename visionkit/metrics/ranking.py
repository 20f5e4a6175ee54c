"""Scores of a ranking: average precision and the area under the ROC curve, exact.

Equal scores are one step of the curves, so the order of equals does not matter.
"""

from __future__ import annotations

import numpy as np


def average_precision(truth, scores) -> float:
    """Sum over the ranks of (recall gained) times precision, without interpolation.

    Args:
        truth: (N,) bool.
        scores: (N,) numbers, higher is surer.

    Returns:
        In [0, 1]; NaN where nothing is true.
    """
    hits, seen = _curve(truth, scores)
    if not len(hits) or not hits[-1]:
        return float("nan")
    gained = np.diff(hits, prepend=0)
    return float((gained * hits / seen).sum() / hits[-1])


def roc_auc(truth, scores) -> float:
    """Chance that a true example outranks a false one, equals counting half.

    Args:
        truth: (N,) bool.
        scores: (N,) numbers, higher is surer.

    Returns:
        In [0, 1]; NaN where all or none are true.
    """
    hits, seen = _curve(truth, scores)
    misses = seen - hits
    if not len(hits) or not hits[-1] or not misses[-1]:
        return float("nan")
    middle = (hits + np.concatenate([[0], hits[:-1]])) / 2
    area = (middle * np.diff(misses, prepend=0)).sum()
    return float(area / (hits[-1] * misses[-1]))


def precision_at_recall(truth, scores, recall) -> np.ndarray:
    """The best precision at each recall or above it.

    Args:
        truth: (N,) bool.
        scores: (N,) numbers, higher is surer.
        recall: (R,) in [0, 1].

    Returns:
        (R,) in [0, 1]; NaN where nothing is true.
    """
    hits, seen = _curve(truth, scores)
    if not len(hits) or not hits[-1]:
        return np.full(len(recall), np.nan)
    best = np.maximum.accumulate((hits / seen)[::-1])[::-1]
    return best[np.searchsorted(hits / hits[-1], recall)]


def _curve(truth, scores) -> tuple[np.ndarray, np.ndarray]:
    """True ones, and all, among the examples of at least each distinct score."""
    order = np.argsort(-scores, kind="stable")
    scores, truth = scores[order], np.asarray(truth, bool)[order]
    last = np.flatnonzero(np.append(scores[1:] != scores[:-1], len(scores) > 0))
    hits = np.cumsum(truth, dtype=np.float64)[last]
    return hits, last + 1.0


def nan_mean(values) -> float:
    """Mean of what is a number; NaN where nothing is."""
    values = np.asarray(values, np.float64)
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")
