"""The distribution focal loss is the one of its paper."""

import keras
import numpy as np

from visionkit.losses.distribution_focal import DistributionFocalLoss


def by_loops(distances, logits, bins):
    total = 0.0
    for distance, row in zip(distances, logits.reshape(4, bins), strict=True):
        log_share = row - np.log(np.exp(row).sum())
        distance = min(max(float(distance), 0.0), bins - 1)
        left = min(int(distance), bins - 2)
        total -= (left + 1 - distance) * log_share[left]
        total -= (distance - left) * log_share[left + 1]
    return total / 4


def test_it_equals_loops_inside_and_outside_of_the_bins():
    rng = np.random.default_rng(0)
    distances = rng.uniform(-3, 18, (2, 9, 4)).astype("float32")
    logits = rng.normal(0, 3, (2, 9, 64)).astype("float32")
    loss = DistributionFocalLoss(reduction="none")(distances, logits)
    expected = [
        [by_loops(*pair, 16) for pair in zip(*image, strict=True)]
        for image in zip(distances, logits.astype(float), strict=True)
    ]
    np.testing.assert_allclose(keras.ops.convert_to_numpy(loss), expected, rtol=1e-5)


def test_its_config_makes_an_equal_one():
    loss = DistributionFocalLoss(reduction="sum")
    config = keras.saving.serialize_keras_object(loss)
    again = keras.saving.deserialize_keras_object(config)
    assert type(again) is DistributionFocalLoss and again.reduction == "sum"
