"""The contracting path of U-Net.

Ronneberger et al., "U-Net: Convolutional Networks for Biomedical Image Segmentation",
MICCAI 2015, section 2.
"""

from __future__ import annotations

import keras
from keras import layers, ops

from visionkit.backbones.applications import REFERENCE_SIZE
from visionkit.backbones.normalization import ImageNormalization
from visionkit.backbones.weights import refuse_imagenet

DEPTH = 4  # poolings
_LOST = 4  # pixels of a side that two unpadded 3x3 convolutions take
NORM = {"momentum": 0.9, "epsilon": 1e-5}
"""Batch normalisation, of which the paper has none."""


def unet(imagenet: bool = False) -> keras.Model:
    """The published one, 64 channels at the image's size: 18,843,200 parameters."""
    return _unet("unet", 64, False, imagenet)


def unet_norm(imagenet: bool = False) -> keras.Model:
    """With batch normalisation after every convolution: 18,851,136 parameters."""
    return _unet("unet_norm", 64, True, imagenet)


def unet_32(imagenet: bool = False) -> keras.Model:
    """Half of the published channels, as nnU-Net has: 4,712,224 parameters."""
    return _unet("unet_32", 32, False, imagenet)


def unet_32_norm(imagenet: bool = False) -> keras.Model:
    """Half of the channels, with batch normalisation: 4,716,192 parameters."""
    return _unet("unet_32_norm", 32, True, imagenet)


def unet_16(imagenet: bool = False) -> keras.Model:
    """A quarter of the published channels: 1,178,768 parameters."""
    return _unet("unet_16", 16, False, imagenet)


def unet_16_norm(imagenet: bool = False) -> keras.Model:
    """A quarter of the channels, with batch normalisation: 1,180,752 parameters."""
    return _unet("unet_16_norm", 16, True, imagenet)


def _unet(name: str, width: int, norm: bool, imagenet: bool) -> keras.Model:
    """Stages of two 3x3 convolutions between 2x2 poolings, then half dropped."""
    if imagenet:
        refuse_imagenet(name)
    images = keras.Input((*REFERENCE_SIZE, 3), name="images", dtype="float32")
    x = ImageNormalization([127.5] * 3, [127.5] * 3, name="normalization")(images)
    for stage in range(DEPTH + 1):
        if stage:
            x = layers.MaxPooling2D(2, name=f"stage{stage}_pool")(x)
        for i in (1, 2):
            step = f"stage{stage}_{i}"
            x = layers.Conv2D(
                width * 2**stage,
                3,
                padding="same",
                kernel_initializer="he_normal",
                name=f"{step}_conv",
            )(x)
            if norm:
                x = layers.BatchNormalization(**NORM, name=f"{step}_bn")(x)
            x = layers.Activation("relu", name=f"{step}_relu")(x)
    # "At the end of the contracting path" (section 3.1); the share is that of the
    # authors' network.
    return keras.Model(images, layers.Dropout(0.5, name="dropout")(x), name=name)


@keras.saving.register_keras_serializable(package="visionkit")
class MirrorBorder(layers.Layer):
    """The image with its mirrored border around it, as far as a U-Net loses pixels.

    What an unpadded U-Net of `depth` poolings predicts from it begins at the image's
    first pixel and covers the image (the paper's overlap-tile strategy, figure 2). The
    border is 6 * 2**depth - 4 pixels (92) at the top and the left; at the bottom and
    the right up to 2**depth - 1 more, so that every pooling meets an even size. The
    outermost pixels are not doubled; images smaller than the border are mirrored again
    and again.

    Call arguments:
        images: (B, h, w, C). Returns (B, h + border, w + border, C).

    Args:
        depth: Number of 2x2 poolings.
    """

    def __init__(self, depth: int = DEPTH, **kwargs):
        super().__init__(**kwargs)
        self.depth = depth

    def call(self, images):
        """The larger images; see the class."""
        for axis in (1, 2):
            side = ops.shape(images)[axis]
            period = ops.maximum(2 * (side - 1), 1)
            before, total = self._border(side)
            place = ops.mod(ops.arange(side + total, dtype="int32") - before, period)
            images = ops.take(images, ops.minimum(place, period - place), axis=axis)
        return images

    def _border(self, side):
        """Pixels before the image, and before and after it together."""
        step = 2**self.depth
        predicted = -((_LOST - side) // step) * step + _LOST  # 4 more than of steps
        return 6 * step - _LOST, predicted - side + 2 * (6 * step - _LOST)

    def compute_output_shape(self, input_shape):
        """(B, h + border, w + border, C)."""
        batch, *sides, channels = input_shape
        sides = [side and side + self._border(side)[1] for side in sides]
        return (batch, *sides, channels)

    def get_config(self):
        """The constructor's arguments."""
        return {**super().get_config(), "depth": self.depth}


def unpadded(backbone: keras.Model) -> keras.Model:
    """A U-Net encoder as published: no convolution pads, the image is mirrored before.

    Args:
        backbone: One of the encoders above, from `build_backbone`.

    Returns:
        A copy with the same weights, whose levels are larger than the image's, P0 by
        90 pixels at each side; or the backbone itself, where it is unpadded already.

    Raises:
        ValueError: It is another backbone.
    """
    if any(isinstance(layer, MirrorBorder) for layer in backbone.layers):
        return backbone
    if not backbone.name.startswith("unet"):
        raise ValueError(
            "Only the U-Net backbones were published without padding. Use "
            f"`padding='same'`, or 'unet'. Received: backbone {backbone.name!r}"
        )

    def copy(layer):
        config = layer.get_config()
        if isinstance(layer, layers.Conv2D):
            config["padding"] = "valid"
        return type(layer).from_config(config)

    def call(layer, *args, **kwargs):
        outputs = layer(*args, **kwargs)
        if isinstance(layer, ImageNormalization):
            return MirrorBorder(name="border")(outputs)
        return outputs

    images = keras.Input(backbone.input.shape[1:], name="images", dtype="float32")
    unpadded = keras.models.clone_model(
        backbone, input_tensors=images, clone_function=copy, call_function=call
    )
    unpadded.set_weights(backbone.get_weights())
    return unpadded
