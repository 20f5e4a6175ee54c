"""Bilinear resizing against `tf.image.resize` and against its definition."""

import keras
import numpy as np
import pytest
from keras import ops

from visionkit.ops import resize
from visionkit.ops.resize import ResizeLike, resize_bilinear

tf = pytest.importorskip("tensorflow")
pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="the reference is TensorFlow's"
)

SIZES = [
    ((5, 7), (20, 28)),  # whole factors
    ((5, 7), (17, 23)),  # odd ones
    ((17, 23), (5, 7)),  # down, without antialiasing
    ((8, 9), (4, 30)),  # down and up
    ((1, 1), (6, 4)),
    ((1, 6), (3, 6)),
    ((4, 3), (1, 1)),
]


@pytest.fixture(params=["matrix", "gather"])
def way(request, monkeypatch):
    if request.param == "gather":
        monkeypatch.setattr(resize, "MAX_MATRIX", 0)
    return request.param


def drawn(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


@pytest.mark.parametrize(("old", "new"), SIZES)
def test_values_and_gradient_are_those_of_tensorflow(old, new, way):
    x, upstream = tf.constant(drawn((2, *old, 3))), drawn((2, *new, 3), 1)
    results = []
    for function in (resize_bilinear, tf.image.resize):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = function(x, new)
        results.append((y, tape.gradient(y, x, output_gradients=upstream)))
    (y, gradient), (expected_y, expected_gradient) = results
    assert y.shape == (2, *new, 3)
    np.testing.assert_allclose(y, expected_y, atol=1e-5)
    np.testing.assert_allclose(gradient, expected_gradient, atol=1e-5)


def test_one_compile_gives_the_same_values_and_gradient(way):
    """Under XLA: up by no whole factor, with a gradient."""

    def both(x, upstream):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = resize_bilinear(x, (17, 23))
        return y, tape.gradient(y, x, output_gradients=upstream)

    arguments = tf.constant(drawn((2, 5, 7, 3))), tf.constant(drawn((2, 17, 23, 3), 1))
    for compiled, plain in zip(
        tf.function(both, jit_compile=True)(*arguments), both(*arguments), strict=True
    ):
        np.testing.assert_allclose(compiled, plain, atol=1e-5)


def test_a_long_axis_is_as_exact_as_a_short_one(way):
    """A ramp is read exactly, where float32 positions would be off by 1e-4."""
    old, new = 4099, 6151
    ramp = np.arange(old, dtype="float32").reshape(1, 1, old, 1)
    centres = (np.arange(new) + 0.5) * old / new - 0.5
    y = ops.convert_to_numpy(resize_bilinear(ramp, (1, new)))[0, 0, :, 0]
    expected = np.clip(centres, 0, old - 1)
    np.testing.assert_allclose(y, expected, rtol=2e-7, atol=1e-6)


def test_dynamic_sizes_are_traced_once():
    spec = tf.TensorSpec((None, None, None, 3), tf.float32)
    traced = tf.function(
        lambda x, like: ResizeLike()(x, like), input_signature=[spec, spec]
    )
    for old, new in SIZES:
        x, like = drawn((2, *old, 3)), np.zeros((2, *new, 3), "float32")
        np.testing.assert_allclose(traced(x, like), tf.image.resize(x, new), atol=1e-5)
    assert traced.experimental_get_tracing_count() == 1


def test_half_precision_is_rounded_once_at_the_end():
    x = tf.cast(drawn((2, 5, 7, 3)), "bfloat16")
    y = resize_bilinear(x, (17, 23))
    exact = tf.image.resize(tf.cast(x, "float32"), (17, 23))
    assert y.dtype == tf.bfloat16
    np.testing.assert_allclose(tf.cast(y, "float32"), exact, rtol=2**-8, atol=1e-5)


def test_layer_of_a_dynamic_model_is_saved_and_exported(tmp_path):
    images = keras.Input((None, None, 3))
    features = keras.layers.Conv2D(4, 3, 8, "same")(images)
    model = keras.Model(images, ResizeLike(name="like")(features, images))
    assert model.output_shape == (None, None, None, 4)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    model.export(str(tmp_path / "exported"), verbose=False)
    served = tf.saved_model.load(str(tmp_path / "exported"))
    for size in ((33, 50), (64, 17)):
        x = drawn((2, *size, 3))
        expected = model(x)
        assert expected.shape == (2, *size, 4)
        np.testing.assert_allclose(again(x), expected, atol=1e-6)
        np.testing.assert_allclose(served.serve(x), expected, atol=1e-5)
