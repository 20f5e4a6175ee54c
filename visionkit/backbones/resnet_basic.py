"""ResNet-18 and ResNet-34, which `keras.applications` does not have.

He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, Table 1: basic
blocks, projection shortcuts where the size changes (option B), no biases beside batch
normalisation. Layer names follow the ResNet-50 of Keras; paddings are symmetric as in
the networks whose weights are published, so that those can be ported.
"""

from __future__ import annotations

import keras
from keras import layers

from visionkit.backbones.applications import REFERENCE_SIZE
from visionkit.backbones.normalization import ImageNormalization
from visionkit.backbones.weights import refuse_imagenet

# Mean and deviation of ImageNet's training pixels, the common ones of torchvision.
_MEAN = (123.675, 116.28, 103.53)
_STD = (58.395, 57.12, 57.375)


def resnet18(imagenet: bool = False) -> keras.Model:
    """ResNet-18 without its top: 11,689,512 parameters with 1,000 classes."""
    return _resnet("resnet18", (2, 2, 2, 2), imagenet)


def resnet34(imagenet: bool = False) -> keras.Model:
    """ResNet-34 without its top: 21,797,672 parameters with 1,000 classes."""
    return _resnet("resnet34", (3, 4, 6, 3), imagenet)


def _resnet(name: str, blocks: tuple[int, ...], imagenet: bool) -> keras.Model:
    if imagenet:
        refuse_imagenet(name)
    images = keras.Input((*REFERENCE_SIZE, 3), name="images", dtype="float32")
    x = ImageNormalization(_MEAN, _STD, name="normalization")(images)
    x = conv(x, 64, 7, stride=2, name="conv1")
    x = layers.ReLU(name="conv1_relu")(x)
    x = layers.ZeroPadding2D(1, name="pool1_pad")(x)
    x = layers.MaxPooling2D(3, strides=2, name="pool1_pool")(x)
    for stage, count in enumerate(blocks, start=2):
        for block in range(1, count + 1):
            stride = 2 if stage > 2 and block == 1 else 1
            filters = 64 * 2 ** (stage - 2)
            x = basic_block(x, filters, stride, name=f"conv{stage}_block{block}")
    return keras.Model(images, x, name=name)


def conv(x, filters: int, kernel_size: int, stride: int = 1, *, name: str):
    """A convolution with symmetric padding, and its batch normalisation."""
    if kernel_size > 1:
        x = layers.ZeroPadding2D(kernel_size // 2, name=f"{name}_pad")(x)
    x = layers.Conv2D(
        filters,
        kernel_size,
        strides=stride,
        use_bias=False,
        kernel_initializer="he_normal",
        name=f"{name}_conv",
    )(x)
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_bn")(x)


def _project(x, filters: int, stride: int, name: str):
    """The shortcut to another size, option B: a 1x1 convolution."""
    return conv(x, filters, 1, stride, name=name)


def basic_block(x, filters: int, stride: int, name: str, resize=_project):
    """Two 3x3 convolutions and a shortcut, made by `resize` where there is a stride.

    Args:
        x: Features (B, h, w, C), of `filters` channels unless there is a stride.
        filters: Channels of the output.
        stride: Of the first convolution and the shortcut.
        name: Beginning of the layers' names.
        resize: Called as `resize(x, filters, stride, name)`.
    """
    shortcut = resize(x, filters, stride, f"{name}_0") if stride > 1 else x
    x = conv(x, filters, 3, stride, name=f"{name}_1")
    x = layers.ReLU(name=f"{name}_1_relu")(x)
    x = conv(x, filters, 3, name=f"{name}_2")
    x = layers.Add(name=f"{name}_add")([shortcut, x])
    return layers.ReLU(name=f"{name}_out")(x)
