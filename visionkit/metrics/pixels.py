"""Scores of masks inside a training step, at the model's size.

Truth in both its forms (see `ops.pixels`), void left out, nothing done on the host.
`SegmentationEvaluator` is what measures in the images' own pixels.
"""

from __future__ import annotations

import keras
from keras import ops

from visionkit.ops.native import count_labels, first_largest
from visionkit.ops.pixels import pixel_labels, pixel_weights
from visionkit.types import VOID_CLASS


@keras.saving.register_keras_serializable(package="visionkit")
class MeanIoU(keras.metrics.Metric):
    """Mean over the classes of intersection over union, over all pixels seen so far.

    A class that is neither in the truth nor in an answer is left out of the mean; one
    that is only answered counts as 0. Without any pixel the score is 0.

    It counts pixels in float32: each sum is right to some 1e-5 after an epoch of any
    length.

    Args:
        num_classes: K.
        name: Name in the logs.
    """

    def __init__(self, num_classes: int, name: str = "mean_iou", **kwargs):
        super().__init__(name=name, **kwargs)
        if num_classes < 1:
            raise ValueError(
                f"`num_classes` must be at least 1. Received: num_classes={num_classes}"
            )
        self.num_classes = num_classes
        # Rows: right pixels, true ones, answered ones.
        self.pixels = self.add_variable((3, num_classes), "zeros", name="pixels")

    def update_state(self, y_true, y_pred, sample_weight=None):
        """Count a batch.

        Args:
            y_true: (B, h, w) integers, 255 = void, or (B, h, w, K) shares.
            y_pred: (B, h, w, K) logits or probabilities.
            sample_weight: (B,) weights of the images, or (B, h, w) of the pixels.
        """
        truth, answer, weights = _compare(y_true, y_pred, sample_weight)
        right = ops.where(ops.equal(truth, answer), truth, VOID_CLASS)
        counts = [
            count_labels(labels, weights, self.num_classes)
            for labels in (right, truth, answer)
        ]
        self.pixels.assign_add(ops.stack(counts))

    def result(self):
        """() float32."""
        right, truth, answered = ops.unstack(ops.convert_to_tensor(self.pixels), 3)
        union = truth + answered - right
        present = ops.cast(union > 0, "float32")
        score = right / ops.where(union > 0, union, 1.0)
        return ops.sum(score * present) / ops.maximum(ops.sum(present), 1.0)

    def get_config(self):
        """The constructor's arguments."""
        return {**super().get_config(), "num_classes": self.num_classes}


@keras.saving.register_keras_serializable(package="visionkit")
class PixelAccuracy(keras.metrics.Mean):
    """Share of the valid pixels whose class is the one with the highest logit.

    Args:
        name: Name in the logs.
    """

    def __init__(self, name: str = "pixel_accuracy", **kwargs):
        super().__init__(name=name, **kwargs)

    def update_state(self, y_true, y_pred, sample_weight=None):
        """Count a batch; see `MeanIoU.update_state`."""
        truth, answer, weights = _compare(y_true, y_pred, sample_weight)
        return super().update_state(ops.equal(truth, answer), weights)


def _compare(y_true, y_pred, sample_weight):
    """Truth and answer (B, h, w) int32, and weights (B, h, w) float32, 0 for void."""
    y_true, y_pred = ops.convert_to_tensor(y_true), ops.convert_to_tensor(y_pred)
    truth = pixel_labels(y_true, y_pred)
    answer = first_largest(y_pred)
    valid = ops.cast(ops.not_equal(truth, VOID_CLASS), "float32")
    return truth, answer, valid * pixel_weights(sample_weight, valid)
