"""Accuracy in a training step: hard and soft labels, ties, every backend's compiler."""

import keras
import numpy as np
import pytest

from visionkit.metrics.accuracy import TopKAccuracy

SCORES = np.random.default_rng(0).normal(size=(40, 7)).astype("float32")
LABELS = np.random.default_rng(1).integers(0, 7, 40)


@pytest.mark.parametrize("k", [1, 5])
def test_accuracy_equals_numpy_for_hard_and_soft_labels(k):
    order = np.argsort(-SCORES, axis=1, kind="stable")[:, :k]
    expected = (order == LABELS[:, None]).any(1).mean()
    soft = 0.7 * np.eye(7)[LABELS] + 0.3 / 7
    for y in (LABELS, LABELS[:, None], LABELS.astype("float32"), soft):
        metric = TopKAccuracy(k)
        for part in (slice(0, 25), slice(25, 40)):
            metric.update_state(y[part], SCORES[part])
        assert float(metric.result()) == pytest.approx(expected)


def test_ties_go_to_the_lower_class_and_nan_is_wrong():
    metric = TopKAccuracy(2)
    metric.update_state(np.array([0, 1, 2]), np.zeros((3, 3)))
    assert float(metric.result()) == pytest.approx(2 / 3)
    metric.reset_state()
    metric.update_state(np.array([0]), np.full((1, 3), np.nan))
    assert float(metric.result()) == 0


def test_sample_weights_count():
    metric = TopKAccuracy()
    metric.update_state(np.array([0, 1]), np.eye(2)[[0, 0]], np.array([3.0, 1.0]))
    assert float(metric.result()) == 0.75


def test_saving_and_compiling():
    metric = TopKAccuracy(3, name="top_3")
    again = keras.metrics.deserialize(keras.metrics.serialize(metric))
    assert (again.k, again.name) == (3, "top_3")
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.function(metric.update_state, jit_compile=True)(LABELS, SCORES)
        again.update_state(LABELS, SCORES)
        assert float(metric.result()) == float(again.result())
    with pytest.raises(ValueError, match="at least 1"):
        TopKAccuracy(0)
