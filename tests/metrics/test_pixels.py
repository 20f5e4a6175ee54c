"""Scores of masks in a training step, against sets of pixels."""

import keras
import numpy as np
import pytest

from visionkit.metrics.pixels import MeanIoU, PixelAccuracy

K = 4  # of which the last is neither true nor answered
rng = np.random.default_rng(0)
LOGITS = rng.normal(size=(3, 5, 6, K)).astype("float32")
LOGITS[..., -1] = -9
MASKS = rng.integers(0, K - 1, (3, 5, 6)).astype("uint8")
MASKS[0, 2:, :4] = MASKS[2, 0] = 255
SHARES = np.concatenate([np.eye(K), np.zeros((256 - K, K))])[MASKS].astype("float32")
WEIGHTS = rng.uniform(0, 2, MASKS.shape).astype("float32")


def expected(weights):
    """(mean IoU, accuracy) from sets of pixels."""
    known, answer = MASKS != 255, LOGITS.argmax(-1)
    ious = [
        weights[known & (c == MASKS) & (answer == c)].sum()
        / weights[known & ((c == MASKS) | (answer == c))].sum()
        for c in range(K - 1)
    ]
    return np.mean(ious), weights[known & (answer == MASKS)].sum() / weights[
        known
    ].sum()


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_scores_equal_sets_of_pixels_for_both_forms_of_truth(weights):
    truth = expected(np.ones(MASKS.shape) if weights is None else weights)
    for y in (MASKS, MASKS.astype("int64"), MASKS[..., None], SHARES):
        for metric, score in zip((MeanIoU(K), PixelAccuracy()), truth, strict=True):
            for part in (slice(0, 1), slice(1, 3)):
                own = None if weights is None else weights[part]
                metric.update_state(y[part], LOGITS[part], own)
            assert float(metric.result()) == pytest.approx(score, rel=1e-5)


def test_weights_of_images():
    images = np.array([0.0, 2.0, 1.0], "float32")
    each = np.broadcast_to(images[:, None, None], MASKS.shape)
    for metric, score in zip(
        (MeanIoU(K), PixelAccuracy()), expected(each), strict=True
    ):
        metric.update_state(MASKS, LOGITS, images)
        assert float(metric.result()) == pytest.approx(score, rel=1e-5)


def test_only_answered_classes_count_as_zero_and_void_alone_scores_nothing():
    metric = MeanIoU(3)
    truth, answer = np.array([[[0, 0, 255]]]), np.array([[[0, 1, 2]]])
    metric.update_state(truth, np.eye(3, dtype="float32")[answer])
    assert float(metric.result()) == pytest.approx((0.5 + 0) / 2)
    for metric in (MeanIoU(3), PixelAccuracy()):
        assert float(metric.result()) == 0
        metric.update_state(np.full((1, 1, 3), 255), np.eye(3)[answer])
        assert float(metric.result()) == 0


def test_saving_and_compiling():
    for metric in (MeanIoU(K, name="iou"), PixelAccuracy()):
        again = keras.metrics.deserialize(keras.metrics.serialize(metric))
        assert again.get_config() == metric.get_config()
        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            tf.function(metric.update_state, jit_compile=True)(MASKS, LOGITS)
            again.update_state(MASKS, LOGITS)
            assert float(metric.result()) == pytest.approx(float(again.result()))
    with pytest.raises(ValueError, match="at least 1"):
        MeanIoU(0)
