"""Strides that become dilation: same weights, same features on the coarse grid."""

import keras
import numpy as np
import pytest

from visionkit.backbones import build_backbone
from visionkit.backbones.atrous import multi_grid, with_output_stride
from visionkit.backbones.weights import layer_variables, load_layers


@pytest.fixture
def without_values():
    with keras.StatelessScope(initialize_variables=False):
        yield
    keras.utils.clear_session()


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
def test_pooling_that_cannot_dilate_is_refused(name, layer, without_values):
    with pytest.raises(ValueError, match=rf"{layer}.* of 16 or more"):
        build_backbone(name, output_stride=8)


def _rates(backbone, stage="conv5"):
    return [
        layer.dilation_rate[0]
        for layer in backbone.layers
        if layer.name.startswith(stage) and getattr(layer, "kernel_size", (1,))[0] > 1
    ]


@pytest.mark.parametrize(
    ("name", "grid", "rates"),
    [
        ("resnet50", (1, 2, 4), (1, 2, 4)),
        ("resnet50_v2", (1, 2, 4), (1, 2, 4)),
        # The very first convolution loses its stride and keeps the rate before it.
        ("resnet18", (1, 2), (0.5, 1, 2, 2)),
    ],
)
def test_a_multi_grid_multiplies_the_rates_of_the_last_stage(
    name, grid, rates, without_values
):
    """DeepLab V3, section 3.2.1; at 32, which it does not treat, the rate is 1."""
    plain = build_backbone(name, output_stride=16)
    for stride, rate in ((16, 2), (8, 4), (32, 1)):
        backbone = build_backbone(name, output_stride=stride, multi_grid=list(grid))
        assert _rates(backbone) == [max(1, int(rate * r)) for r in rates]
        assert set(_rates(backbone, "conv3")) == {1}
        assert multi_grid(backbone) == grid
        names = {x.name: x.count_params() for x in backbone.layers if x.weights}
        assert names == {x.name: x.count_params() for x in plain.layers if x.weights}
    assert multi_grid(plain) == (1,) * len(grid)


def test_a_multi_grid_stays_at_another_output_stride_and_in_a_file(tmp_path):
    coarse = build_backbone("resnet18", output_stride=16, multi_grid=(1, 2))
    stored = _random_values(coarse)
    load_layers(coarse, stored, "random")
    coarse.save(tmp_path / "coarse.keras")
    loaded = keras.saving.load_model(tmp_path / "coarse.keras")
    fine = with_output_stride(loaded, 8)
    assert _rates(loaded) == [1, 2, 4, 4] and _rates(fine) == [2, 4, 8, 8]
    images = np.random.default_rng(1).integers(0, 256, (1, 64, 96, 3), dtype="uint8")
    expected, same, finer = (m(images)["P5"].numpy() for m in (coarse, loaded, fine))
    np.testing.assert_array_equal(same, expected)
    scale = np.abs(expected).max()
    sampled = finer[:, ::2, ::2]
    np.testing.assert_allclose(sampled / scale, expected / scale, atol=1e-4)
    plain = build_backbone("resnet18", output_stride=16)
    load_layers(plain, stored, "random")
    assert np.abs(plain(images)["P5"].numpy() - expected).max() > 0.01 * scale


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("mobilenet_v2", {"multi_grid": (1, 2, 4)}, "resnet18, resnet34, .*for mobile"),
        ("keras_cv.resnet_50", {"multi_grid": (1, 2, 4)}, "resnet50, resnet101"),
        ("resnet18", {"multi_grid": (1, 2, 4)}, r"be 2 positive .* as \(1, 2\)"),
        ("resnet50", {"multi_grid": (1, 2)}, r"be 3 positive .* as \(1, 2, 4\)"),
        ("resnet50", {"multi_grid": (1, 0, 4)}, "3 positive integers"),
        ("resnet50", {"multi_grid": 2}, "3 positive integers"),
        ("resnet18", {"multi_grid": (2, 4)}, "conv5_block1_1_conv has a stride"),
    ],
)
def test_multi_grids_that_cannot_be_are_refused(name, options, message, without_values):
    with pytest.raises(ValueError, match=message):
        build_backbone(name, **options)
