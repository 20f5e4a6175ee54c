"""The loss that is the intersection over union itself, made continuous."""

from __future__ import annotations

import keras
from keras import ops

from visionkit.losses.pixels import EPSILON
from visionkit.losses.regions import RegionLoss


@keras.saving.register_keras_serializable(package="visionkit")
class LovaszSoftmax(RegionLoss):
    """The Lovász extension of the Jaccard loss, of softmax errors (Berman et al. 2018).

    Exact where `Jaccard` is a relaxation: on hard answers it is 1 - IoU. Shares count
    as their largest class. It sorts all pixels of the batch once per class, which makes
    it the most expensive loss here.

    Args:
        class_weights: As for `RegionLoss`.
        name: Name in the logs.
    """

    hard = True

    def __init__(self, class_weights=None, name="lovasz"):
        super().__init__(class_weights, name=name)

    def class_losses(self, shares, probability, weights, size):
        """See the class."""
        classes = shares.shape[-1]

        def by_class(x):
            return ops.transpose(ops.reshape(x, (-1, classes)))

        error = by_class(ops.abs(shares - probability))
        mass = by_class(weights * ops.ones_like(shares))
        truth = by_class(shares)
        order = ops.argsort(-ops.stop_gradient(error), axis=-1)
        truth, mass, error = (
            ops.take_along_axis(x, order, axis=-1) for x in (truth, mass, error)
        )
        # With the pixels so far, the worst ones, as mistakes: what is left of the
        # region, and how large the union is.
        left = size[:, None] - ops.cumsum(mass * truth, axis=-1)
        added = mass * (1.0 - truth)
        union = size[:, None] + ops.cumsum(added, axis=-1)
        # What each adds to 1 - left / union. Differences of neighbours among millions
        # would be little more than rounding.
        before = ops.maximum(union - added, EPSILON)
        step = ops.where(truth > 0, 1.0, left / before)
        step = step * mass / ops.maximum(union, EPSILON)
        return ops.sum(error * ops.stop_gradient(step), axis=-1)
