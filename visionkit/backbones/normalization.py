"""The first layer of a backbone."""

from __future__ import annotations

from collections.abc import Sequence

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="visionkit")
class ImageNormalization(keras.layers.Layer):
    """Images of 0..255 as the weights expect them: `(images - mean) / std`.

    Computed in float32 under every dtype policy, because the mean of an image does
    not survive half precision.

    Call arguments:
        images: (B, H, W, C), 0..255, any dtype. Returns (B, H, W, C) float32.

    Args:
        mean: One value, or C values in the order of the output's channels.
        std: Likewise.
        reverse_channels: Whether RGB becomes BGR first (networks from Caffe).
    """

    def __init__(
        self,
        mean: Sequence[float],
        std: Sequence[float],
        reverse_channels: bool = False,
        dtype="float32",
        **kwargs,
    ):
        super().__init__(dtype=dtype, **kwargs)
        self.mean = list(mean)
        self.std = list(std)
        self.reverse_channels = reverse_channels

    def call(self, images):
        """The normalised images."""
        images = ops.cast(images, self.compute_dtype)
        if self.reverse_channels:
            images = ops.flip(images, axis=-1)
        mean = ops.convert_to_tensor(self.mean, dtype=self.compute_dtype)
        std = ops.convert_to_tensor(self.std, dtype=self.compute_dtype)
        return (images - mean) / std

    def compute_output_shape(self, input_shape):
        """The shape of the images."""
        return input_shape

    def get_config(self):
        """The constants, for saving."""
        return {
            **super().get_config(),
            "mean": self.mean,
            "std": self.std,
            "reverse_channels": self.reverse_channels,
        }
