"""Weights for the pixels between touching objects.

Ronneberger et al., "U-Net", MICCAI 2015, equation 2.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from visionkit.data.lazy import tf
from visionkit.types import VOID_CLASS

_REACH = 4.0  # of `sigma`: from there on a weight of 10 is below 0.004


def border_weights(
    mask, weight: float = 10.0, sigma: float = 5.0, background: int = 0
) -> np.ndarray:
    """1, and on the background more the narrower the gap between two objects.

    1 + weight * exp(-(d1 + d2)**2 / (2 sigma**2)), with the distances to the nearest
    and the second nearest object. Objects are the connected regions (by their sides)
    of each class but the background. The paper adds weights of the classes, which here
    multiply: those of the loss.

    Args:
        mask: (h, w) integers, 255 = void.
        weight: w0, that of a gap of no width.
        sigma: Pixels.
        background: Its class.

    Returns:
        (h, w) float32.
    """
    objects = _objects(mask, background)
    nearest = np.full(mask.shape, np.inf, "float32")
    second = nearest.copy()
    reach = int(np.ceil(_REACH * sigma))
    for label, place in enumerate(ndimage.find_objects(objects), start=1):
        around = tuple(slice(max(0, s.start - reach), s.stop + reach) for s in place)
        distance = ndimage.distance_transform_edt(objects[around] != label)
        near = nearest[around]
        second[around] = np.minimum(second[around], np.maximum(near, distance))
        nearest[around] = np.minimum(near, distance)
    between = weight * np.exp(-((nearest + second) ** 2) / (2 * sigma**2))
    return np.where(mask == background, 1 + between, 1).astype("float32")


def _objects(mask, background: int) -> np.ndarray:
    """(h, w) int32, 1, 2, ... on the objects and 0 elsewhere."""
    objects, count = np.zeros(mask.shape, "int32"), 0
    for value in np.unique(mask):
        if value not in (background, VOID_CLASS):
            regions, found = ndimage.label(mask == value)
            objects = np.where(regions > 0, regions + count, objects)
            count += found
    return objects


def weigh_borders(dataset, weight: float = 10.0, sigma: float = 5.0, background=0):
    """A data set of (images, masks) with `border_weights` as sample weights.

    Args:
        dataset: `tf.data.Dataset` of (images, (B, h, w) integer masks).
        weight: As for `border_weights`.
        sigma: As for `border_weights`.
        background: As for `border_weights`.

    Returns:
        A `tf.data.Dataset` of (images, masks, (B, h, w) float32).

    Raises:
        ValueError: The truth is no mask of whole classes.
    """
    target = dataset.element_spec[1]
    if not isinstance(target, tf.TensorSpec) or len(target.shape) != 3:
        raise ValueError(
            "Border weights are for masks (B, h, w) of whole classes: leave `mixup` "
            f"out. Received: a target of {target}"
        )

    def of_batch(masks):
        return np.stack([border_weights(m, weight, sigma, background) for m in masks])

    @tf.autograph.experimental.do_not_convert
    def add(images, masks):
        weights = tf.numpy_function(of_batch, [masks], tf.float32)
        return images, masks, tf.ensure_shape(weights, masks.shape)

    return dataset.map(add, tf.data.AUTOTUNE, deterministic=True).prefetch(
        tf.data.AUTOTUNE
    )
