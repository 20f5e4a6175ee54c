"""Class masks in their two forms: one integer for a pixel, or a share of each class."""

from __future__ import annotations

import numpy as np
from keras import ops

from visionkit.ops.labels import is_soft
from visionkit.ops.native import first_largest
from visionkit.types import VOID_CLASS


def pixel_labels(masks, scores):
    """(B, h, w) int32: integers as they are, of shares the first of the largest.

    Args:
        masks: (B, h, w) or (B, h, w, 1) integers of any type, 255 = void, or
            (B, h, w, K) shares, all 0 where void.
        scores: (B, h, w, K), whose K counts.

    Returns:
        255 where void.
    """
    if is_soft(masks, scores):
        known = ops.any(ops.not_equal(masks, 0), axis=-1)
        masks = ops.where(known, first_largest(masks), VOID_CLASS)
    elif len(masks.shape) == len(scores.shape):
        masks = ops.squeeze(masks, -1)
    return ops.cast(masks, "int32")


def pixel_shares(masks, scores):
    """(B, h, w, K) float32 shares, all 0 where void.

    A value that is neither a class nor void gives NaN: rows of zeros would make wrong
    masks look like ignored ones.

    Args:
        masks: As for `pixel_labels`.
        scores: (B, h, w, K), whose K counts.
    """
    if is_soft(masks, scores):
        return ops.cast(masks, "float32")
    num_classes = scores.shape[-1]
    labels = pixel_labels(masks, scores)
    legal = ops.logical_and(labels >= 0, labels < num_classes)
    legal = ops.logical_or(legal, ops.equal(labels, VOID_CLASS))[..., None]
    return ops.where(legal, ops.one_hot(labels, num_classes, dtype="float32"), np.nan)


def pixel_weights(weights, labels):
    """Weights of images (B,) or pixels (B, h, w) or (B, h, w, 1) as float32.

    Args:
        weights: One of the above, or None for 1.
        labels: (B, h, w), whose rank counts.

    Returns:
        What multiplies a (B, h, w) tensor.
    """
    if weights is None:
        return 1.0
    weights = ops.cast(weights, "float32")
    rank = len(labels.shape)
    if len(weights.shape) > rank:
        return ops.squeeze(weights, -1)
    return ops.reshape(weights, ops.shape(weights) + (1,) * (rank - len(weights.shape)))
