"""Class labels in their two forms: one integer, or a share for each class."""

from __future__ import annotations

import numpy as np
from keras import ops


def is_soft(labels, scores) -> bool:
    """Whether `labels` are (B, K) like `scores`, and not (B,) or (B, 1) integers."""
    return len(labels.shape) == len(scores.shape) and labels.shape[-1] != 1


def soft_labels(labels, scores):
    """(B, K) float32 shares: soft labels as they are, integers as one-hot rows.

    A label that is no class, less than 0 or K and more, gives a row of NaN.

    Args:
        labels: (B,) or (B, 1) integers of any type, or (B, K).
        scores: (B, K), whose K counts.
    """
    if is_soft(labels, scores):
        return ops.cast(labels, "float32")
    num_classes = scores.shape[-1]
    labels = hard_labels(labels, scores)
    legal = ops.logical_and(labels >= 0, labels < num_classes)[:, None]
    # A row of zeros would be a silent loss of 0.
    return ops.where(legal, ops.one_hot(labels, num_classes, dtype="float32"), np.nan)


def hard_labels(labels, scores):
    """(B,) int32: integers as they are, of soft labels the first of the largest."""
    if is_soft(labels, scores):
        return ops.cast(ops.argmax(labels, axis=-1), "int32")
    return ops.cast(ops.reshape(labels, (-1,)), "int32")
