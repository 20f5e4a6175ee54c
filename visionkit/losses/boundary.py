"""The loss of how far wrong pixels are from the boundary of their region."""

from __future__ import annotations

import keras
from keras import ops

from visionkit.losses.pixels import PixelLoss, probabilities, weighted_mean


@keras.saving.register_keras_serializable(package="visionkit")
class BoundaryLoss(PixelLoss):
    """Probabilities times signed distances to the true boundary (Kervadec et al. 2019).

    Mean over the valid pixels of sum(p * distance) over the classes; see
    `signed_distances`. It is negative for good answers, and unlike the paper's its
    distances end at `max_distance`, since their cost on the device grows with it. The
    paper adds it to a loss of regions, with a weight that grows from 0.01: it alone is
    easily stuck where nothing is found.

    Shares count as their largest class. Sample weights multiply the pixels, and the
    mean is still by their number.

    Args:
        max_distance: Pixels of the model's input.
        class_weights: Factor of each class's term.
        name: Name in the logs.
    """

    hard = True

    def __init__(self, max_distance=20, class_weights=None, name="boundary"):
        super().__init__(class_weights, name=name)
        if max_distance != int(max_distance) or max_distance < 1:
            raise ValueError(
                "`max_distance` must be a whole number of pixels, at least 1. "
                f"Received: max_distance={max_distance}"
            )
        self.max_distance = int(max_distance)

    def measure(self, shares, logits, known, weights):
        """See the class."""
        distance = ops.stop_gradient(signed_distances(shares, self.max_distance))
        terms = probabilities(logits) * distance
        terms = terms * self.weights(logits.shape[-1])
        return weighted_mean(ops.sum(terms, axis=-1), weights, known)

    def get_config(self):
        """The constructor's arguments."""
        return {**super().get_config(), "max_distance": self.max_distance}


def signed_distances(classes, limit: int):
    """How far each pixel is from the boundary of each class's region.

    Outside of the region it is the distance to its nearest pixel, inside 1 less than
    that to the nearest pixel of another class, taken as negative; as the authors
    compute it. Void belongs to no class. 0 for a class that an image does not have, and
    throughout an image of one class: there is no boundary.

    Args:
        classes: (B, h, w, K) float32, 1 for the class of the pixel, all 0 where void.
        limit: Pixels, at least 1: larger distances to a pixel count as this.

    Returns:
        (B, h, w, K) float32, pixels, in [1 - limit, limit].
    """
    own = classes > 0
    outside = distances(classes, limit)
    # The nearest pixel of another class: of one of them it is the nearest.
    others = ops.where(own, float(limit), outside)
    inside = 1.0 - ops.min(others, axis=-1, keepdims=True)
    present = ops.max(classes, axis=(1, 2), keepdims=True)
    present = present * ops.cast(
        ops.sum(present, axis=-1, keepdims=True) > 1, "float32"
    )
    return ops.where(own, inside, outside) * present


def distances(classes, limit: int):
    """Euclidean distance of each pixel to the nearest one of each class, exact.

    A square is a sum of odd numbers: where one more step away costs 1, 3, 5, ..., the
    cheapest way costs the squared distance. Rows and columns follow one another, so
    that `limit` rounds of shifts and minima suffice, on any device and without indices.

    Args:
        classes: (B, h, w, K) float32, above 0 for the pixels of the class.
        limit: Pixels; larger distances count as this.

    Returns:
        (B, h, w, K) float32.
    """
    far = float(limit**2)
    squared = ops.where(classes > 0, 0.0, far)

    def step(i, squared):
        cost = ops.cast(2 * i + 1, "float32")
        for axis in (1, 2):
            size = ops.shape(squared)[axis]
            border = [(0, 0)] * 4
            border[axis] = (1, 1)
            wide = ops.pad(squared, border, constant_values=far)
            for start in (0, 2):
                shifted = _part(wide, axis, start, size)
                squared = ops.minimum(squared, shifted + cost)
        return squared

    return ops.sqrt(ops.fori_loop(0, limit, step, squared))


def _part(x, axis: int, start: int, size):
    """Rows (axis 1) or columns (axis 2) `start` to `start + size`."""
    part = slice(start, start + size)
    return x[:, part] if axis == 1 else x[:, :, part]
