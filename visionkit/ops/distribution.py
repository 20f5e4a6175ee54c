"""Distances as distributions over bins (Li et al. 2020, "Generalized Focal Loss")."""

from __future__ import annotations

from keras import ops


def expected_distances(logits, bins: int):
    """What a distribution means: its expectation.

    Args:
        logits: (..., sides * bins); bin i stands for the distance i.
        bins: Bins of each side.

    Returns:
        (..., sides) float32 in [0, bins - 1].
    """
    logits = ops.cast(logits, "float32")
    shape = (*ops.shape(logits)[:-1], logits.shape[-1] // bins, bins)
    share = ops.softmax(ops.reshape(logits, shape), axis=-1)
    return ops.sum(share * ops.arange(bins, dtype="float32"), axis=-1)


def distance_shares(distances, bins: int):
    """The distribution on the two nearest bins whose expectation is the distance.

    Args:
        distances: (...,), cut at 0 and bins - 1.
        bins: Bins of each side.

    Returns:
        (..., bins) float32, summing to 1.
    """
    distances = ops.clip(ops.cast(distances, "float32"), 0.0, bins - 1.0)
    away = ops.abs(distances[..., None] - ops.arange(bins, dtype="float32"))
    return ops.relu(1.0 - away)
