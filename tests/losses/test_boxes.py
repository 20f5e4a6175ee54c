"""Losses of detectors against NumPy and Keras, and their gradients at the edges."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from visionkit.losses.boxes import IoULoss, SigmoidFocalLoss, SmoothL1
from visionkit.ops.boxes import iou

B, A, K = 2, 7, 4


@pytest.fixture
def deltas():
    rng = np.random.default_rng(0)
    return rng.normal(size=(2, B, A, 4)).astype("float32") * 2


@pytest.fixture
def classes():
    """One-hot rows, some of them background, and logits."""
    rng = np.random.default_rng(1)
    rows = np.concatenate([np.eye(K), np.zeros((1, K))])[rng.integers(0, K + 1, (B, A))]
    logits = rng.normal(size=(B, A, K)) * 3
    return rows.astype("float32"), logits.astype("float32")


@pytest.mark.parametrize("beta", [0.0, 1 / 9, 1.0])
def test_smooth_l1_equals_numpy_and_huber(deltas, beta):
    truth, predicted = deltas
    error = np.abs(truth - predicted).astype("float64")
    expected = error
    if beta:
        expected = np.where(error < beta, error**2 / (2 * beta), error - beta / 2)
        huber = keras.losses.Huber(delta=beta, reduction=None)(truth, predicted)
        np.testing.assert_allclose(huber * 4 / beta, expected.sum(-1), rtol=1e-4)
    got = SmoothL1(beta, reduction=None)(truth, predicted)
    assert got.shape == (B, A)
    np.testing.assert_allclose(got, expected.sum(-1), rtol=1e-5)


@pytest.mark.parametrize("kind", ["iou", "giou", "diou", "ciou"])
def test_iou_loss_is_one_less_the_overlap(deltas, kind):
    truth, predicted = np.sort(deltas, axis=-1) * 30
    got = IoULoss(kind, reduction=None)(truth, predicted)
    np.testing.assert_allclose(got, 1 - iou(truth, predicted, kind), rtol=1e-5)
    np.testing.assert_allclose(IoULoss(kind)(truth, truth), 0, atol=1e-5)


def test_focal_loss_equals_numpy(classes):
    y, logits = classes
    p = 1 / (1 + np.exp(-logits.astype("float64")))
    present = -0.3 * (1 - p) ** 1.5 * np.log(p)
    absent = -0.7 * p**1.5 * np.log(1 - p)
    got = SigmoidFocalLoss(0.3, 1.5, reduction=None)(y, logits)
    assert got.shape == (B, A)
    expected = (y * present + (1 - y) * absent).sum(-1)
    np.testing.assert_allclose(got, expected, rtol=1e-4)


def test_focal_loss_equals_keras(classes):
    y, logits = classes
    peer = keras.losses.BinaryFocalCrossentropy(
        True, 0.25, 2.0, from_logits=True, reduction=None
    )
    got = SigmoidFocalLoss(reduction=None)(y, logits)
    np.testing.assert_allclose(got, peer(y, logits) * K, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_loss_and_its_gradient_are_finite_for_any_logit(gamma):
    logits = tf.Variable([[-1e4, -100.0, 0.0, 100.0, 1e4]] * 2)
    truth = np.array([[0] * 5, [1] * 5], "float32")
    with tf.GradientTape() as tape:
        loss = SigmoidFocalLoss(gamma=gamma, reduction=None)(truth, logits)
        total = tf.reduce_sum(loss)
    assert np.isfinite(loss).all()
    assert np.isfinite(tape.gradient(total, logits)).all()


def test_equal_and_empty_boxes_have_finite_gradients():
    boxes = np.array([[3, 3, 3, 3], [1, 2, 5, 6], [5, 5, 1, 1]], "float32")
    for loss in (SmoothL1(0.0), SmoothL1(1.0), IoULoss("ciou"), IoULoss("giou")):
        predicted = tf.Variable(boxes)
        with tf.GradientTape() as tape:
            value = loss(boxes, predicted)
        gradient = tape.gradient(value, predicted)
        assert np.isfinite(value) and np.isfinite(gradient).all()


@pytest.mark.parametrize(
    "loss", [SmoothL1(0.1), IoULoss("giou"), SigmoidFocalLoss()], ids=lambda x: x.name
)
def test_weights_count_anchors_and_half_precision_becomes_float32(loss, deltas):
    truth, predicted = np.abs(deltas)
    truth = (truth > 1).astype("float32") if "focal" in loss.name else truth
    config = keras.saving.serialize_keras_object(loss)
    again = keras.saving.deserialize_keras_object(config)
    assert again.get_config() == loss.get_config()
    each = type(loss).from_config({**loss.get_config(), "reduction": None})
    total = type(loss).from_config({**loss.get_config(), "reduction": "sum"})
    weights = np.zeros((B, A), "float32")
    weights[1, 2:4] = 0.5
    expected = np.sum(each(truth, predicted) * weights)
    np.testing.assert_allclose(total(truth, predicted, weights), expected, rtol=1e-5)
    half = tf.cast(predicted, "bfloat16")
    got = each(truth, half)
    assert got.dtype == tf.float32
    np.testing.assert_allclose(got, each(truth, tf.cast(half, "float32")), rtol=1e-5)


def test_wrong_options_are_refused():
    with pytest.raises(ValueError, match="`beta`"):
        SmoothL1(-1.0)
    with pytest.raises(ValueError, match="`kind`"):
        IoULoss("jaccard")
    with pytest.raises(ValueError, match="`alpha`"):
        SigmoidFocalLoss(alpha=2.0)
