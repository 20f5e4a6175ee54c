"""Class labels in their two forms: one integer, or a share for each class."""

from __future__ import annotations

from keras import ops


def is_soft(labels, scores) -> bool:
    """Whether `labels` are (B, K) like `scores`, and not (B,) or (B, 1) integers."""
    return len(labels.shape) == len(scores.shape) and labels.shape[-1] != 1


def soft_labels(labels, scores):
    """(B, K) float32 shares: soft labels as they are, integers as one-hot rows.

    Args:
        labels: (B,) or (B, 1) integers of any type, or (B, K).
        scores: (B, K), whose K counts.
    """
    if is_soft(labels, scores):
        return ops.cast(labels, "float32")
    return ops.one_hot(hard_labels(labels, scores), scores.shape[-1], dtype="float32")


def hard_labels(labels, scores):
    """(B,) int32: integers as they are, of soft labels the first of the largest."""
    if is_soft(labels, scores):
        return ops.cast(ops.argmax(labels, axis=-1), "int32")
    return ops.cast(ops.reshape(labels, (-1,)), "int32")
