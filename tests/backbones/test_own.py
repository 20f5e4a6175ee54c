"""Our own networks against other implementations of the same paper."""

import os
import re
import subprocess
import sys

import keras
import numpy as np
import pytest

from visionkit.backbones import build_backbone
from visionkit.backbones.channels import (
    ChannelShuffle,
    ChannelwiseConv2D,
    LocalResponseNormalization,
)


def _noise(*shape):
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def test_local_response_normalization_is_the_papers_formula():
    x = _noise(2, 3, 4, 7) * 50
    expected = np.empty_like(x)
    for i in range(7):
        near = x[..., max(0, i - 2) : i + 3]
        expected[..., i] = x[..., i] / (2 + 1e-4 * (near**2).sum(-1)) ** 0.75
    np.testing.assert_allclose(LocalResponseNormalization()(x), expected, rtol=1e-5)


def test_channel_shuffle_interleaves_the_halves():
    x = np.arange(6.0)[None, None, None]
    shuffled = ChannelShuffle()(x)
    np.testing.assert_array_equal(np.ravel(shuffled), [0, 3, 1, 4, 2, 5])


@pytest.mark.parametrize("dilation", [1, 2])
def test_channelwise_convolution_is_the_grouped_one(dilation):
    options = {"padding": "same", "groups": 4, "dilation_rate": dilation}
    grouped = keras.layers.Conv2D(4, 3, **options)
    channelwise = ChannelwiseConv2D(4, 3, **options)
    x = _noise(1, 5, 7, 4)
    expected = grouped(x)
    channelwise.build(x.shape)
    channelwise.set_weights([grouped.weights[0], _noise(4)])
    grouped.set_weights(channelwise.get_weights())
    np.testing.assert_allclose(channelwise(x), grouped(x), atol=1e-5)
    assert expected.shape == x.shape


def test_alexnet_halves_see_their_own_half():
    backbone = build_backbone("alexnet", (75, 101))
    images = np.random.default_rng(0).integers(0, 256, (1, 75, 101, 3), "uint8")
    taps = {x: backbone.get_layer(x).output for x in ("pool1", "conv2", "conv3")}
    before = keras.Model(backbone.input, taps).predict_on_batch(images)
    for weight in backbone.get_layer("conv2_2").weights:
        weight.assign(keras.ops.zeros(weight.shape))
    after = keras.Model(backbone.input, taps).predict_on_batch(images)
    np.testing.assert_array_equal(after["conv2"][..., :128], before["conv2"][..., :128])
    assert not after["conv2"][..., 128:].any()
    # The second convolution's offset is one at the start, the third's is zero.
    assert backbone.get_layer("conv2_1").bias.numpy().min() == 1.0
    assert np.abs(after["conv3"] - before["conv3"]).max() > 0


def test_cifar_shortcuts_take_every_second_pixel_and_pad_with_zeros():
    """Without their convolutions the blocks are their shortcuts alone."""
    backbone = build_backbone("resnet20_cifar", (33, 46))
    for layer in backbone.layers:
        if layer.name.endswith("_2_bn"):
            layer.gamma.assign(keras.ops.zeros_like(layer.gamma))
    taps = {"stem": backbone.get_layer("conv1_relu").output, **backbone.output}
    images = np.random.default_rng(0).integers(0, 256, (1, 33, 46, 3), "uint8")
    features = keras.Model(backbone.input, taps).predict_on_batch(images)
    assert features["P2"].shape == (1, 9, 12, 64)
    for level, step in (("P1", 2), ("P2", 4)):
        kept = features["stem"][:, ::step, ::step]
        np.testing.assert_array_equal(features[level][..., :16], kept)
        assert kept.any() and not features[level][..., 16:].any()


@pytest.mark.slow
def test_resnet18_is_that_of_keras_cv():
    """On sizes that are odd at every stride, where `same` padding is symmetric."""
    from visionkit.backbones.weights import layer_variables

    ours = build_backbone("resnet18", (65, 97))
    theirs = build_backbone("keras_cv.resnet_18", (65, 97))
    rng = np.random.default_rng(0)
    for name in layer_variables(theirs):
        stage = re.fullmatch(r"v2_stack_(\d)_(.*)", name)
        mine = f"conv{int(stage[1]) + 2}_{stage[2]}" if stage else name
        values = [
            rng.uniform(0.5, 1.5, w.shape) if w.ndim == 1 else w
            for w in ours.get_layer(mine).get_weights()
        ]
        ours.get_layer(mine).set_weights(values)
        theirs.get_layer(name).set_weights(values)
    images = rng.integers(0, 256, (1, 65, 97, 3)).astype("float32")
    normalize = ours.get_layer("normalization")
    expected = theirs.predict_on_batch(255 * np.asarray(normalize(images)))
    for level, value in ours.predict_on_batch(images).items():
        scale = np.abs(expected[level]).max()
        np.testing.assert_allclose(value / scale, expected[level] / scale, atol=1e-3)


def test_keras_cv_says_what_it_needs():
    code = """
import sys
sys.modules["tensorflow"] = None
from visionkit.backbones import build_backbone
try:
    build_backbone("keras_cv.resnet_18")
except ImportError as error:
    print(error)
"""
    out = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "KERAS_BACKEND": "jax"},
    )
    assert "needs the TensorFlow backend of Keras" in out.stdout, out.stderr


def test_keras_cv_that_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "keras_cv", None)
    with pytest.raises(ImportError, match=r"pip install keras-cv==0\.9\.0"):
        build_backbone("keras_cv.resnet_18")
