"""The loss of distances that are predicted as distributions."""

from __future__ import annotations

import keras
from keras import ops

from visionkit.ops.distribution import distance_shares


@keras.saving.register_keras_serializable(package="visionkit")
class DistributionFocalLoss(keras.losses.Loss):
    """Cross-entropy with the two bins beside the true distance, by their nearness.

    Li et al. 2020, "Generalized Focal Loss", equation 6; the mean over the sides.

    Call arguments:
        y_true: (..., sides) distances in bins, cut at 0 and the last bin.
        y_pred: (..., sides * bins) logits.

    Returns:
        (...,) float32 before the reduction.
    """

    def __init__(self, name="distribution_focal", **kwargs):
        super().__init__(name=name, **kwargs)

    def call(self, y_true, y_pred):
        """Loss per location; see the class."""
        logits = ops.cast(y_pred, "float32")
        bins = logits.shape[-1] // y_true.shape[-1]
        logits = ops.reshape(logits, (*ops.shape(y_true), bins))
        log_share = ops.log_softmax(logits, axis=-1)
        loss = -ops.sum(distance_shares(y_true, bins) * log_share, axis=-1)
        return ops.mean(loss, axis=-1)
