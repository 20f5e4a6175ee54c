"""Strides that become dilation: same weights, same features on the coarse grid."""

import keras
import numpy as np
import pytest

from visionkit.backbones import build_backbone
from visionkit.backbones.weights import layer_variables, load_layers


def _random_values(model, seed=0):
    """Values for all layers under which nothing is the identity, all of order one."""
    rng = np.random.default_rng(seed)
    stored = {}
    for name, variables in layer_variables(model).items():
        stored[name] = {}
        for key, variable in variables.items():
            shape = variable.shape
            if len(shape) == 4:
                fan_in = shape[0] * shape[1] * (shape[2] if shape[3] > 1 else 1)
                value = rng.normal(0, (2 / fan_in) ** 0.5, shape)
            elif len(shape) == 2:
                value = rng.normal(0, (2 / shape[0]) ** 0.5, shape)
            elif "gamma" in variable.path or "variance" in variable.path:
                value = rng.uniform(0.5, 1.5, shape)
            else:
                value = rng.normal(0, 0.3, shape)
            stored[name][key] = value
    return stored


def _grid_start(size, stride, output_stride, symmetric):
    """Where the undilated grid starts: `same` on an even size begins one pixel late."""
    start, rate = 0, 1
    for level_stride in range(0, 10):
        level_stride = 2**level_stride
        if output_stride <= level_stride < stride:
            length = -(-size // level_stride)
            start += rate * (0 if symmetric else 1 - length % 2)
            rate *= 2
    return start


SLOW = pytest.mark.slow


@pytest.mark.parametrize("size", [(64, 96), pytest.param((75, 101), marks=SLOW)])
@pytest.mark.parametrize(
    ("name", "symmetric", "output_strides"),
    [
        ("mobilenet_v2_035", False, (16, 8)),
        ("resnet18", True, (16, 8)),
        pytest.param("mobilenet_v1_025", False, (16, 8), marks=SLOW),
        pytest.param("shufflenet_v2_050", True, (16, 8), marks=SLOW),
        pytest.param("resnet50", True, (16, 8), marks=SLOW),
        pytest.param("resnet50_v2", True, (16, 8), marks=SLOW),
        pytest.param("convnext_tiny", True, (16, 8), marks=SLOW),
        pytest.param("densenet121", True, (16,), marks=SLOW),
        pytest.param("vgg16", True, (16,), marks=SLOW),
        pytest.param("inception_resnet_v2", False, (16,), marks=SLOW),
    ],
)
def test_dilated_features_contain_the_undilated_ones(
    name, symmetric, output_strides, size
):
    plain = build_backbone(name)
    stored = _random_values(plain)
    load_layers(plain, stored, "random")
    images = np.random.default_rng(1).integers(0, 256, (1, *size, 3), dtype="uint8")
    expected = plain.predict_on_batch(images)
    for output_stride in output_strides:
        dilated = build_backbone(name, output_stride=output_stride)
        load_layers(dilated, stored, "random")
        features = dilated.predict_on_batch(images)
        for level, value in expected.items():
            stride = 2 ** int(level[1:])
            actual = min(stride, output_stride)
            assert features[level].shape[1:3] == tuple(-(-s // actual) for s in size)
            step = stride // actual
            rows, columns = (
                slice(_grid_start(s, stride, output_stride, symmetric), None, step)
                for s in size
            )
            scale = np.abs(value).max()
            sampled = features[level][:, rows, columns]
            np.testing.assert_allclose(sampled / scale, value / scale, atol=1e-4)
            if step > 1:  # the denser map is more than the coarse one repeated
                other = np.roll(features[level], 1, axis=2)[:, rows, columns]
                assert np.abs(other - value).max() > 0.01 * scale


def test_dilated_rates_follow_the_lost_strides():
    backbone = build_backbone("resnet18", output_stride=8)
    rates = {
        layer.name: layer.dilation_rate[0]
        for layer in backbone.layers
        if hasattr(layer, "dilation_rate")
    }
    # The layer that lost its stride keeps the old rate, the next has the new one.
    assert rates["conv3_block1_1_conv"] == rates["conv4_block1_1_conv"] == 1
    assert rates["conv4_block1_2_conv"] == rates["conv5_block1_1_conv"] == 2
    assert rates["conv5_block1_2_conv"] == 4
    assert rates["conv5_block1_0_conv"] == 1


@pytest.mark.parametrize(
    ("name", "layer"),
    [("vgg16", "block5_pool"), ("densenet121", "pool4_pool")],
)
def test_pooling_that_cannot_dilate_is_refused(name, layer):
    with (
        keras.StatelessScope(initialize_variables=False),
        pytest.raises(ValueError, match=rf"{layer}.* of 16 or more"),
    ):
        build_backbone(name, output_stride=8)
    keras.utils.clear_session()
