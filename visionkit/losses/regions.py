"""Losses of semantic segmentation that judge the region of each class as a whole.

They compare how much of a class's region is right with how large it is, so that a small
class counts as much as a large one. The regions are those of the whole batch.
"""

from __future__ import annotations

import keras
from keras import ops

from visionkit.losses.pixels import EPSILON, PixelLoss, probabilities


class RegionLoss(PixelLoss):
    """Base: mean of a loss per class over the classes that the batch's truth has.

    A class without a true pixel is left out: nothing of it can be found, and what is
    wrongly given to it is missing in another class. Sample weights say how much of the
    region a pixel is; void is none of it. Nothing but void gives 0. Call arguments are
    those of `PixelLoss`.

    Args:
        class_weights: How much each class counts in the mean, at least 0; 0 leaves it
            out, as one may wish for the background.
        name: Name in the logs.
    """

    def measure(self, shares, logits, known, weights):
        """See the class."""
        weights = weights[..., None]
        probability = probabilities(logits)
        size = ops.sum(weights * shares, axis=(0, 1, 2))
        losses = self.class_losses(shares, probability, weights, size)
        counted = ops.cast(ops.not_equal(size, 0), "float32")
        counted = counted * self.weights(logits.shape[-1])
        return ops.sum(losses * counted) / ops.maximum(ops.sum(counted), EPSILON)

    def class_losses(self, shares, probability, weights, size):
        """(K,) float32, finite also for a class of size 0.

        Args:
            shares: (B, h, w, K) float32, all 0 where void.
            probability: (B, h, w, K) float32.
            weights: (B, h, w, 1) float32, 0 where void.
            size: (K,) float32, sum of the weighted shares.
        """
        raise NotImplementedError(f"{type(self).__name__} must define `class_losses`.")


@keras.saving.register_keras_serializable(package="visionkit")
class Tversky(RegionLoss):
    """1 - Tversky index of the softmax probabilities (Salehi et al. 2017).

    hit / (hit + alpha * wrong + beta * missed) of each class, with hit = sum(p * y),
    wrong = sum(p * (1 - y)) and missed = sum((1 - p) * y).

    Args:
        alpha: Weight of what is wrongly given to a class.
        beta: Weight of what is missed; above `alpha` it favours recall.
        class_weights: As for `RegionLoss`.
        name: Name in the logs.
    """

    def __init__(self, alpha=0.3, beta=0.7, class_weights=None, name="tversky"):
        super().__init__(class_weights, name=name)
        for key, value in {"alpha": alpha, "beta": beta}.items():
            if not 0 <= value < float("inf"):
                raise ValueError(f"`{key}` must be at least 0. Received: {key}={value}")
        self.alpha, self.beta = float(alpha), float(beta)

    def class_losses(self, shares, probability, weights, size):
        """See the class."""
        hit = ops.sum(weights * shares * probability, axis=(0, 1, 2))
        given = ops.sum(weights * probability, axis=(0, 1, 2))
        wrong, missed = given - hit, size - hit
        whole = hit + self.alpha * wrong + self.beta * missed
        return 1.0 - hit / ops.maximum(whole, EPSILON)

    def get_config(self):
        """The constructor's arguments."""
        return {**super().get_config(), "alpha": self.alpha, "beta": self.beta}


@keras.saving.register_keras_serializable(package="visionkit")
class Dice(Tversky):
    """1 - Dice coefficient of the softmax probabilities, 2 |A and B| / (|A| + |B|).

    Milletari et al. 2016, with sums of p and not of its squares.

    Args:
        class_weights: As for `RegionLoss`.
        name: Name in the logs.
    """

    def __init__(self, class_weights=None, name="dice"):
        super().__init__(0.5, 0.5, class_weights, name=name)

    get_config = RegionLoss.get_config


@keras.saving.register_keras_serializable(package="visionkit")
class Jaccard(Tversky):
    """1 - Jaccard index of the softmax probabilities, |A and B| / |A or B|: soft IoU.

    Args:
        class_weights: As for `RegionLoss`.
        name: Name in the logs.
    """

    def __init__(self, class_weights=None, name="jaccard"):
        super().__init__(1.0, 1.0, class_weights, name=name)

    get_config = RegionLoss.get_config
