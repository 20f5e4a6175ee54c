"""Blocks of layers that necks and heads share."""

from __future__ import annotations

import keras
from keras import layers, ops


def conv_block(
    filters: int, kernel_size: int, strides: int = 1, *, name: str, dtype=None
) -> keras.Sequential:
    """Convolution without bias, batch normalisation (1e-3, 0.97) and SiLU.

    Strided convolutions are padded by half their kernel on every side, so that a level
    of ceil(size / 2**n) becomes one of ceil(size / 2**(n + 1)) and even and odd sizes
    see the same neighbours.

    Args:
        filters: Output channels.
        kernel_size: Side of the kernel, odd.
        strides: Stride.
        name: Name.
        dtype: Dtype policy; None for the global one.
    """
    steps = []
    if strides > 1:
        steps += [layers.ZeroPadding2D(kernel_size // 2, dtype=dtype, name="pad")]
    steps += [
        layers.Conv2D(
            filters,
            kernel_size,
            strides,
            padding="valid" if strides > 1 else "same",
            use_bias=False,
            dtype=dtype,
            name="conv",
        ),
        layers.BatchNormalization(
            momentum=0.97, epsilon=1e-3, dtype=dtype, name="norm"
        ),
        layers.Activation("silu", dtype=dtype, name="silu"),
    ]
    return keras.Sequential(steps, name=name)


@keras.saving.register_keras_serializable(package="visionkit")
class CropLike(layers.Layer):
    """The part of a feature map that lies on another one.

    A level of ceil(size / 2) that has been doubled is a row or column too large where
    the size is odd; both begin at the image's first pixel.

    Call arguments:
        inputs: (B, h, w, C).
        like: (B, H, W, any), H <= h and W <= w. Only its size is read.

    Returns:
        (B, H, W, C), of the dtype of the inputs.

    Args:
        center: Whether the two lie on each other by their centres, instead of by their
            first pixels.
    """

    def __init__(self, center: bool = False, **kwargs):
        super().__init__(**{"autocast": False, **kwargs})
        self.center = center

    def call(self, inputs, like):
        """The crop; see the class."""
        (top, left), (height, width) = (0, 0), ops.shape(like)[1:3]
        if self.center:
            top = (ops.shape(inputs)[1] - height) // 2
            left = (ops.shape(inputs)[2] - width) // 2
        return inputs[:, top : top + height, left : left + width]

    def compute_output_spec(self, inputs, like):
        """The size of `like`, the channels and the dtype of the inputs."""
        shape = (inputs.shape[0], *like.shape[1:3], inputs.shape[-1])
        return keras.KerasTensor(shape, dtype=inputs.dtype)

    def get_config(self):
        """The constructor's arguments."""
        return {**super().get_config(), "center": self.center}
