"""Losses of detectors: of deltas, of boxes, and of the classes of many anchors.

They give one number per anchor, in float32. A detector sums them and says by the sample
weights which anchors count, and by how much.
"""

from __future__ import annotations

import keras
from keras import ops

from visionkit.losses.classification import SigmoidFocal
from visionkit.ops.boxes import IOU_KINDS, iou


@keras.saving.register_keras_serializable(package="visionkit")
class SmoothL1(keras.losses.Loss):
    """Absolute error that is quadratic near 0 (Girshick 2015), summed over coordinates.

    0.5 x^2 / beta where |x| < beta, |x| - 0.5 beta elsewhere.

    Call arguments:
        y_true: (..., 4).
        y_pred: (..., 4).

    Returns:
        (...,) float32 before the reduction.

    Args:
        beta: Where the quadratic part ends; 0 is the plain absolute error.
    """

    def __init__(self, beta: float = 1.0, name="smooth_l1", **kwargs):
        super().__init__(name=name, **kwargs)
        if not 0 <= beta < float("inf"):
            raise ValueError(f"`beta` must be at least 0. Received: beta={beta}")
        self.beta = float(beta)

    def call(self, y_true, y_pred):
        """Loss per anchor; see the class."""
        error = ops.abs(ops.cast(y_pred, "float32") - ops.cast(y_true, "float32"))
        if self.beta:
            near = 0.5 * ops.square(error) / self.beta
            error = ops.where(error < self.beta, near, error - 0.5 * self.beta)
        return ops.sum(error, axis=-1)

    def get_config(self):
        """The constructor's arguments."""
        return {**super().get_config(), "beta": self.beta}


@keras.saving.register_keras_serializable(package="visionkit")
class IoULoss(keras.losses.Loss):
    """1 - IoU of pairs of boxes; see `visionkit.ops.boxes.iou`.

    Call arguments:
        y_true: (..., 4) xyxy.
        y_pred: (..., 4) xyxy.

    Returns:
        (...,) float32 before the reduction.

    Args:
        kind: "iou", "giou", "diou" or "ciou".
    """

    def __init__(self, kind: str = "ciou", name="iou", **kwargs):
        super().__init__(name=name, **kwargs)
        if kind not in IOU_KINDS:
            raise ValueError(
                f"`kind` must be one of {IOU_KINDS}. Received: kind={kind!r}"
            )
        self.kind = kind

    def call(self, y_true, y_pred):
        """Loss per pair; see the class."""
        return 1.0 - iou(y_true, y_pred, self.kind)

    def get_config(self):
        """The constructor's arguments."""
        return {**super().get_config(), "kind": self.kind}


@keras.saving.register_keras_serializable(package="visionkit")
class SigmoidFocalLoss(SigmoidFocal):
    """Focal loss (Lin et al. 2017) of every anchor, summed over the classes.

    Call arguments:
        y_true: (..., K), 1 for the class of the anchor, all 0 for background.
        y_pred: (..., K) logits.

    Returns:
        (...,) float32 before the reduction.

    Args:
        alpha: Weight of presences; absences have 1 - alpha.
        gamma: How much less what is already right counts.
    """

    def __init__(self, alpha=0.25, gamma=2.0, name="sigmoid_focal", **kwargs):
        super().__init__(gamma, alpha, name=name, **kwargs)

    def call(self, y_true, y_pred):
        """Loss per anchor; see the class."""
        target, logits = ops.cast(y_true, "float32"), ops.cast(y_pred, "float32")
        present = target * self.term(logits, positive=True)
        absent = (1 - target) * self.term(-logits, positive=False)
        return -ops.sum(present + absent, axis=-1)
