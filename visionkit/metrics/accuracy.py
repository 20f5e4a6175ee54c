"""Accuracy inside a training step, for hard and soft labels."""

from __future__ import annotations

import keras
from keras import ops

from visionkit.ops.labels import hard_labels


@keras.saving.register_keras_serializable(package="visionkit")
class TopKAccuracy(keras.metrics.Mean):
    """Share of examples whose class is among the k highest logits.

    Soft labels (mixed images) count as their largest class. Ties go to the lower
    class, as in `ClassificationEvaluator`; logits that are not numbers are wrong.

    Args:
        k: At least 1.
        name: Name in the logs.
    """

    def __init__(self, k: int = 1, name: str = "accuracy", **kwargs):
        super().__init__(name=name, **kwargs)
        if k < 1:
            raise ValueError(f"`k` must be at least 1. Received: k={k}")
        self.k = k

    def update_state(self, y_true, y_pred, sample_weight=None):
        """Count a batch.

        Args:
            y_true: (B,) integers, or (B, K) shares.
            y_pred: (B, K) logits or probabilities.
            sample_weight: (B,) weights of the examples.
        """
        y_true, y_pred = ops.convert_to_tensor(y_true), ops.convert_to_tensor(y_pred)
        found = is_among_top(hard_labels(y_true, y_pred), y_pred, self.k)
        return super().update_state(found, sample_weight)

    def get_config(self):
        """The constructor's arguments."""
        return {**super().get_config(), "k": self.k}


def is_among_top(labels, scores, k: int):
    """(B,) float32, 1 where fewer than k classes rank before the label (B,) int32."""
    labels = ops.expand_dims(labels, -1)
    truth = ops.take_along_axis(scores, labels, axis=-1)
    lower = ops.arange(scores.shape[-1], dtype="int32") < labels
    before = ops.logical_or(
        scores > truth, ops.logical_and(ops.equal(scores, truth), lower)
    )
    rank = ops.sum(ops.cast(before, "int32"), axis=-1)
    found = ops.logical_and(rank < k, ops.isfinite(ops.squeeze(truth, -1)))
    return ops.cast(found, "float32")
