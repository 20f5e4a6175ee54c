import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from contracts import check_backbone

from visionkit.backbones import BACKBONES, CLASSIFICATION_ONLY, build_backbone

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
    "resnet20_cifar": {"P1": ("conv3_block3_out", 32), "P2": ("conv4_block3_out", 64)},
    "lenet5": {"P1": ("C3", 16), "P2": ("S4", 16)},
    "alexnet": {"P5": ("pool5", 256)},
    "vgg16": {"P1": ("block2_conv2", 128), "P5": ("block5_pool", 512)},
    "vgg16_atrous": {"P3": ("block4_conv3", 512), "P4": ("fc7", 1024)},
    "googlenet": {
        "P1": ("conv1", 64),
        "P2": ("norm2", 192),
        "P3": ("inception_3b", 480),
        "P4": ("inception_4e", 832),
        "P5": ("inception_5b", 1024),
    },
    "inception_v3": {
        "P2": ("activation_4", 192),
        "P3": ("mixed2", 288),
        "P4": ("mixed7", 768),
        "P5": ("mixed10", 2048),
    },
    "resnet50_v2": {
        "P1": ("conv1_conv", 64),
        "P2": ("conv2_block3_preact_relu", 256),
        "P3": ("conv3_block4_preact_relu", 512),
        "P4": ("conv4_block6_preact_relu", 1024),
        "P5": ("post_relu", 2048),
    },
    "nasnet_mobile": {
        "P1": ("stem_bn1", 32),
        "P2": ("reduction_concat_stem_1", 44),
        "P3": ("normal_concat_3", 264),
        "P4": ("normal_concat_8", 528),
        "P5": (None, 1056),
    },
    "shufflenet_v2_050": {
        "P1": ("conv1_relu", 24),
        "P2": ("pool1", 24),
        "P3": ("stage2_block4_out", 48),
        "P4": ("stage3_block8_out", 96),
        "P5": ("conv5_relu", 1024),
    },
    "xception": {
        "P1": ("block2_sepconv2_bn", 128),
        "P4": ("block13_sepconv2_bn", 1024),
        "P5": ("block14_sepconv2_act", 2048),
    },
    "densenet121": {"P2": ("pool2_conv", 128), "P5": ("relu", 1024)},
    "mobilenet_v1_025": {
        "P1": ("conv_pw_1_relu", 16),
        "P5": ("conv_pw_13_relu", 256),
    },
    "mobilenet_v3_small": {"P1": (None, 16), "P4": (None, 288), "P5": (None, 576)},
    "ghostnet": {"P1": ("ghost2_expand_ghost", 48), "P5": ("last_relu", 960)},
    "efficientnet_b0": {
        "P3": ("block4a_expand_activation", 240),
        "P5": ("top_activation", 1280),
    },
    "efficientnet_v2_b0": {"P2": ("block2b_add", 32), "P5": ("top_activation", 1280)},
    "convnext_tiny": {
        "P2": ("convnext_tiny_downsampling_layernorm_0", 96),
        "P5": ("layer_normalization", 768),
    },
    "unet_16_norm": {
        "P0": ("stage0_2_relu", 16),
        "P1": ("stage1_2_relu", 32),
        "P4": ("dropout", 256),
    },
    "csp_darknet_n": {
        "P1": ("stem_silu", 16),
        "P2": ("stage2_out_silu", 32),
        "P3": ("stage3_out_silu", 64),
        "P4": ("stage4_out_silu", 128),
        "P5": ("sppf_silu", 256),
    },
}

# `LEVELS` has one of each family; the whole contract of the others is `slow`.
FAST = (
    *("lenet5", "alexnet", "resnet18", "resnet20_cifar", "mobilenet_v1_025"),
    "unet_16_norm",
)
# Compiling a large graph with XLA takes longer than all else; the slow ones do it.
COMPILED = ("lenet5", "mobilenet_v1_025")


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
    check_backbone(name, tmp_path, compiled=name in COMPILED or name not in FAST)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=pytest.mark.slow)
        if n in ("mobilenet_v2", "resnet50", "nasnet_mobile")
        else n
        for n in LEVELS
    ],
)
def test_levels_are_the_last_maps_at_their_stride(name):
    backbone = build_backbone(name)
    for level, (layer, channels) in LEVELS[name].items():
        output = backbone.output[level]
        assert layer is None or output is backbone.get_layer(layer).output
        assert output.shape[-1] == channels
    images = np.random.default_rng(0).integers(0, 256, (1, 75, 101, 3), "uint8")
    for level, value in backbone(images).items():  # eager: nothing to trace
        stride = 2 ** int(level[1:])
        assert name in CLASSIFICATION_ONLY or value.shape[1:3] == (
            -(-75 // stride),
            -(-101 // stride),
        )
        assert np.isfinite(value).all() and np.ptp(value) > 0


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


def test_dropout_is_the_rate_of_the_backbones_own_dropouts():
    images = np.random.default_rng(0).uniform(0, 255, (1, 32, 32, 3)).astype("float32")
    backbone = build_backbone("unet_16", (32, 32), backbone_dropout=0.75)
    deepest = keras.ops.convert_to_numpy(backbone(images, training=True)["P4"])
    whole = keras.ops.convert_to_numpy(backbone(images)["P4"])
    assert np.mean(deepest[whole > 0] == 0) == pytest.approx(0.75, abs=0.05)
    without = build_backbone("unet_16", (32, 32), backbone_dropout=0.0)
    np.testing.assert_array_equal(
        without(images, training=True)["P4"], without(images)["P4"]
    )


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet_50", {}, "Did you mean 'resnet.*Legal: lenet5"),
        ("xyz", {}, "no backbone 'xyz'. Legal"),
        ("lenet5", {"image_size": (32,)}, r"must be \(height, width\).*\(32,\)"),
        ("lenet5", {"image_size": (0, 32)}, "positive integers or None"),
        ("lenet5", {"image_size": 32}, "image_size=32"),
        ("lenet5", {"channels": 0}, "`channels` must be a positive integer"),
        ("lenet5", {"output_stride": 4}, r"one of \(8, 16, 32\)"),
        ("lenet5", {"output_stride": 16}, "classification only"),
        ("alexnet", {"output_stride": 16}, "classification only"),
        ("efficientnet_b0", {"output_stride": 16}, "squeeze-and-excitation"),
        ("mobilenet_v3_small", {"output_stride": 8}, "squeeze-and-excitation"),
        ("ghostnet", {"output_stride": 8}, "squeeze-and-excitation"),
        ("xception", {"output_stride": 16}, "grids one pixel apart"),
        ("googlenet", {"output_stride": 16}, "modules pool"),
        ("inception_v3", {"output_stride": 16}, "modules pool"),
        ("nasnet_large", {"output_stride": 16}, "cells pool"),
        ("csp_darknet_x", {"output_stride": 16}, "pooling over 5x5"),
        ("keras_cv.resnet_50", {"output_stride": 16}, "closed layers of keras-cv"),
        ("keras_cv.resnet_50", {"weights": "x.h5"}, r"backbone\.load_weights\(PATH\)"),
        ("keras_cv.resnet_50", {"weights": "imagenet"}, "weights of .* are not loaded"),
        ("keras_cv.resnet_50", {"stochastic_depth": 0.1}, "closed layers of keras-cv"),
        ("resnet18", {"backbone_dropout": 0.1}, "resnet18 has no dropout"),
        ("unet_16", {"backbone_dropout": 1.0}, r"in \[0, 1\). .*dropout=1.0"),
        ("lenet5", {"freeze": ("P1", "P7")}, "no level 'P7' to freeze.*: P1, P2"),
        ("lenet5", {"weights": "imagenet"}, "no ImageNet weights for lenet5"),
        ("resnet18", {"weights": "imagenet"}, "no ImageNet weights for resnet18"),
    ],
)
def test_wrong_options_say_what_is_right(name, options, message):
    with pytest.raises(ValueError, match=message):
        build_backbone(name, **options)
