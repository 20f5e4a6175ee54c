import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from contracts import check_backbone

from visionkit.backbones import BACKBONES, CLASSIFICATION_ONLY, build_backbone

# Trainable parameters with the published top of 1,000 classes (lenet5: without one).
# ResNets: torchvision; resnet50 has Keras' 26,560 biases more; MobileNetV2: Keras.
EXPECTED_TRAINABLE = {
    "lenet5": 156 + 2_416,
    "mobilenet_v2": 3_504_872,
    "mobilenet_v2_035": 1_677_128,
    "mobilenet_v2_050": 1_968_680,
    "mobilenet_v2_075": 2_636_424,
    "mobilenet_v2_140": 6_108_776,
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_583_592,
}

LEVELS = {
    "mobilenet_v2": {
        "P1": ("block_1_expand_relu", 96),
        "P2": ("block_3_expand_relu", 144),
        "P3": ("block_6_expand_relu", 192),
        "P4": ("block_13_expand_relu", 576),
        "P5": ("out_relu", 1280),
    },
    "resnet18": {
        "P1": ("conv1_relu", 64),
        "P2": ("conv2_block2_out", 64),
        "P3": ("conv3_block2_out", 128),
        "P4": ("conv4_block2_out", 256),
        "P5": ("conv5_block2_out", 512),
    },
    "resnet50": {
        "P1": ("conv1_relu", 64),
        "P2": ("conv2_block3_out", 256),
        "P3": ("conv3_block4_out", 512),
        "P4": ("conv4_block6_out", 1024),
        "P5": ("conv5_block3_out", 2048),
    },
    "lenet5": {"P1": ("C3", 16), "P2": ("S4", 16)},
}

# The others differ from these in width or depth alone.
FAST = ("lenet5", "mobilenet_v2_035", "resnet18")


def test_norm_momentum_reaches_every_batch_normalisation_and_is_saved(tmp_path):
    backbone = build_backbone("resnet18", (32, 64), norm_momentum=0.9)
    backbone.save(tmp_path / "model.keras")
    backbone = keras.saving.load_model(tmp_path / "model.keras")
    norms = [
        layer
        for layer in backbone.layers
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    assert len(norms) == 20 and {layer.momentum for layer in norms} == {0.9}
    with pytest.raises(ValueError, match=r"norm_momentum.*\[0, 1\)"):
        build_backbone("resnet18", (32, 64), norm_momentum=1.0)


@pytest.mark.parametrize(
    "name",
    [n if n in FAST else pytest.param(n, marks=pytest.mark.slow) for n in BACKBONES],
)
def test_backbone_keeps_the_contract(name, tmp_path):
    check_backbone(name, tmp_path)


@pytest.mark.parametrize("name", BACKBONES)
def test_trainable_parameters_are_the_published_count(name):
    backbone = build_backbone(name, channels=1 if name == "lenet5" else 3)
    sizes = [np.prod(v.shape, dtype=int) for v in backbone.trainable_variables]
    features = list(backbone.output.values())[-1].shape[-1]
    top = 0 if name in CLASSIFICATION_ONLY else 1000 * (features + 1)
    assert sum(sizes) + top == EXPECTED_TRAINABLE[name]
    for level, (layer, channels) in LEVELS.get(name, {}).items():
        output = backbone.output[level]
        assert output is backbone.get_layer(layer).output
        assert output.shape[-1] == channels


def test_lenet5_at_its_published_size_ends_in_five_by_five():
    backbone = build_backbone("lenet5", (32, 32), channels=1)
    assert backbone.output["P2"].shape == (None, 5, 5, 16)
    paper, ink = np.zeros((1, 32, 32, 1)), np.full((1, 32, 32, 1), 255)
    normalize = backbone.get_layer("normalization")
    assert float(normalize(paper)[0, 0, 0, 0]) == pytest.approx(-0.1)
    assert float(normalize(ink)[0, 0, 0, 0]) == pytest.approx(1.175)


@pytest.mark.parametrize(
    "name",
    ["ResNet50", "MobileNetV2", "DenseNet121", "EfficientNetB0", "ConvNeXtTiny"],
)
def test_normalization_is_preprocess_input_of_the_application(name):
    from visionkit.backbones.applications import _normalization

    preprocess_input = sys.modules[
        getattr(keras.applications, name).__module__
    ].preprocess_input
    images = np.random.default_rng(0).integers(0, 256, (1, 3, 5, 3)).astype("float32")
    layer = _normalization(preprocess_input)
    expected = preprocess_input(images.copy())
    np.testing.assert_allclose(layer(images) if layer else images, expected, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "application",
    [
        "ResNet50V2",
        "VGG16",
        "EfficientNetB0",
        "DenseNet121",
        "ConvNeXtTiny",
        "MobileNetV3Small",
        "Xception",
        "InceptionV3",
        "MobileNet_025",
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_any_application_is_one_line(monkeypatch, tmp_path, application, channels):
    entry = f"visionkit.backbones.applications:{application}"
    monkeypatch.setitem(BACKBONES, "other", entry)
    backbone = build_backbone("other", channels=channels)
    images = np.random.default_rng(0).integers(0, 256, (1, 75, 101, channels))
    for level, value in backbone.predict_on_batch(images).items():
        stride = 2 ** int(level[1:])
        assert value.shape[1:3] == (-(-75 // stride), -(-101 // stride))
    assert "P5" in backbone.output
    backbone.save_weights(tmp_path / "other.weights.h5")
    build_backbone("other", channels=3, weights=tmp_path / "other.weights.h5")


def test_importing_the_table_imports_neither_keras_nor_tensorflow():
    code = (
        "import sys, visionkit.backbones\n"
        "print(sorted({'keras', 'tensorflow', 'h5py'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert out.stdout.strip() == "[]", out.stderr


def test_backbone_runs_on_jax_without_tensorflow():
    code = """
import sys
sys.modules["tensorflow"] = None
import numpy as np, keras
from visionkit.backbones import build_backbone
assert keras.backend.backend() == "jax"
backbone = build_backbone("resnet18", output_stride=16, freeze=["P1"])
features = backbone.predict_on_batch(np.full((1, 35, 50, 3), 99, "uint8"))
print([value.shape for value in features.values()])
"""
    out = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "KERAS_BACKEND": "jax"},
    )
    assert "(1, 18, 25, 64)" in out.stdout, out.stderr
    assert "(1, 3, 4, 512)" in out.stdout


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet_50", {}, "Did you mean 'resnet50'.*Legal: lenet5"),
        ("xyz", {}, "no backbone 'xyz'. Legal"),
        ("lenet5", {"image_size": (32,)}, r"must be \(height, width\).*\(32,\)"),
        ("lenet5", {"image_size": (0, 32)}, "positive integers or None"),
        ("lenet5", {"image_size": 32}, "image_size=32"),
        ("lenet5", {"channels": 0}, "`channels` must be a positive integer"),
        ("lenet5", {"output_stride": 4}, r"one of \(8, 16, 32\)"),
        ("lenet5", {"output_stride": 16}, "classification only"),
        ("lenet5", {"freeze": ("P1", "P7")}, "no level 'P7' to freeze.*: P1, P2"),
        ("lenet5", {"weights": "imagenet"}, "no ImageNet weights for lenet5"),
        ("resnet18", {"weights": "imagenet"}, "no ImageNet weights for resnet18"),
    ],
)
def test_wrong_options_say_what_is_right(name, options, message):
    with pytest.raises(ValueError, match=message):
        build_backbone(name, **options)
