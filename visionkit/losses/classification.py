"""Losses of classifiers."""

from __future__ import annotations

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="visionkit")
class SoftmaxCrossentropy(keras.losses.Loss):
    """Cross-entropy of softmax logits with integer or soft labels.

    Keras has one class for each kind of label and smooths only one of them; mixing
    augmentations turn one into the other, so here both go through one loss.

    Call arguments:
        y_true: (B,) integer labels, or (B, num_classes) probabilities.
        y_pred: (B, num_classes) logits.

    Returns:
        (B,) float32 before the reduction.

    Args:
        label_smoothing: Share s of the probability spread evenly over all classes:
            (1 - s) * y + s / num_classes (Szegedy et al. 2016, section 7).
    """

    def __init__(self, label_smoothing: float = 0.0, name="crossentropy", **kwargs):
        super().__init__(name=name, **kwargs)
        if not 0.0 <= label_smoothing < 1.0:
            raise ValueError(
                "`label_smoothing` must be in [0, 1). "
                f"Received: label_smoothing={label_smoothing}"
            )
        self.label_smoothing = label_smoothing

    def call(self, y_true, y_pred):
        """Loss per example; see the class."""
        y_pred = ops.cast(y_pred, "float32")
        if len(y_true.shape) < len(y_pred.shape):
            y_true = ops.one_hot(ops.cast(y_true, "int32"), y_pred.shape[-1])
        y_true = ops.cast(y_true, "float32")
        if self.label_smoothing:
            num_classes = y_pred.shape[-1]
            y_true = y_true * (1 - self.label_smoothing)
            y_true = y_true + self.label_smoothing / num_classes
        return -ops.sum(y_true * ops.log_softmax(y_pred, axis=-1), axis=-1)

    def get_config(self):
        """The constructor's arguments."""
        return {**super().get_config(), "label_smoothing": self.label_smoothing}
