"""Batch normalisation folded into the convolutions before it."""

import keras
import numpy as np
import pytest
from keras import layers

tf = pytest.importorskip("tensorflow")
folding = pytest.importorskip("visionkit.serving.folding")

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="exports are TensorFlow's"
)

CONVOLUTIONS = {
    "conv": lambda: layers.Conv2D(6, 3, use_bias=False),
    "with bias": lambda: layers.Conv2D(6, 3, 2, bias_initializer="normal"),
    "grouped": lambda: layers.Conv2D(8, 3, groups=2, use_bias=False),
    "depthwise": lambda: layers.DepthwiseConv2D(3, depth_multiplier=2),
    "transposed": lambda: layers.Conv2DTranspose(6, 2, 2, use_bias=False),
    "separable": lambda: layers.SeparableConv2D(6, 3, use_bias=False),
    "dense": lambda: layers.Dense(6, bias_initializer="normal"),
}


class Inside(layers.Layer):
    """A layer that holds others."""

    def __init__(self, *steps):
        super().__init__()
        self.steps = keras.Sequential(steps)

    def call(self, x):
        return self.steps(x)


def norm(**kwargs):
    """A batch normalisation that has seen something."""
    return layers.BatchNormalization(
        beta_initializer="normal",
        gamma_initializer=keras.initializers.RandomUniform(-2, 2),
        moving_mean_initializer="normal",
        moving_variance_initializer=keras.initializers.RandomUniform(0.1, 2),
        **kwargs,
    )


def built(steps):
    """A functional model of what `steps` makes of its input."""
    inputs = keras.Input((8, 8, 4))
    return keras.Model(inputs, steps(inputs))


def answers_with_and_without(model):
    x = np.random.default_rng(0).normal(size=(2, 8, 8, 4)).astype("float32")
    before = np.asarray(model(x, training=False))
    weights = model.get_weights()
    with folding.folded_norms(model):
        inside = np.asarray(model(x, training=False))
    np.testing.assert_array_equal(model(x, training=False), before)
    for old, new in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    return before, inside


@pytest.mark.parametrize("nest", [False, True], ids=["plain", "nested"])
@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_a_norm_is_folded_and_nothing_else_changes(kind, nest):
    """The same answers, without the normalisation, and the model as it was."""
    steps = [CONVOLUTIONS[kind](), norm(), layers.ReLU(6)]
    model = built(Inside(*steps) if nest else keras.Sequential(steps))
    assert len(folding.find_pairs(model)) == 1
    before, inside = answers_with_and_without(model)
    assert before.std() > 0.1
    np.testing.assert_allclose(inside, before, atol=1e-5)
    with folding.folded_norms(model):
        traced = tf.function(lambda x: model(x, training=False), autograph=False)
        graph = traced.get_concrete_function(tf.TensorSpec((None, 8, 8, 4))).graph
    assert not [op.name for op in graph.get_operations() if op.type == "Rsqrt"]


@pytest.mark.parametrize(
    "settings", [{"scale": False}, {"center": False}, {"axis": 3}], ids=str
)
def test_norms_of_any_settings(settings):
    """A channels' axis counted from the front; without gamma or beta."""
    model = built(keras.Sequential([layers.Conv2D(6, 3), norm(**settings)]))
    assert len(folding.find_pairs(model)) == 1
    before, inside = answers_with_and_without(model)
    np.testing.assert_allclose(inside, before, atol=1e-5)


def _read_twice(x):
    x = layers.Conv2D(4, 3)(x)
    return norm()(x) + x


def _two_norms(x):
    convolution = layers.Conv2D(4, 3)
    return norm()(convolution(x)) + norm()(convolution(x))


def _two_convolutions(x):
    shared = norm()
    shared.build((None, 6, 6, 4))
    return shared(layers.Conv2D(4, 3)(x)) + shared(layers.Conv2D(4, 3)(x))


def _activated(x):
    return norm()(layers.Conv2D(4, 3, activation="relu")(x))


def _before(x):
    return layers.Conv2D(4, 3)(norm()(x))


def _rows(x):
    return norm(axis=1)(layers.Conv2D(4, 3)(x))


def _in_half_precision(x):
    return norm(dtype="mixed_bfloat16")(layers.Conv2D(4, 3, dtype="mixed_bfloat16")(x))


def _with_lora(x):
    convolution = layers.Conv2D(4, 3)
    convolution.build(x.shape)
    convolution.enable_lora(2)
    return norm()(convolution(x))


LEFT = [
    _read_twice,
    _two_norms,
    _two_convolutions,
    _activated,
    _before,
    _rows,
    _in_half_precision,
    _with_lora,
]


@pytest.mark.parametrize("steps", LEFT)
def test_what_cannot_be_folded_is_left(steps):
    """A normalisation that is not one convolution's alone stays what it is."""
    model = built(steps)
    assert folding.find_pairs(model) == []
    before, inside = answers_with_and_without(model)
    np.testing.assert_array_equal(inside, before)


def test_a_shared_pair_is_folded_once():
    """A head that the levels share, convolution and normalisation together."""
    tower = keras.Sequential([layers.Conv2D(4, 3), norm(), layers.ReLU()])
    model = built(lambda x: tower(x) + tower(x * 2))
    assert len(folding.find_pairs(model)) == 1
    before, inside = answers_with_and_without(model)
    np.testing.assert_allclose(inside, before, atol=1e-5)


def test_a_norm_that_is_never_called_and_settings_that_cannot_be_read_back():
    """What the folded layer does not need shall not keep a model from its export."""
    inside = Inside(
        layers.Conv2D(4, 3, kernel_initializer=lambda shape, dtype: np.ones(shape)),
        norm(),
    )
    inside.spare = layers.BatchNormalization()
    model = built(inside)
    assert len(folding.find_pairs(model)) == 1
    before, folded = answers_with_and_without(model)
    np.testing.assert_allclose(folded, before, atol=1e-4)
