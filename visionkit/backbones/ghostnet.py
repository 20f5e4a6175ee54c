"""GhostNet, Han et al., "GhostNet: More Features from Cheap Operations", CVPR 2020,
section 3 and Table 1.
"""

from __future__ import annotations

import keras
from keras import layers

from visionkit.backbones.applications import REFERENCE_SIZE
from visionkit.backbones.normalization import ImageNormalization
from visionkit.backbones.weights import refuse_imagenet

_MEAN = (123.675, 116.28, 103.53)
_STD = (58.395, 57.12, 57.375)

# Kernel size, channels inside and out, squeeze-and-excitation, stride. The table is
# MobileNetV3-Large's, which the paper says it follows; so are the kernel sizes.
_BOTTLENECKS = (
    (3, 16, 16, False, 1),
    (3, 48, 24, False, 2),
    (3, 72, 24, False, 1),
    (5, 72, 40, True, 2),
    (5, 120, 40, True, 1),
    (3, 240, 80, False, 2),
    (3, 200, 80, False, 1),
    (3, 184, 80, False, 1),
    (3, 184, 80, False, 1),
    (3, 480, 112, True, 1),
    (3, 672, 112, True, 1),
    (5, 672, 160, True, 2),
    (5, 960, 160, False, 1),
    (5, 960, 160, True, 1),
    (5, 960, 160, False, 1),
    (5, 960, 160, True, 1),
)


def ghostnet(imagenet: bool = False) -> keras.Model:
    """GhostNet 1.0x without its top, at the paper's s = 2 and d = 3.

    5,182,508 parameters with the paper's top, which the paper rounds to 5.2 M:
    2,671,428 here, 1,230,080 in the 1x1 convolution after pooling (with bias and
    without batch normalisation) and 1,281,000 in the classifier.
    """
    if imagenet:
        refuse_imagenet("ghostnet")
    images = keras.Input((*REFERENCE_SIZE, 3), name="images", dtype="float32")
    x = ImageNormalization(_MEAN, _STD, name="normalization")(images)
    x = _conv(x, 16, 3, stride=2, name="stem")
    for i, (kernel, inside, out, squeeze, stride) in enumerate(_BOTTLENECKS, start=1):
        x = _bottleneck(x, kernel, inside, out, squeeze, stride, name=f"ghost{i}")
    x = _conv(x, 960, 1, name="last")
    return keras.Model(images, x, name="ghostnet")


def _bottleneck(x, kernel, inside, out, squeeze, stride, name: str):
    """Figure 3: two ghost modules, the second without activation, and a shortcut."""
    shortcut = x
    if stride > 1 or x.shape[-1] != out:
        shortcut = _depthwise(x, kernel, stride, name=f"{name}_shortcut_1")
        shortcut = _conv(shortcut, out, 1, relu=False, name=f"{name}_shortcut_2")
    x = _ghost(x, inside, name=f"{name}_expand")
    if stride > 1:
        x = _depthwise(x, kernel, stride, name=f"{name}_down")
    if squeeze:
        x = _squeeze_excite(x, name=f"{name}_se")
    x = _ghost(x, out, relu=False, name=f"{name}_project")
    return layers.Add(name=f"{name}_out")([x, shortcut])


def _ghost(x, filters: int, *, relu: bool = True, name: str):
    """Section 3.1: half of the maps by a 1x1 convolution, half by a 3x3 of those."""
    primary = _conv(x, filters // 2, 1, relu=relu, name=f"{name}_primary")
    cheap = _depthwise(primary, 3, 1, name=f"{name}_cheap")
    if relu:
        cheap = layers.ReLU(name=f"{name}_cheap_relu")(cheap)
    return layers.Concatenate(name=f"{name}_ghost")([primary, cheap])


def _squeeze_excite(x, name: str):
    """Weights per channel through a quarter of the channels, a multiple of 4."""
    channels = x.shape[-1]
    weights = layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_squeeze")(x)
    weights = layers.Conv2D(
        (channels // 4 + 2) // 4 * 4, 1, activation="relu", name=f"{name}_reduce"
    )(weights)
    weights = layers.Conv2D(
        channels, 1, activation="hard_sigmoid", name=f"{name}_expand"
    )(weights)
    return layers.Multiply(name=f"{name}_excite")([x, weights])


def _conv(x, filters, kernel_size, stride=1, *, relu: bool = True, name: str):
    if kernel_size > 1:
        x = layers.ZeroPadding2D(kernel_size // 2, name=f"{name}_pad")(x)
    x = layers.Conv2D(
        filters, kernel_size, stride, use_bias=False, name=f"{name}_conv"
    )(x)
    x = _norm(x, name)
    return layers.ReLU(name=f"{name}_relu")(x) if relu else x


def _depthwise(x, kernel_size: int, stride: int, name: str):
    x = layers.ZeroPadding2D(kernel_size // 2, name=f"{name}_pad")(x)
    x = layers.DepthwiseConv2D(
        kernel_size, stride, use_bias=False, name=f"{name}_conv"
    )(x)
    return _norm(x, name)


def _norm(x, name: str):
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_bn")(x)
