"""Weights: from keras.applications and back, and files that must not load."""

import shutil
import sys
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

from visionkit.backbones import build_backbone

MOBILENET = (
    Path(__file__).parents[2]
    / "../shared/data/weights/mobilenet_v2_1.0_224_imagenet_notop.weights.h5"
)


def _images(*shape):
    return np.random.default_rng(0).integers(0, 256, shape).astype("float32")


@pytest.fixture(scope="module")
def application():
    """MobileNetV2 of a width without a download, batch statistics drawn at random."""
    model = keras.applications.MobileNetV2(
        (64, 96, 3), alpha=0.35, include_top=False, weights=None
    )
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights(
                [rng.uniform(0.5, 1.5, v.shape) for v in layer.get_weights()]
            )
    return model


@pytest.fixture(scope="module")
def saved(application, tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    application.save_weights(folder / "net.weights.h5")
    application.save(folder / "net.keras")
    application.save(folder / "net.h5")
    # The layout of the files that keras.applications downloads, with other names.
    with h5py.File(folder / "net.h5") as old, h5py.File(folder / "old.h5", "w") as new:
        for name in old["model_weights"].attrs["layer_names"]:
            old.copy(old["model_weights"][name], new, f"mobl_{name}")
        names = [f"mobl_{n}" for n in old["model_weights"].attrs["layer_names"]]
        new.attrs["layer_names"] = names
    return folder


@pytest.mark.parametrize("file", ["net.weights.h5", "net.keras", "net.h5", "old.h5"])
def test_application_weights_give_the_application_features(application, saved, file):
    backbone = build_backbone("mobilenet_v2_035", weights=saved / file)
    images = _images(2, 64, 96, 3)
    inputs = keras.applications.mobilenet_v2.preprocess_input(images.copy())
    features = backbone.predict_on_batch(images)
    for level, layer in {"P3": "block_6_expand_relu", "P5": "out_relu"}.items():
        taps = keras.Model(application.input, application.get_layer(layer).output)
        expected = taps.predict_on_batch(inputs)
        assert np.ptp(expected) > 0.1
        np.testing.assert_allclose(features[level], expected, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "application"),
    [
        ("vgg16", "VGG16"),
        ("resnet50", "ResNet50"),
        ("resnet50_v2", "ResNet50V2"),
        ("densenet121", "DenseNet121"),
        ("mobilenet_v1_025", "MobileNet"),
        ("mobilenet_v3_small", "MobileNetV3Small"),
        ("efficientnet_v2_b0", "EfficientNetV2B0"),
        ("efficientnet_v2_s", "EfficientNetV2S"),
        ("convnext_tiny", "ConvNeXtTiny"),
    ],
)
def test_weights_of_each_family_give_the_application_features(
    name, application, tmp_path
):
    """But for the families that pad less in Keras: Inception, Xception and NASNet."""
    build = getattr(keras.applications, application)
    options = {"alpha": 0.25} if name.endswith("_025") else {}
    model = build(input_shape=(64, 96, 3), include_top=False, weights=None, **options)
    _randomise(model)
    model.save_weights(tmp_path / "net.weights.h5")
    backbone = build_backbone(name, weights=tmp_path / "net.weights.h5")
    images = _images(2, 64, 96, 3)
    module = sys.modules[build.__module__]
    expected = model.predict_on_batch(module.preprocess_input(images.copy()))
    _check_close(backbone.predict_on_batch(images)["P5"], expected)


@pytest.mark.slow
def test_efficientnet_sees_images_in_the_range_of_its_imagenet_weights(
    tmp_path, monkeypatch
):
    """Keras scales them once more for `weights="imagenet"` than for a path."""
    from keras.src.applications import efficientnet

    build = keras.applications.EfficientNetB0
    fresh = build(input_shape=(64, 96, 3), include_top=False, weights=None)
    _randomise(fresh)
    # The statistics of the published file: the deviation in place of the variance.
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    norm = next(x for x in fresh.layers if isinstance(x, keras.layers.Normalization))
    norm.load_own_variables({"0": mean, "1": std, "2": np.zeros((), "int64")})
    fresh.save(tmp_path / "net.h5")
    monkeypatch.setattr(
        efficientnet.file_utils, "get_file", lambda *_, **__: str(tmp_path / "net.h5")
    )
    published = build(input_shape=(64, 96, 3), include_top=False, weights="imagenet")
    images = _images(2, 64, 96, 3)
    expected = published.predict_on_batch(images)
    for weights in ("imagenet", tmp_path / "net.h5"):
        backbone = build_backbone("efficientnet_b0", weights=weights)
        _check_close(backbone.predict_on_batch(images)["P5"], expected)
    # So do random weights: images have the mean 0 and the deviation 1 of ImageNet's.
    backbone = build_backbone("efficientnet_b0")
    seen = keras.Model(backbone.input, backbone.get_layer("rescaling_1").output)
    np.testing.assert_allclose(
        seen.predict_on_batch(images), (images / 255 - mean) / std, atol=1e-4
    )


def _randomise(model):
    """Statistics under which no normalisation is the identity."""
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            values = [rng.uniform(0.5, 1.5, v.shape) for v in layer.get_weights()]
            layer.set_weights(values)


def _check_close(actual, expected):
    scale = np.abs(expected).max()
    np.testing.assert_allclose(actual / scale, expected / scale, atol=1e-4)


@pytest.mark.skipif(not MOBILENET.is_file(), reason="no ImageNet weights here")
def test_imagenet_weights_from_a_local_file():
    application = keras.applications.MobileNetV2(
        (64, 96, 3), include_top=False, weights=None
    )
    application.load_weights(MOBILENET)
    images = _images(2, 64, 96, 3)
    expected = application.predict_on_batch(images / 127.5 - 1)
    backbone = build_backbone("mobilenet_v2", weights=MOBILENET)
    features = backbone.predict_on_batch(images)["P5"]
    scale = np.abs(expected).max()
    np.testing.assert_allclose(features / scale, expected / scale, atol=1e-4)


def test_own_weights_return_dilated_and_frozen(tmp_path):
    backbone = build_backbone("lenet5", channels=2)
    backbone.save_weights(tmp_path / "own.weights.h5")
    again = build_backbone(
        "lenet5", channels=2, weights=tmp_path / "own.weights.h5", freeze="P2"
    )
    images = _images(1, 32, 40, 2)
    np.testing.assert_array_equal(
        again.predict_on_batch(images)["P2"], backbone.predict_on_batch(images)["P2"]
    )


def test_first_kernel_is_averaged_so_that_grey_is_grey(saved):
    file = saved / "net.weights.h5"
    grey = _images(1, 64, 96, 1)
    expected = None
    for channels in (3, 1, 5):
        backbone = build_backbone("mobilenet_v2_035", channels=channels, weights=file)
        features = backbone.predict_on_batch(np.repeat(grey, channels, axis=-1))["P5"]
        expected = features if expected is None else expected
        np.testing.assert_allclose(features, expected, atol=1e-4)


def test_imagenet_offline_names_the_file_and_the_way_out(monkeypatch):
    from keras.src.applications import mobilenet_v2

    def offline(name, origin, **_):
        raise Exception(f"URL fetch failure on {origin}: None -- no network")

    monkeypatch.setattr(mobilenet_v2.file_utils, "get_file", offline)
    with pytest.raises(ConnectionError, match=r"_0\.35_224_no_top\.h5.*`weights=PATH`"):
        build_backbone("mobilenet_v2_035", weights="imagenet")


def test_imagenet_weights_pass_through_keras(monkeypatch, saved, application):
    from keras.src.applications import mobilenet_v2

    monkeypatch.setattr(
        mobilenet_v2.file_utils, "get_file", lambda *_, **__: str(saved / "net.h5")
    )
    backbone = build_backbone("mobilenet_v2_035", weights="imagenet", freeze=["P1"])
    for layer in application.layers:
        for a, b in zip(
            layer.get_weights(),
            backbone.get_layer(layer.name).get_weights() if layer.weights else (),
            strict=True,
        ):
            np.testing.assert_array_equal(a, b)


def test_missing_file_is_not_found(tmp_path):
    with pytest.raises(FileNotFoundError, match="imagenet"):
        build_backbone("lenet5", weights=tmp_path / "none.weights.h5")


def test_weights_of_another_width_list_both_shapes_and_load_nothing(saved):
    from visionkit.backbones.weights import load_file

    backbone = build_backbone("mobilenet_v2_050")
    before = [np.array(v) for v in backbone.variables]
    with pytest.raises(ValueError, match=r"expected .*has .*\n.*\n.*and \d+ more"):
        load_file(backbone, saved / "net.weights.h5", order=[])
    for value, variable in zip(before, backbone.variables, strict=True):
        np.testing.assert_array_equal(value, variable)


def test_weights_of_another_network_name_the_layers(saved):
    with pytest.raises(
        ValueError, match=r"lenet5.*nothing was loaded.*\n  C1: missing"
    ):
        build_backbone("lenet5", weights=saved / "net.weights.h5")


@pytest.mark.parametrize("suffix", [".weights.h5", ".keras"])
@pytest.mark.parametrize("share", [0, 0.5, 0.99])
def test_truncated_file_is_refused(saved, tmp_path, suffix, share):
    content = (saved / f"net{suffix}").read_bytes()
    file = tmp_path / f"cut{suffix}"
    file.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match="truncated"):
        build_backbone("mobilenet_v2_035", weights=file)


@pytest.fixture
def lenet_file(tmp_path):
    build_backbone("lenet5").save_weights(tmp_path / "lenet.weights.h5")
    return tmp_path / "lenet.weights.h5"


def _tamper(file, how, elsewhere):
    """Replaces a bias by something that is no plain dataset of the file."""
    with h5py.File(file, "a") as f:
        group = f["layers/conv2d/vars"]
        del group["1"]
        if how == "ExternalLink":
            group["1"] = h5py.ExternalLink(str(elsewhere), "layers/conv2d/vars/1")
        elif how == "SoftLink":
            group["1"] = h5py.SoftLink("/layers/conv2d/vars/0")
        elif how == "external":
            size = [(str(elsewhere), 0, 24)]
            group.create_dataset("1", (6,), "float32", external=size)
        elif how == "virtual":
            layout = h5py.VirtualLayout((6,), "float32")
            layout[:] = h5py.VirtualSource(str(elsewhere), "x", (6,))
            group.create_virtual_dataset("1", layout)
        elif how == "object":
            group["1"] = ["a"] * 6
        elif how == "not finite":
            group["1"] = np.full(6, np.nan, "float32")
        elif how == "expected":  # a declared size of terabytes is never read
            group.create_dataset("1", (1 << 40,), "float32", chunks=(1 << 20,))


@pytest.mark.parametrize(
    "how",
    [
        "ExternalLink",
        "SoftLink",
        "external",
        "virtual",
        "object",
        "not finite",
        "expected",
    ],
)
def test_file_that_is_more_than_numbers_is_refused(lenet_file, tmp_path, how):
    elsewhere = tmp_path / "elsewhere.h5"
    shutil.copy(lenet_file, elsewhere)
    _tamper(lenet_file, how, elsewhere)
    with pytest.raises(ValueError, match=how):
        build_backbone("lenet5", weights=lenet_file)


def test_group_that_contains_itself_does_not_hang(lenet_file):
    with h5py.File(lenet_file, "a") as f:
        f["layers/conv2d/loop"] = f["layers"]
    with pytest.raises(ValueError, match="group inside itself"):
        build_backbone("lenet5", weights=lenet_file)


def test_archive_that_would_fill_the_memory_is_refused(tmp_path):
    file = tmp_path / "bomb.keras"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.weights.h5", bytes(1 << 24))
    with pytest.raises(ValueError, match="unpack"):
        build_backbone("lenet5", weights=file)


def test_frozen_normalisation_neither_trains_nor_moves_and_is_saved_so(tmp_path):
    backbone = build_backbone("mobilenet_v2_035", (32, 48), freeze=["P1", "norm"])
    backbone.save(tmp_path / "backbone.keras")
    images = np.random.default_rng(0).uniform(0, 255, (2, 32, 48, 3)).astype("float32")
    for model in (backbone, keras.models.load_model(tmp_path / "backbone.keras")):
        norms = [x for x in model.layers if "BatchNorm" in type(x).__name__]
        assert len(norms) == 52 and not any(norm.trainable for norm in norms)
        # Beyond P1 the convolutions train.
        assert model.get_layer("Conv_1").trainable
        before = [norm.get_weights() for norm in norms]
        features = model(images, training=True)["P5"]
        np.testing.assert_allclose(features, model(images, training=False)["P5"])
        for norm, weights in zip(norms, before, strict=True):
            for old, new in zip(weights, norm.get_weights(), strict=True):
                np.testing.assert_array_equal(old, new)
    with pytest.raises(ValueError, match=r"lenet5 has batch normalisation nowhere"):
        build_backbone("lenet5", freeze=["norm"])
    with pytest.raises(ValueError, match=r"no level 'P9' .*'norm' is all batch"):
        build_backbone("lenet5", freeze=["P9"])
