"""ShuffleNet V2, Ma et al., "Practical Guidelines for Efficient CNN Architecture
Design", ECCV 2018, Figure 3 (c, d) and Table 5.

Batch normalisation (momentum 0.9, epsilon 1e-5) and symmetric padding are those of
the networks whose weights are published, so that those can be ported.
"""

from __future__ import annotations

import keras
from keras import layers

from visionkit.backbones.applications import REFERENCE_SIZE
from visionkit.backbones.channels import ChannelShuffle, ChannelSlice
from visionkit.backbones.normalization import ImageNormalization
from visionkit.backbones.weights import refuse_imagenet

_MEAN = (123.675, 116.28, 103.53)
_STD = (58.395, 57.12, 57.375)

_BLOCKS = {2: 4, 3: 8, 4: 4}


def shufflenet_v2_050(imagenet: bool = False) -> keras.Model:
    """ShuffleNetV2 0.5x: 1,366,792 parameters with 1,000 classes."""
    return _shufflenet("shufflenet_v2_050", (48, 96, 192, 1024), imagenet)


def shufflenet_v2_100(imagenet: bool = False) -> keras.Model:
    """ShuffleNetV2 1x: 2,278,604 parameters with 1,000 classes."""
    return _shufflenet("shufflenet_v2_100", (116, 232, 464, 1024), imagenet)


def shufflenet_v2_150(imagenet: bool = False) -> keras.Model:
    """ShuffleNetV2 1.5x: 3,503,624 parameters with 1,000 classes."""
    return _shufflenet("shufflenet_v2_150", (176, 352, 704, 1024), imagenet)


def shufflenet_v2_200(imagenet: bool = False) -> keras.Model:
    """ShuffleNetV2 2x: 7,393,996 parameters with 1,000 classes."""
    return _shufflenet("shufflenet_v2_200", (244, 488, 976, 2048), imagenet)


def _shufflenet(name: str, widths: tuple[int, ...], imagenet: bool) -> keras.Model:
    if imagenet:
        refuse_imagenet(name)
    images = keras.Input((*REFERENCE_SIZE, 3), name="images", dtype="float32")
    x = ImageNormalization(_MEAN, _STD, name="normalization")(images)
    x = _conv(x, 24, 3, stride=2, name="conv1")
    x = layers.ZeroPadding2D(1, name="pool1_pad")(x)
    x = layers.MaxPooling2D(3, 2, name="pool1")(x)
    for (stage, blocks), width in zip(_BLOCKS.items(), widths, strict=False):
        x = _down(x, width, name=f"stage{stage}_block1")
        for block in range(2, blocks + 1):
            x = _basic(x, width, name=f"stage{stage}_block{block}")
    x = _conv(x, widths[-1], 1, name="conv5")
    return keras.Model(images, x, name=name)


def _basic(x, width: int, name: str):
    """Figure 3 (c): half of the channels pass unchanged."""
    half = width // 2
    passed = ChannelSlice(0, half, name=f"{name}_passed")(x)
    branch = ChannelSlice(half, width, name=f"{name}_branch")(x)
    branch = _conv(branch, half, 1, name=f"{name}_1")
    branch = _depthwise(branch, 1, name=f"{name}_2")
    branch = _conv(branch, half, 1, name=f"{name}_3")
    return _join([passed, branch], name)


def _down(x, width: int, name: str):
    """Figure 3 (d): both branches see everything, at half the resolution."""
    half = width // 2
    left = _depthwise(x, 2, name=f"{name}_left_1")
    left = _conv(left, half, 1, name=f"{name}_left_2")
    right = _conv(x, half, 1, name=f"{name}_1")
    right = _depthwise(right, 2, name=f"{name}_2")
    right = _conv(right, half, 1, name=f"{name}_3")
    return _join([left, right], name)


def _join(branches, name: str):
    x = layers.Concatenate(name=f"{name}_concat")(branches)
    return ChannelShuffle(name=f"{name}_out")(x)


def _conv(x, filters: int, kernel_size: int, stride: int = 1, *, name: str):
    if kernel_size > 1:
        x = layers.ZeroPadding2D(kernel_size // 2, name=f"{name}_pad")(x)
    x = layers.Conv2D(
        filters, kernel_size, stride, use_bias=False, name=f"{name}_conv"
    )(x)
    return layers.ReLU(name=f"{name}_relu")(_norm(x, name))


def _depthwise(x, stride: int, name: str):
    """A depthwise convolution; as guideline G4 asks, without an activation."""
    x = layers.ZeroPadding2D(1, name=f"{name}_pad")(x)
    x = layers.DepthwiseConv2D(3, stride, use_bias=False, name=f"{name}_conv")(x)
    return _norm(x, name)


def _norm(x, name: str):
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_bn")(x)
