"""GoogLeNet (Inception v1), Szegedy et al., "Going Deeper with Convolutions",
CVPR 2015, Table 1.
"""

from __future__ import annotations

import keras
from keras import layers

from visionkit.backbones.applications import REFERENCE_SIZE
from visionkit.backbones.channels import LocalResponseNormalization
from visionkit.backbones.normalization import ImageNormalization
from visionkit.backbones.weights import refuse_imagenet

# The paper subtracts ImageNet's mean.
_MEAN = (123.675, 116.28, 103.53)

# Table 1: filters of 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, pool projection.
_MODULES = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}


def googlenet(imagenet: bool = False) -> keras.Model:
    """GoogLeNet without its tops, in the paper's layout.

    Convolutions have biases, a ReLU and no batch normalisation. The auxiliary
    classifiers read `inception_4a` and `inception_4d`: see `visionkit.heads`.
    6,998,552 parameters with 1,000 classes, without the auxiliary ones.
    """
    if imagenet:
        refuse_imagenet("googlenet")
    images = keras.Input((*REFERENCE_SIZE, 3), name="images", dtype="float32")
    x = ImageNormalization(_MEAN, [1.0] * 3, name="normalization")(images)
    x = _conv(x, 64, 7, stride=2, name="conv1")
    x = _pool(x, "pool1")
    x = LocalResponseNormalization(name="norm1")(x)
    x = _conv(x, 64, 1, name="conv2_reduce")
    x = _conv(x, 192, 3, name="conv2")
    x = LocalResponseNormalization(name="norm2")(x)
    for module, filters in _MODULES.items():
        if module in ("3a", "4a", "5a"):
            x = _pool(x, f"pool{int(module[0]) - 1}")
        x = _inception(x, *filters, name=f"inception_{module}")
    return keras.Model(images, x, name="googlenet")


def _inception(x, one, reduce_3, three, reduce_5, five, projection, *, name):
    branches = [
        _conv(x, one, 1, name=f"{name}_1x1"),
        _conv(
            _conv(x, reduce_3, 1, name=f"{name}_3x3_reduce"),
            three,
            3,
            name=f"{name}_3x3",
        ),
        _conv(
            _conv(x, reduce_5, 1, name=f"{name}_5x5_reduce"),
            five,
            5,
            name=f"{name}_5x5",
        ),
        _conv(
            layers.MaxPooling2D(3, 1, padding="same", name=f"{name}_pool")(x),
            projection,
            1,
            name=f"{name}_pool_projection",
        ),
    ]
    return layers.Concatenate(name=name)(branches)


def _pool(x, name: str):
    return layers.MaxPooling2D(3, 2, padding="same", name=name)(x)


def _conv(x, filters: int, kernel_size: int, stride: int = 1, *, name: str):
    return layers.Conv2D(
        filters, kernel_size, stride, padding="same", activation="relu", name=name
    )(x)
