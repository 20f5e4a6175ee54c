"""SSD's added levels: sizes as published, normalisation, counts."""

import keras
import numpy as np
import pytest

from visionkit.necks import SSDExtra
from visionkit.necks.ssd_extra import (
    SSD300_EXTRA,
    SSD512_EXTRA,
    SSDLITE_EXTRA,
    L2Normalization,
)


def build(sizes, channels, levels=("P3", "P4"), **options):
    neck = SSDExtra(levels, **options)
    inputs = {
        level: keras.Input((*size, c))
        for level, size, c in zip(levels, sizes, channels, strict=True)
    }
    return neck, neck(inputs)


def trainable(layer):
    return sum(int(np.prod(w.shape)) for w in layer.trainable_weights)


@pytest.mark.parametrize(
    ("extra", "sizes", "expected", "count"),
    [
        (SSD300_EXTRA, (38, 19), [38, 19, 10, 5, 3, 1], 2_459_520),
        (SSD512_EXTRA, (64, 32), [64, 32, 16, 8, 4, 2, 1], 3_016_960),
    ],
)
def test_levels_have_the_published_sizes_and_counts(extra, sizes, expected, count):
    neck, outputs = build([(s, s) for s in sizes], (512, 1024), extra=extra)
    assert [x.shape[1:3] for x in outputs.values()] == [(s, s) for s in expected]
    assert list(outputs) == [f"P{i}" for i in range(3, 3 + len(expected))]
    assert trainable(neck) == count
    neck, _ = build([(s, s) for s in sizes], (512, 1024), extra=extra, normalize=True)
    assert trainable(neck) == count + 512


def test_last_kernel_of_ssd512_sees_all_four_pixels_and_one_of_padding():
    neck, _ = build([(64, 64), (32, 32)], (8, 8), extra=SSD512_EXTRA)
    last = neck.added["P9"][-1]
    x = np.random.default_rng(0).normal(size=(1, 2, 2, 128)).astype("float32")
    kernel, bias = last.get_weights()
    padded = np.pad(x[0], [(1, 1), (1, 1), (0, 0)])
    expected = np.maximum(np.einsum("hwi,hwio->o", padded, kernel) + bias, 0)
    np.testing.assert_allclose(last(x)[0, 0, 0], expected, atol=1e-4)


def test_separable_levels_halve_a_non_square_image():
    neck, outputs = build(
        [(15, 20), (8, 10)],
        (24, 32),
        levels=("P4", "P5"),
        extra=SSDLITE_EXTRA,
        separable=True,
    )
    sizes = [(15, 20), (8, 10), (4, 5), (2, 3), (1, 2), (1, 1)]
    assert [x.shape[1:3] for x in outputs.values()] == sizes
    count, inside = 0, 32
    for filters, kernel, _, _ in SSDLITE_EXTRA:
        half = filters // 2
        count += inside * half + 2 * half  # 1x1 and its normalisation
        count += kernel**2 * half + 2 * half  # depthwise
        count += half * filters + 2 * filters
        inside = filters
    assert trainable(neck) == count


def test_only_the_first_level_is_normalised_and_added_ones_follow_the_last():
    neck, _ = build(
        [(6, 9), (3, 5)], (4, 6), extra=((8, 3, 2, "same"),), normalize=True
    )
    rng = np.random.default_rng(1)
    pyramid = {
        "P3": rng.normal(size=(2, 6, 9, 4)).astype("float32") * 300,
        "P4": rng.normal(size=(2, 3, 5, 6)).astype("float32"),
    }
    outputs = neck(pyramid)
    lengths = np.linalg.norm(outputs["P3"], axis=-1)
    np.testing.assert_allclose(lengths, 20.0, rtol=1e-4)
    np.testing.assert_array_equal(outputs["P4"], pyramid["P4"])
    first, second = neck.added["P5"]
    np.testing.assert_allclose(outputs["P5"], second(first(pyramid["P4"])), atol=1e-5)
    assert outputs["P5"].shape == (2, 2, 3, 8)


def test_normalisation_of_zeros_is_zero_with_a_finite_gradient():
    import tensorflow as tf

    layer = L2Normalization()
    x = tf.zeros((1, 2, 3, 4))
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = tf.reduce_sum(layer(x))
    assert not np.any(layer(x)) and np.isfinite(tape.gradient(y, x)).all()


def test_half_precision_is_normalised_in_single():
    layer = L2Normalization(dtype="mixed_bfloat16")
    x = np.full((1, 1, 1, 1000), 3.0, "float32")
    y = layer(x)
    assert keras.backend.standardize_dtype(y.dtype) == "bfloat16"
    expected = 20 / np.sqrt(1000)
    np.testing.assert_allclose(keras.ops.cast(y, "float32"), expected, rtol=1e-2)
    assert layer.scale.dtype == "float32"


def test_saved_and_loaded_it_gives_the_same(tmp_path):
    for separable in (False, True):
        shapes = {"P3": (6, 9, 4), "P4": (3, 5, 6)}
        inputs = {name: keras.Input(shape, name=name) for name, shape in shapes.items()}
        neck = SSDExtra(extra=((8, 3, 2, "same"),), normalize=True, separable=separable)
        model = keras.Model(inputs, neck(inputs))
        model.save(tmp_path / "neck.keras")
        again = keras.saving.load_model(tmp_path / "neck.keras")
        rng = np.random.default_rng(0)
        x = {k: rng.normal(size=(2, *v)) for k, v in shapes.items()}
        for a, b in zip(
            keras.tree.flatten(model.predict_on_batch(x)),
            keras.tree.flatten(again.predict_on_batch(x)),
            strict=True,
        ):
            np.testing.assert_array_equal(a, b)


def test_images_too_small_for_the_published_levels_are_refused():
    with pytest.raises(
        ValueError, match=r"P7 is an unpadded convolution of 2x5.*extra"
    ):
        build([(16, 38), (8, 19)], (4, 4), extra=SSD300_EXTRA)
