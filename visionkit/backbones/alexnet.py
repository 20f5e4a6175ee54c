"""AlexNet, Krizhevsky, Sutskever, Hinton, "ImageNet Classification with Deep
Convolutional Neural Networks", NeurIPS 2012, section 3.
"""

from __future__ import annotations

import keras
from keras import layers

from visionkit.backbones.channels import ChannelSlice, LocalResponseNormalization
from visionkit.backbones.normalization import ImageNormalization
from visionkit.backbones.weights import refuse_imagenet

# The paper subtracts the mean image of ImageNet's training set; here the mean colour.
_MEAN = (123.675, 116.28, 103.53)


def alexnet(imagenet: bool = False) -> keras.Model:
    """The convolutions of AlexNet as published; classification only.

    The second, fourth and fifth convolution are in two halves, one for each of the
    paper's graphics cards. The paper gives 224x224 as its image size, but its maps of
    55x55 need 227x227, as in its authors' code; the last level is then (6, 6, 256).
    60,965,224 parameters with the paper's top.
    """
    return _alexnet("alexnet", 2, imagenet)


def alexnet_ungrouped(imagenet: bool = False) -> keras.Model:
    """AlexNet for one graphics card: every convolution sees all maps.

    62,378,344 parameters with the paper's top.
    """
    return _alexnet("alexnet_ungrouped", 1, imagenet)


def _alexnet(name: str, groups: int, imagenet: bool) -> keras.Model:
    if imagenet:
        refuse_imagenet(name)
    images = keras.Input((227, 227, 3), name="images", dtype="float32")
    x = ImageNormalization(_MEAN, [1.0] * 3, name="normalization")(images)
    x = _conv(x, 96, 11, stride=4, name="conv1")
    x = LocalResponseNormalization(name="norm1")(x)
    x = layers.MaxPooling2D(3, 2, name="pool1")(x)
    x = _conv(x, 256, 5, groups=groups, bias=1.0, name="conv2")
    x = LocalResponseNormalization(name="norm2")(x)
    x = layers.MaxPooling2D(3, 2, name="pool2")(x)
    x = _conv(x, 384, 3, name="conv3")
    x = _conv(x, 384, 3, groups=groups, bias=1.0, name="conv4")
    x = _conv(x, 256, 3, groups=groups, bias=1.0, name="conv5")
    x = layers.MaxPooling2D(3, 2, name="pool5")(x)
    return keras.Model(images, x, name=name)


def _conv(x, filters, kernel_size, *, stride=1, groups=1, bias=0.0, name):
    """ReLU convolution in groups; initialised as in the paper's section 5."""
    width = x.shape[-1] // groups
    parts = []
    for i in range(groups):
        suffix = f"_{i + 1}" if groups > 1 else ""
        part = x
        if groups > 1:
            part = ChannelSlice(i * width, (i + 1) * width, name=f"{name}_in{suffix}")(
                x
            )
        parts += [
            layers.Conv2D(
                filters // groups,
                kernel_size,
                stride,
                padding="valid" if stride > 1 else "same",
                activation="relu",
                kernel_initializer=keras.initializers.RandomNormal(stddev=0.01),
                bias_initializer=keras.initializers.Constant(bias),
                name=f"{name}{suffix}",
            )(part)
        ]
    return layers.Concatenate(name=name)(parts) if groups > 1 else parts[0]
