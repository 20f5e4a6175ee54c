"""Which negatives train: the hardest ones."""

from __future__ import annotations

from keras import ops


def hardest_negatives(losses, positive, negative, ratio: float = 3.0):
    """The negatives of the largest loss, `ratio` for each positive of their image.

    Liu et al. 2016 (SSD), section 2.2, "hard negative mining". An image without
    positives has none; of equal losses the first count.

    Args:
        losses: (B, A) float, what each location would cost as a negative. No gradient
            passes.
        positive: (B, A) bool.
        negative: (B, A) bool, the candidates.
        ratio: Negatives per positive, at most.

    Returns:
        (B, A) bool, a part of `negative`.
    """
    losses = ops.stop_gradient(ops.cast(losses, "float32"))
    candidates = ops.where(negative, losses, -float("inf"))
    # Unlike an argsort, top_k keeps the order of equal values on every backend.
    _, order = ops.top_k(candidates, k=ops.shape(candidates)[-1])
    rank = ops.argsort(order, axis=-1)
    positives = ops.sum(ops.cast(positive, "float32"), axis=-1, keepdims=True)
    hardest = ops.cast(rank, "float32") < ratio * positives
    return ops.logical_and(hardest, negative)
