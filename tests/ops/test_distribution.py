"""Distances as distributions: a distance spread over bins comes back."""

import keras
import numpy as np

from visionkit.ops.distribution import distance_shares, expected_distances


def test_a_distance_lies_on_its_two_nearest_bins():
    shares = keras.ops.convert_to_numpy(distance_shares([3.25, 0.0, 15.0, 99, -2], 16))
    np.testing.assert_allclose(shares.sum(-1), 1)
    np.testing.assert_allclose(shares[0, 3:5], [0.75, 0.25])
    assert [int(row.argmax()) for row in shares[1:]] == [0, 15, 15, 0]


def test_the_expectation_of_the_shares_is_the_distance():
    distances = np.random.default_rng(0).uniform(0, 15, (2, 7, 4)).astype("float32")
    shares = keras.ops.convert_to_numpy(distance_shares(distances, 16))
    logits = np.log(np.maximum(shares, 1e-12)).reshape(2, 7, 64)
    back = keras.ops.convert_to_numpy(expected_distances(logits, 16))
    np.testing.assert_allclose(back, distances, atol=1e-4)
