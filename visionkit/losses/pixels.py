"""Losses of semantic segmentation that judge each pixel by itself.

All of them read logits at the truth's size, compute in float32, leave void out, and are
one number for the whole batch, in which all pixels that are not void count alike: a
mean for each image would favour the pixels of images that are mostly void.
"""

from __future__ import annotations

import keras
from keras import ops

from visionkit.losses.class_weights import ClassWeightedLoss
from visionkit.losses.classification import SoftmaxCrossentropy, SoftmaxFocal
from visionkit.losses.replicas import replica_share
from visionkit.ops.labels import is_soft
from visionkit.ops.pixels import pixel_labels, pixel_shares, pixel_weights

EPSILON = 1e-7  # below any sum of weights, so that nothing over it is 0
_BISECTIONS = 24  # halvings of [0, 1]: as fine as float32 is below 1


class PixelLoss(ClassWeightedLoss):
    """Base: from masks and logits to shares and weights; a subclass has `measure`.

    Call arguments:
        y_true: (B, h, w) or (B, h, w, 1) integers, 255 = void; or (B, h, w, K) shares
            of the classes, all 0 where void; what is missing of a sum of 1 is void, and
            the pixel counts for less. An integer that is no class makes the loss NaN.
        y_pred: (B, h, w, K) logits.
        sample_weight: (B,) for images, or (B, h, w) for pixels.

    Returns:
        () float32, 0 where all is void.
    """

    hard = False  # whether shares are turned into the most likely class

    def __call__(self, y_true, y_pred, sample_weight=None):
        """The loss of a batch; see the class."""
        with keras.name_scope(self.name):
            logits = ops.cast(y_pred, "float32")
            y_true = ops.convert_to_tensor(y_true)
            if self.hard:
                y_true = pixel_labels(y_true, logits)
            shares = pixel_shares(y_true, logits)
            known = ops.sum(shares, axis=-1)
            if is_soft(y_true, logits):
                shares = shares / ops.maximum(known, EPSILON)[..., None]
            weights = known * pixel_weights(sample_weight, known)
            return replica_share() * self.measure(shares, logits, known, weights)

    def measure(self, shares, logits, known, weights):
        """The loss.

        Args:
            shares: (B, h, w, K) float32 that sum to 1, all 0 where void.
            logits: (B, h, w, K) float32.
            known: (B, h, w) float32, how much of a pixel is not void, 0 to 1.
            weights: (B, h, w) float32, `known` times the sample weights.

        Returns:
            () float32.
        """
        raise NotImplementedError(f"{type(self).__name__} must define `measure`.")

    def get_config(self):
        """The constructor's arguments."""
        config = super().get_config()
        del config["reduction"]  # there is one
        return config


@keras.saving.register_keras_serializable(package="visionkit")
class PixelCrossentropy(PixelLoss, SoftmaxCrossentropy):
    """Mean over the valid pixels of the batch of the softmax cross-entropy.

    Sample weights multiply the pixels and the mean is still by their number, as for
    U-Net's weight map (Ronneberger et al. 2015, equation 1). FCN was published with a
    sum instead, and learning rates smaller by the number of pixels.

    Args:
        label_smoothing: Share spread evenly over all classes.
        class_weights: Factor of each pixel by its class; the mean is not divided by
            them either.
        name: Name in the logs.
    """

    def __init__(self, label_smoothing=0.0, class_weights=None, name="crossentropy"):
        super().__init__(label_smoothing, class_weights, name=name)

    def measure(self, shares, logits, known, weights):
        """See the class."""
        return weighted_mean(self.call(shares, logits), weights, known)


@keras.saving.register_keras_serializable(package="visionkit")
class PixelFocal(PixelLoss, SoftmaxFocal):
    """Mean over the valid pixels of the batch of the focal loss (Lin et al. 2017).

    -alpha (1 - p)^gamma log p, with p of the true class. Weights count as for
    `PixelCrossentropy`.

    Args:
        gamma: How much less what is already right counts; 0 is the cross-entropy.
        alpha: A constant factor; `class_weights` are what differs between classes.
        label_smoothing: As for `PixelCrossentropy`.
        class_weights: As for `PixelCrossentropy`.
        name: Name in the logs.
    """

    def __init__(
        self,
        gamma=2.0,
        alpha=0.25,
        label_smoothing=0.0,
        class_weights=None,
        name="focal",
    ):
        super().__init__(gamma, alpha, label_smoothing, class_weights, name=name)

    measure = PixelCrossentropy.measure


@keras.saving.register_keras_serializable(package="visionkit")
class OHEMCrossentropy(PixelCrossentropy):
    """Cross-entropy of the hard pixels alone (online hard example mining).

    Shrivastava et al. 2016, with the bounds usual for street scenes: of the batch's
    valid pixels those count whose true class has a probability below `threshold`, and
    at least the hardest `min_kept` of them; the mean is over those.

    How hard the last one is comes from 24 halvings, which cost far less than sorting
    millions of pixels; ones that are hard alike, to 6e-8, are kept together.

    Args:
        threshold: Probability of the true class from which a pixel is easy.
        min_kept: Share of the valid pixels that is kept at least.
        label_smoothing: As for `PixelCrossentropy`.
        class_weights: As for `PixelCrossentropy`.
        name: Name in the logs.
    """

    def __init__(
        self,
        threshold=0.7,
        min_kept=0.0625,
        label_smoothing=0.0,
        class_weights=None,
        name="ohem",
    ):
        super().__init__(label_smoothing, class_weights, name=name)
        for key, value in {"threshold": threshold, "min_kept": min_kept}.items():
            if not 0 <= value <= 1:
                raise ValueError(f"`{key}` must be in [0, 1]. Received: {key}={value}")
        self.threshold, self.min_kept = float(threshold), float(min_kept)

    def measure(self, shares, logits, known, weights):
        """See the class."""
        probability = ops.sum(shares * probabilities(logits), axis=-1)
        hard = self.is_hard(ops.stop_gradient(probability), known)
        return weighted_mean(self.call(shares, logits), weights * hard, known * hard)

    def is_hard(self, probability, known):
        """(B, h, w) float32, 1 for pixels that are hard enough.

        Args:
            probability: (B, h, w) float32 in [0, 1], of the true class.
            known: (B, h, w) float32, how much of a pixel is not void.
        """
        # Void is never below a limit.
        probability = ops.where(known > 0, probability, 2.0)
        needed = ops.ceil(self.min_kept * ops.sum(known))

        def halve(_, limits):
            middle = ops.mean(limits)
            count = ops.sum(ops.cast(probability <= middle, "float32"))
            enough = ops.stack([count < needed, count >= needed])
            return ops.where(enough, middle, limits)

        limits = ops.convert_to_tensor([0.0, 1.0])
        limit = ops.fori_loop(0, _BISECTIONS, halve, limits)[1]
        hard = ops.logical_or(probability < self.threshold, probability <= limit)
        return ops.cast(hard, "float32")

    def get_config(self):
        """The constructor's arguments."""
        return {
            **super().get_config(),
            "threshold": self.threshold,
            "min_kept": self.min_kept,
        }


def probabilities(logits):
    """Softmax of logits (..., K), by way of its logarithm.

    A cross-entropy beside it needs that, forwards and backwards, and the compilers of
    graphs then make it once for both.
    """
    return ops.exp(ops.log_softmax(logits, axis=-1))


def weighted_mean(values, weights, counted):
    """sum(values * weights) / sum(counted), () float32; 0 where nothing counts."""
    return ops.sum(values * weights) / ops.maximum(ops.sum(counted), EPSILON)
