"""The ResNets for CIFAR: stages of 16, 32 and 64 channels at 32, 16 and 8 pixels.

He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, section 4.2:
6n + 2 layers with weights, a 3x3 convolution, 2n in each stage, and the top. Shortcuts
have no parameters (option A): where the size changes they take every second pixel, and
zeros for the channels to come.
"""

from __future__ import annotations

import keras
from keras import layers, ops

from visionkit.backbones.normalization import ImageNormalization
from visionkit.backbones.resnet_basic import basic_block, conv
from visionkit.backbones.weights import refuse_imagenet

# Mean and deviation of CIFAR-10's training pixels. (The paper subtracts a mean image,
# which fits 32x32 alone, and does not divide.)
_MEAN = (125.3, 123.0, 113.9)
_STD = (63.0, 62.1, 66.7)


def resnet20_cifar(imagenet: bool = False) -> keras.Model:
    """ResNet-20 without its top: 269,722 parameters with 10 classes, n = 3."""
    return _resnet("resnet20_cifar", 3, imagenet)


def resnet32_cifar(imagenet: bool = False) -> keras.Model:
    """ResNet-32 without its top: 464,154 parameters with 10 classes, n = 5."""
    return _resnet("resnet32_cifar", 5, imagenet)


def resnet44_cifar(imagenet: bool = False) -> keras.Model:
    """ResNet-44 without its top: 658,586 parameters with 10 classes, n = 7."""
    return _resnet("resnet44_cifar", 7, imagenet)


def resnet56_cifar(imagenet: bool = False) -> keras.Model:
    """ResNet-56 without its top: 853,018 parameters with 10 classes, n = 9."""
    return _resnet("resnet56_cifar", 9, imagenet)


def resnet110_cifar(imagenet: bool = False) -> keras.Model:
    """ResNet-110 without its top: 1,727,962 parameters with 10 classes, n = 18."""
    return _resnet("resnet110_cifar", 18, imagenet)


@keras.saving.register_keras_serializable(package="visionkit")
class ChannelPadding(layers.Layer):
    """Zeros behind the last channel.

    Call arguments:
        inputs: (B, h, w, C). Returns (B, h, w, C + padding).

    Args:
        padding: Channels to add.
    """

    def __init__(self, padding: int, **kwargs):
        super().__init__(**kwargs)
        self.padding = padding

    def call(self, inputs):
        """The wider features."""
        return ops.pad(inputs, [[0, 0]] * 3 + [[0, self.padding]])

    def get_config(self):
        """The constructor's arguments."""
        return {**super().get_config(), "padding": self.padding}


def _resnet(name: str, blocks: int, imagenet: bool) -> keras.Model:
    if imagenet:
        refuse_imagenet(name)
    images = keras.Input((32, 32, 3), name="images", dtype="float32")
    x = ImageNormalization(_MEAN, _STD, name="normalization")(images)
    x = conv(x, 16, 3, name="conv1")
    x = layers.ReLU(name="conv1_relu")(x)
    for stage, filters in enumerate((16, 32, 64), start=2):
        for block in range(1, blocks + 1):
            stride = 2 if stage > 2 and block == 1 else 1
            prefix = f"conv{stage}_block{block}"
            x = basic_block(x, filters, stride, prefix, resize=_subsample)
    return keras.Model(images, x, name=name)


def _subsample(x, filters: int, stride: int, name: str):
    """The shortcut to another size, option A: fewer pixels, more zeros."""
    added = filters - x.shape[-1]
    x = layers.MaxPooling2D(1, strides=stride, name=f"{name}_pool")(x)
    return ChannelPadding(added, name=f"{name}_pad")(x)
