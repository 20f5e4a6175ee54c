"""Losses of classifiers: softmax for one class per image, sigmoid for any number.

All of them read logits, compute in float32, take hard and soft labels alike, and can
weight the classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import keras
from keras import ops

from visionkit.losses.class_weights import ClassWeightedLoss
from visionkit.ops.labels import soft_labels

_SMALLEST = 1e-7  # below it 1 - p is rounding, and its power may have no gradient


class ClassificationLoss(ClassWeightedLoss):
    """Base: the arguments that all of them have.

    Args:
        label_smoothing: Share s of the truth that is spread evenly, 0 <= s < 1.
        class_weights: A weight of at least 0 per class; None weights all by 1.
    """

    def __init__(
        self,
        label_smoothing: float = 0.0,
        class_weights: Sequence[float] | None = None,
        name: str | None = None,
        **kwargs,
    ):
        super().__init__(class_weights, name=name, **kwargs)
        if not 0.0 <= label_smoothing < 1.0:
            raise ValueError(
                "`label_smoothing` must be in [0, 1). "
                f"Received: label_smoothing={label_smoothing}"
            )
        self.label_smoothing = label_smoothing

    def get_config(self):
        """The constructor's arguments."""
        return {**super().get_config(), "label_smoothing": self.label_smoothing}


@keras.saving.register_keras_serializable(package="visionkit")
class SoftmaxCrossentropy(ClassificationLoss):
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
        class_weights: The loss of an example is multiplied by sum(y * weights), with
            y not smoothed. The mean over a batch is not divided by the weights.
    """

    def __init__(
        self, label_smoothing=0.0, class_weights=None, name="crossentropy", **kwargs
    ):
        super().__init__(label_smoothing, class_weights, name=name, **kwargs)

    def call(self, y_true, y_pred):
        """Loss per example; see the class."""
        y_pred = ops.cast(y_pred, "float32")
        y_true = soft_labels(y_true, y_pred)
        num_classes = y_pred.shape[-1]
        target = y_true
        if self.label_smoothing:
            target = y_true * (1 - self.label_smoothing)
            target = target + self.label_smoothing / num_classes
        log_p = ops.log_softmax(y_pred, axis=-1)
        loss = -ops.sum(target * self.modulation(log_p) * log_p, axis=-1)
        if self.class_weights is not None:
            loss = loss * ops.sum(y_true * self.weights(num_classes), axis=-1)
        return loss

    def modulation(self, log_p):
        """Factor of each class's term, given its log-probability (B, num_classes)."""
        return 1.0


@keras.saving.register_keras_serializable(package="visionkit")
class SoftmaxFocal(SoftmaxCrossentropy):
    """Focal loss (Lin et al. 2017) of softmax logits: -alpha (1 - p)^gamma log p.

    Call arguments and result are those of `SoftmaxCrossentropy`.

    Args:
        gamma: How much less what is already right counts; 0 is the cross-entropy.
        alpha: A constant factor here, where every label is a positive one.
        label_smoothing: As for `SoftmaxCrossentropy`.
        class_weights: As for `SoftmaxCrossentropy`.
    """

    def __init__(
        self,
        gamma=2.0,
        alpha=0.25,
        label_smoothing=0.0,
        class_weights=None,
        name="focal",
        **kwargs,
    ):
        super().__init__(label_smoothing, class_weights, name=name, **kwargs)
        self.gamma, self.alpha = _check_focal(gamma, alpha)

    def modulation(self, log_p):
        """alpha (1 - p)^gamma."""
        missing = ops.maximum(1.0 - ops.exp(log_p), _SMALLEST)
        return self.alpha * ops.power(missing, self.gamma)

    def get_config(self):
        """The constructor's arguments."""
        return {**super().get_config(), "gamma": self.gamma, "alpha": self.alpha}


@keras.saving.register_keras_serializable(package="visionkit")
class SigmoidCrossentropy(ClassificationLoss):
    """Binary cross-entropy of every class on its own: any number of labels per image.

    Call arguments:
        y_true: (B, num_classes), 1 where the class is present, soft values allowed.
        y_pred: (B, num_classes) logits.

    Returns:
        (B,) float32 before the reduction, the mean over the classes.

    Args:
        label_smoothing: Share s drawn to a half: (1 - s) * y + s / 2.
        class_weights: Factors of the positive terms, y * weight * log p. Absences all
            count once.
    """

    def __init__(
        self,
        label_smoothing=0.0,
        class_weights=None,
        name="binary_crossentropy",
        **kwargs,
    ):
        super().__init__(label_smoothing, class_weights, name=name, **kwargs)

    def call(self, y_true, y_pred):
        """Loss per example; see the class."""
        if len(y_true.shape) != 2 or y_true.shape[-1] != y_pred.shape[-1]:
            raise ValueError(
                "Multi-label targets must be (B, num_classes) with "
                f"num_classes={y_pred.shape[-1]}. Received: shape {y_true.shape}"
            )
        logits = ops.cast(y_pred, "float32")
        target = ops.cast(y_true, "float32")
        if self.label_smoothing:
            target = target * (1 - self.label_smoothing) + self.label_smoothing / 2
        present = target * self.term(logits, positive=True)
        absent = (1 - target) * self.term(-logits, positive=False)
        weights = self.weights(logits.shape[-1])
        return -ops.mean(weights * present + absent, axis=-1)

    def term(self, logits, positive: bool):
        """What one right answer is worth: the log of its probability."""
        return ops.log_sigmoid(logits)


@keras.saving.register_keras_serializable(package="visionkit")
class SigmoidFocal(SigmoidCrossentropy):
    """Focal loss (Lin et al. 2017) of every class on its own.

    -alpha (1 - p)^gamma log p where a class is present, -(1 - alpha) p^gamma log(1 - p)
    where it is not. Call arguments and result are those of `SigmoidCrossentropy`.

    Args:
        gamma: How much less what is already right counts.
        alpha: Weight of presences; absences have 1 - alpha.
        label_smoothing: As for `SigmoidCrossentropy`.
        class_weights: As for `SigmoidCrossentropy`.
    """

    def __init__(
        self,
        gamma=2.0,
        alpha=0.25,
        label_smoothing=0.0,
        class_weights=None,
        name="binary_focal",
        **kwargs,
    ):
        super().__init__(label_smoothing, class_weights, name=name, **kwargs)
        self.gamma, self.alpha = _check_focal(gamma, alpha, highest=1.0)

    def term(self, logits, positive: bool):
        """The log of the probability, less the surer it is."""
        # (1 - p)^gamma as a power of e: finite, with its gradient, for any logit.
        missing = ops.exp(self.gamma * ops.log_sigmoid(-logits))
        alpha = self.alpha if positive else 1 - self.alpha
        return alpha * missing * ops.log_sigmoid(logits)

    def get_config(self):
        """The constructor's arguments."""
        return {**super().get_config(), "gamma": self.gamma, "alpha": self.alpha}


def _check_focal(gamma, alpha, highest=float("inf")) -> tuple[float, float]:
    if not 0 <= gamma < float("inf"):
        raise ValueError(f"`gamma` must be at least 0. Received: gamma={gamma}")
    if not 0 < alpha <= highest:
        limit = "above 0" if highest == float("inf") else "in (0, 1]"
        raise ValueError(f"`alpha` must be {limit}. Received: alpha={alpha}")
    return float(gamma), float(alpha)
