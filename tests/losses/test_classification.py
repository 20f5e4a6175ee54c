"""Losses of classifiers against NumPy, with hard and soft labels, in any precision."""

import keras
import numpy as np
import pytest

from visionkit.losses.classification import (
    SigmoidCrossentropy,
    SigmoidFocal,
    SoftmaxCrossentropy,
    SoftmaxFocal,
)

K = 4
LABELS = np.array([0, 3, 1, 1, 2])
WEIGHTS = [0.5, 2.0, 1.0, 3.0]


@pytest.fixture
def logits():
    return np.random.default_rng(1).normal(size=(5, K)).astype("float32") * 2


@pytest.fixture
def many():
    return np.random.default_rng(2).integers(0, 2, (5, K)).astype("float32")


def log_softmax(x):
    x = x.astype("float64")
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def sigmoid(x):
    return 1 / (1 + np.exp(-x.astype("float64")))


def mixed(labels, share=0.3):
    """Soft labels as MixUp makes them."""
    hard = np.eye(K)[labels]
    return ((1 - share) * hard + share * hard[::-1]).astype("float32")


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("soft", [False, True])
def test_softmax_crossentropy_equals_numpy(logits, soft, smoothing, weights):
    y = mixed(LABELS) if soft else np.eye(K)[LABELS]
    target = y * (1 - smoothing) + smoothing / K
    expected = -(target * log_softmax(logits)).sum(-1)
    expected = expected * (y @ (weights or np.ones(K)))
    loss = SoftmaxCrossentropy(smoothing, weights, reduction=None)
    np.testing.assert_allclose(loss(y, logits), expected, rtol=1e-5)
    if not soft:
        for labels in (LABELS, LABELS[:, None], LABELS.astype("uint8")):
            np.testing.assert_allclose(loss(labels, logits), expected, rtol=1e-5)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_softmax_focal_equals_numpy_and_keras(logits, gamma, weights):
    y, log_p = mixed(LABELS), log_softmax(logits)
    expected = -(y * 0.4 * (1 - np.exp(log_p)) ** gamma * log_p).sum(-1)
    expected = expected * (y @ (weights or np.ones(K)))
    loss = SoftmaxFocal(gamma, 0.4, class_weights=weights, reduction=None)
    np.testing.assert_allclose(loss(y, logits), expected, rtol=1e-5)
    if weights is None:
        peer = keras.losses.CategoricalFocalCrossentropy(
            0.4, gamma, from_logits=True, reduction=None
        )
        np.testing.assert_allclose(loss(y, logits), peer(y, logits), rtol=1e-4)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_sigmoid_crossentropy_equals_numpy_and_keras(logits, many, smoothing, weights):
    p, y = sigmoid(logits), many * (1 - smoothing) + smoothing / 2
    positive = y * np.log(p) * (weights or np.ones(K))
    expected = -(positive + (1 - y) * np.log(1 - p)).mean(-1)
    loss = SigmoidCrossentropy(smoothing, weights, reduction=None)
    np.testing.assert_allclose(loss(many, logits), expected, rtol=1e-5)
    if weights is None:
        peer = keras.losses.BinaryCrossentropy(
            from_logits=True, label_smoothing=smoothing, reduction=None
        )
        np.testing.assert_allclose(loss(many, logits), peer(many, logits), rtol=1e-5)


@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_sigmoid_focal_equals_numpy_and_keras(logits, many, gamma):
    p = sigmoid(logits)
    positive = many * 0.25 * (1 - p) ** gamma * np.log(p)
    absent = (1 - many) * 0.75 * p**gamma * np.log(1 - p)
    loss = SigmoidFocal(gamma, 0.25, reduction=None)
    np.testing.assert_allclose(
        loss(many, logits), -(positive + absent).mean(-1), rtol=1e-5
    )
    peer = keras.losses.BinaryFocalCrossentropy(
        True, 0.25, gamma, from_logits=True, reduction=None
    )
    np.testing.assert_allclose(loss(many, logits), peer(many, logits), rtol=1e-4)


ALL = [
    SoftmaxCrossentropy(0.1, WEIGHTS),
    SoftmaxFocal(0.5, class_weights=WEIGHTS),
    SigmoidCrossentropy(0.1, WEIGHTS),
    SigmoidFocal(0.5, class_weights=WEIGHTS),
]


@pytest.mark.parametrize("loss", ALL, ids=lambda loss: loss.name)
def test_bfloat16_and_extreme_logits_give_finite_losses_and_gradients(loss):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("the gradient is TensorFlow's here")
    import tensorflow as tf

    logits = tf.Variable([[90.0, -90, 0, 1], [-1e4, 1e4, 3, 0]], dtype="float32")
    y = np.eye(K, dtype="float32")[[0, 0]]

    def value_and_gradient(dtype):
        with tf.GradientTape() as tape:
            value = loss(y, tf.cast(logits, dtype))
        return value, tape.gradient(value, logits)

    value, gradient = value_and_gradient("bfloat16")
    assert value.dtype == tf.float32 and np.isfinite(value)
    assert np.isfinite(gradient).all()
    compiled, gradient = tf.function(value_and_gradient, jit_compile=True)("float32")
    np.testing.assert_allclose(compiled, loss(y, logits), rtol=1e-5)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("loss", ALL, ids=lambda loss: loss.name)
def test_losses_survive_saving(loss, logits):
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert type(again) is type(loss) and again.get_config() == loss.get_config()
    y = np.eye(K, dtype="float32")[LABELS]
    np.testing.assert_allclose(again(y, logits), loss(y, logits))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: SoftmaxCrossentropy(1.0), r"label_smoothing.*\[0, 1\)"),
        (lambda: SoftmaxCrossentropy(class_weights=[1, -1]), "class_weights.*least 0"),
        (lambda: SoftmaxFocal(gamma=-1), "gamma.*at least 0"),
        (lambda: SigmoidFocal(alpha=1.5), r"alpha.*\(0, 1\]"),
        (
            lambda: SoftmaxCrossentropy(class_weights=[1])(LABELS, np.ones((5, K))),
            "1 weights for 4 classes",
        ),
        (lambda: SigmoidCrossentropy()(LABELS, np.ones((5, K))), r"\(B, num_classes\)"),
    ],
)
def test_wrong_options_and_targets_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize("label", [-1, 4, 9])
def test_a_label_that_is_no_class_is_not_a_loss_of_zero(label):
    logits = np.zeros((2, 4), "float32")
    loss = SoftmaxCrossentropy()(np.array([1, label]), logits)
    assert np.isnan(float(loss))
