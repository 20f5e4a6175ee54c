"""VGG-16 with its fully connected layers as convolutions: what is kept of them."""

import functools

import h5py
import keras
import numpy as np
import pytest

from visionkit.backbones import build_backbone
from visionkit.backbones.vgg_atrous import convolve, subsample

# (row, column, channel, unit) of fc1's 7x7x512 kernel: kept ones, then left out.
KEPT = [(0, 0, 0, 0), (3, 6, 511, 4), (6, 3, 17, 4092), (6, 6, 200, 2048)]
LEFT = [(1, 0, 0, 0), (3, 5, 511, 4), (6, 3, 17, 4093), (6, 6, 200, 2047)]
SHAPES = {
    "block1": [(3, 64), (64, 64)],
    "block2": [(64, 128), (128, 128)],
    "block3": [(128, 256), (256, 256), (256, 256)],
    "block4": [(256, 512), (512, 512), (512, 512)],
    "block5": [(512, 512), (512, 512), (512, 512)],
}


@pytest.fixture(scope="module")
def whole_vgg16(tmp_path_factory):
    """A file as keras.applications has it; zeros (which take no space) but for a few.

    The whole network would be 0.5 GB.
    """
    path = tmp_path_factory.mktemp("vgg") / "vgg16.h5"
    with h5py.File(path, "w") as file:
        names = []

        def add(name, kernel, bias=None):
            group = file.create_group(name)
            group.attrs["weight_names"] = [f"{name}/kernel:0", f"{name}/bias:0"]
            options = {"chunks": True, "fillvalue": 0.0}
            group.create_dataset(f"{name}/kernel:0", kernel, "float32", **options)
            group[f"{name}/bias:0"] = np.arange(kernel[-1], dtype="float32")
            names.append(name)
            return group[f"{name}/kernel:0"]

        for block, shapes in SHAPES.items():
            for i, shape in enumerate(shapes, start=1):
                add(f"{block}_conv{i}", (3, 3, *shape))
        fc1 = add("fc1", (25088, 4096))
        for value, (y, x, channel, unit) in enumerate(KEPT + LEFT, start=1):
            fc1[(y * 7 + x) * 512 + channel, unit] = value
        fc2 = add("fc2", (4096, 4096))
        fc2[8, 12], fc2[9, 12], fc2[8, 13] = 1.0, 2.0, 3.0
        add("predictions", (4096, 1000))
        file.attrs["layer_names"] = names
    return path


def test_file_of_the_whole_network_fills_fc6_and_fc7(whole_vgg16):
    backbone = build_backbone("vgg16_atrous", weights=whole_vgg16)
    kernel, bias = backbone.get_layer("fc6").get_weights()
    assert kernel.shape == (3, 3, 512, 1024)
    for value, (y, x, channel, unit) in enumerate(KEPT, start=1):
        assert kernel[y // 3, x // 3, channel, unit // 4] == value
    assert np.count_nonzero(kernel) == len(KEPT)
    np.testing.assert_array_equal(bias, np.arange(0, 4096, 4))
    kernel, bias = backbone.get_layer("fc7").get_weights()
    assert kernel.shape == (1, 1, 1024, 1024)
    assert kernel[0, 0, 2, 3] == 1 and np.count_nonzero(kernel) == 1
    np.testing.assert_array_equal(bias, np.arange(0, 4096, 4))
    bias = backbone.get_layer("block5_conv3").get_weights()[1]
    np.testing.assert_array_equal(bias, np.arange(512))


def test_subsampled_layers_answer_as_the_whole_ones_on_what_is_kept():
    """Where fc1 weighs only the kept places, fc6 at the centre is fc1, unit by unit."""
    rng = np.random.default_rng(0)
    fc1 = np.zeros((7, 7, 512, 4096), "float32")
    fc1[::3, ::3, :8] = rng.normal(size=(3, 3, 8, 4096))
    bias = rng.normal(size=4096).astype("float32")
    stored = {
        "fc1": {"0": fc1.reshape(25088, 4096), "1": bias},
        "fc2": {"0": np.eye(4096, dtype="float32"), "1": bias},
    }
    fc6 = subsample(stored)["fc6"]
    features = rng.normal(size=(1, 7, 7, 512)).astype("float32")
    expected = features.reshape(1, -1) @ stored["fc1"]["0"] + bias
    conv = keras.layers.Conv2D(1024, 3, padding="same", dilation_rate=3)
    conv.build(features.shape)
    conv.set_weights([fc6["0"], fc6["1"]])
    np.testing.assert_allclose(conv(features)[0, 3, 3], expected[0, ::4], atol=1e-3)


def test_whole_layers_as_convolutions_answer_as_the_dense_ones():
    """fc6 at the centre of 7x7 positions is fc1, fc7 is fc2 at every position."""
    rng = np.random.default_rng(0)
    fc1 = np.zeros((25088, 4096), "float32")
    fc1[:, :5] = rng.normal(size=(25088, 5))
    bias = rng.normal(size=4096).astype("float32")
    fc2 = rng.normal(size=(4096, 4096)).astype("float32")
    stored = {name: {"0": x, "1": bias} for name, x in (("fc1", fc1), ("fc2", fc2))}
    stored |= {"block1_conv1": {"0": fc2}, "predictions": {"0": fc2}}
    layers = convolve(stored)
    assert set(layers) == {"block1_conv1", "fc6", "fc7"}
    features = rng.normal(size=(1, 7, 7, 512)).astype("float32")
    expected = features.reshape(1, -1) @ fc1 + bias
    conv = keras.layers.Conv2D(5, 7, padding="same")
    conv.build(features.shape)
    conv.set_weights([layers["fc6"]["0"][..., :5], layers["fc6"]["1"][:5]])
    np.testing.assert_allclose(conv(features)[0, 3, 3], expected[0, :5], atol=1e-2)
    assert layers["fc7"]["0"].shape == (1, 1, 4096, 4096)
    np.testing.assert_array_equal(layers["fc7"]["0"][0, 0], fc2)
    assert convolve({"block1_conv1": {"0": fc2}}).keys() == {"block1_conv1"}


@pytest.mark.slow
def test_file_of_the_whole_network_fills_the_fully_convolutional_one(whole_vgg16):
    backbone = build_backbone("vgg16_fcn", weights=whole_vgg16, freeze=("P4",))
    kernel, bias = backbone.get_layer("fc6").get_weights()
    for value, (y, x, channel, unit) in enumerate(KEPT + LEFT, start=1):
        assert kernel[y, x, channel, unit] == value
    assert np.count_nonzero(kernel) == len(KEPT + LEFT)
    np.testing.assert_array_equal(bias, np.arange(4096))
    kernel = backbone.get_layer("fc7").get_weights()[0]
    assert kernel[0, 0, 8, 12] == 1 and np.count_nonzero(kernel) == 3
    assert not backbone.get_layer("block4_conv3").trainable
    assert backbone.get_layer("fc6").trainable


def test_levels_of_the_fully_convolutional_one_are_its_poolings_and_fc7():
    with keras.StatelessScope(initialize_variables=False):
        backbone = build_backbone("vgg16_fcn", (75, 101))
    shapes = {level: x.shape[1:] for level, x in backbone.output.items()}
    assert shapes == {
        "P1": (38, 51, 64),
        "P2": (19, 26, 128),
        "P3": (10, 13, 256),
        "P4": (5, 7, 512),
        "P5": (3, 4, 4096),
    }
    assert backbone.output["P4"] is backbone.get_layer("block4_pool").output
    assert backbone.get_layer("fc6").kernel_size == (7, 7)
    rates = [backbone.get_layer(f"{name}_dropout").rate for name in ("fc6", "fc7")]
    assert rates == [0.5, 0.5]


def test_imagenet_comes_from_the_whole_network(monkeypatch, whole_vgg16):
    import visionkit.backbones.vgg_atrous as module

    weights = {}
    with h5py.File(whole_vgg16) as file:
        for name in file.attrs["layer_names"]:
            pair = [file[name][key][()] for key in file[name].attrs["weight_names"]]
            weights[name] = dict(zip("01", pair, strict=True))
    monkeypatch.setattr(module, "_full_imagenet", lambda: weights)
    own = module.layer_variables
    monkeypatch.setattr(
        module, "layer_variables", lambda x: x if x is weights else own(x)
    )
    backbone = build_backbone("vgg16_atrous", weights="imagenet", freeze=("P1",))
    kernel = backbone.get_layer("fc6").get_weights()[0]
    assert np.count_nonzero(kernel) == len(KEPT)
    assert not backbone.get_layer("block1_conv1").trainable


def test_imagenet_offline_names_the_way_out(monkeypatch):
    build = keras.applications.VGG16

    @functools.wraps(build)
    def offline(**options):
        if options["weights"]:
            raise Exception("URL fetch failure")
        return build(**options)

    monkeypatch.setattr(keras.applications, "VGG16", offline)
    with pytest.raises(ConnectionError, match=r"whole VGG16.*`weights=PATH`"):
        build_backbone("vgg16_atrous", weights="imagenet")


def test_file_without_the_top_is_refused_by_the_layers_it_lacks(tmp_path):
    build_backbone("vgg16").save_weights(tmp_path / "notop.weights.h5")
    with pytest.raises(ValueError, match=r"nothing was loaded(.|\n)*fc6: missing"):
        build_backbone("vgg16_atrous", weights=tmp_path / "notop.weights.h5")


def test_fc6_sees_six_pixels_far_and_the_last_pooling_keeps_the_size():
    backbone = build_backbone("vgg16_atrous", (75, 101))
    assert backbone.output["P3"].shape == (None, 10, 13, 512)
    assert backbone.output["P4"].shape == (None, 5, 7, 1024)
    assert list(backbone.output) == ["P1", "P2", "P3", "P4"]
    assert backbone.get_layer("fc6").dilation_rate == (6, 6)
    assert backbone.get_layer("block5_pool").strides == (1, 1)
