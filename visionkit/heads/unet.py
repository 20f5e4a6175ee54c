"""The expanding path of U-Net.

Ronneberger et al., "U-Net: Convolutional Networks for Biomedical Image Segmentation",
MICCAI 2015, section 2.
"""

from __future__ import annotations

from collections.abc import Sequence

import keras
from keras import layers, ops

from visionkit.backbones.unet import NORM
from visionkit.blocks import CropLike


@keras.saving.register_keras_serializable(package="visionkit")
class UNetHead(layers.Layer):
    """From the coarsest level up to the image's size, past every level on the way.

    At each size: a 2x2 up-convolution, the level of that size beside it where there is
    one, and two 3x3 convolutions with ReLU; at the end 1x1 scores.

    Call arguments:
        pyramid: {"P0": (B, h0, w0, C0), ...} with all of `levels`.

    Returns:
        (B, H, W, num_classes) float32 logits, H and W those of P0, or without P0 of the
        finest level times its stride, from the image's first pixel on.

    Args:
        num_classes: Channels of the scores.
        levels: Names of the levels.
        width: Channels at the image's size; twice as many at every coarser one.
        padding: `"same"`, or `"valid"` as published: convolutions make the maps
            smaller, and the centres of the levels are taken.
        norm: Whether each 3x3 convolution has batch normalisation.
    """

    def __init__(
        self,
        num_classes: int,
        levels: Sequence[str],
        *,
        width: int = 64,
        padding: str = "same",
        norm: bool = False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.num_classes, self.width = num_classes, width
        self.levels = sorted(levels, key=lambda level: int(level[1:]))
        self.padding, self.norm = padding, norm
        self.steps = {f"P{n}": self._step(n) for n in reversed(range(self._deepest()))}
        self.crop = None
        if len(self.levels) > 1:
            self.crop = CropLike(center=padding == "valid", name="crop")
        self.score = layers.Conv2D(num_classes, 1, dtype="float32", name="score")

    def _deepest(self) -> int:
        return int(self.levels[-1][1:])

    def _step(self, n: int) -> list:
        """The up-convolution to stride 2**n and the convolutions there."""
        filters = self.width * 2**n
        up = layers.Conv2DTranspose(
            filters, 2, 2, kernel_initializer="he_normal", name=f"up_P{n}"
        )
        convs = []
        for i in (1, 2):
            conv = layers.Conv2D(
                filters,
                3,
                padding=self.padding,
                kernel_initializer="he_normal",
                name=f"P{n}_{i}_conv",
            )
            norm = None
            if self.norm:
                norm = layers.BatchNormalization(**NORM, name=f"P{n}_{i}_norm")
            convs.append([conv, norm])
        return [up, convs]

    def call(self, pyramid, training=None):
        """Logits; see the class."""
        x = pyramid[self.levels[-1]]
        for level, (up, convs) in self.steps.items():
            x = up(x)
            if level in self.levels:
                skip = pyramid[level]
                if self.padding == "valid":
                    skip = self.crop(skip, x)
                else:
                    x = self.crop(x, skip)
                x = ops.concatenate([skip, x], axis=-1)
            for conv, norm in convs:
                x = conv(x)
                if norm is not None:
                    x = norm(x, training=training)
                x = ops.relu(x)
        return self.score(x)

    def build_from_config(self, config):
        """Nothing: the first call builds the layers inside."""

    def get_config(self):
        """The constructor's arguments."""
        return {
            **super().get_config(),
            "num_classes": self.num_classes,
            "levels": list(self.levels),
            "width": self.width,
            "padding": self.padding,
            "norm": self.norm,
        }
