"""Distance maps against SciPy's, and the loss that multiplies them."""

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt

from visionkit.losses.boundary import BoundaryLoss, distances, signed_distances

K = 4
EYE = np.concatenate([np.eye(K), np.zeros((256 - K, K))]).astype("float32")


def scene(seed):
    """A mask (19, 33) of two rectangles of other classes, and void."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((19, 33), "uint8")
    for label in (1, 2):
        y, x = rng.integers(0, 14), rng.integers(0, 25)
        mask[y : y + 6, x : x + 9] = label
    mask[rng.random(mask.shape) < 0.05] = 255
    return mask


def expected_map(mask, limit):
    """As the paper's authors compute it, with SciPy, class by class."""
    out = np.zeros((*mask.shape, K))
    if len(set(mask.ravel()) - {255}) < 2:
        return out
    for c in set(mask.ravel()) - {255}:
        own, others = mask == c, (mask != c) & (mask != 255)
        outside = np.minimum(distance_transform_edt(~own), limit)
        inside = np.minimum(distance_transform_edt(~others), limit) - 1
        out[..., c] = np.where(own, -inside, outside)
    return out


@pytest.mark.parametrize("limit", [3, 50])
def test_distances_equal_scipys_up_to_the_limit(limit):
    masks = np.stack([scene(seed) for seed in range(4)])
    masks = np.concatenate([masks, np.full_like(masks[:1], 2)])  # without a boundary
    got = signed_distances(EYE[masks], limit)
    expected = [expected_map(mask, limit) for mask in masks]
    np.testing.assert_allclose(got, expected, atol=1e-5)
    alone = np.zeros((1, 19, 33, 1), "float32")
    alone[0, 4, 30] = 1
    square = np.hypot(*np.mgrid[-4:15, -30:3])
    np.testing.assert_allclose(
        distances(alone, limit)[0, ..., 0], np.minimum(square, limit), rtol=1e-6
    )


def test_the_loss_is_the_mean_of_probability_times_distance():
    rng = np.random.default_rng(0)
    masks = np.stack([scene(seed) for seed in (5, 6)])
    logits = rng.normal(size=(*masks.shape, K)).astype("float32")
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    weights, pixels = np.array([1, 2, 3, 4.0]), rng.random(masks.shape)
    each = (p * [expected_map(m, 7) for m in masks] * weights).sum(-1) * pixels
    known = masks != 255
    got = BoundaryLoss(7, weights)(masks, logits, pixels)
    np.testing.assert_allclose(got, each[known].sum() / known.sum(), rtol=1e-4)
    truth = BoundaryLoss()(masks, 100 * EYE[masks])
    assert truth < 0 and truth < BoundaryLoss()(masks, logits)


def test_wrong_distances_are_refused():
    with pytest.raises(ValueError, match="whole number"):
        BoundaryLoss(2.5)
