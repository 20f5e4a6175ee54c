"""Feature pyramid network (Lin et al. 2017, section 3)."""

from __future__ import annotations

from collections.abc import Sequence

import keras
from keras import layers, ops

COARSE = ("input", "output", "pool")


@keras.saving.register_keras_serializable(package="visionkit")
class FPN(layers.Layer):
    """Every level gets the meaning of the coarser ones: one width at all strides.

    A 1x1 convolution on each level, sums from the coarsest down (nearest neighbour,
    cut where a level is odd), a 3x3 convolution on each sum; no activations. Coarser
    levels are added above.

    Call arguments:
        pyramid: {"P3": (B, h, w, C3), ...} with all of `levels`, of sizes
            ceil(image_size / 2**n).

    Returns:
        {"P3": (B, h, w, channels), ...} of `levels` and the added ones.

    Args:
        levels: Adjacent levels, finest first.
        num_coarse: Levels added above the last.
        coarse: What the first of those is made of: `"input"`, a 3x3 convolution with
            stride 2 on the last level of the backbone (RetinaNet, Lin et al. 2017b,
            section 4); `"output"`, the same on the last level of the pyramid
            (torchvision's RetinaNet, 4,128,768 parameters less on a ResNet-50);
            `"pool"`, every second pixel of that (Faster R-CNN's P6). In the first two,
            further ones are made of the one before, after a ReLU.
        channels: Channels of every level.

    Raises:
        ValueError: `levels` are not adjacent, or `coarse` is none of these.
    """

    def __init__(
        self,
        levels: Sequence[str] = ("P3", "P4", "P5"),
        *,
        num_coarse: int = 2,
        coarse: str = "input",
        channels: int = 256,
        **kwargs,
    ):
        super().__init__(**kwargs)
        numbers = [int(level[1:]) for level in levels]
        if not numbers or numbers != list(range(numbers[0], numbers[-1] + 1)):
            raise ValueError(
                "`levels` must be adjacent and ascending, such as ('P3', 'P4', 'P5'). "
                f"Received: levels={tuple(levels)}"
            )
        if coarse not in COARSE:
            raise ValueError(
                f"`coarse` must be one of {', '.join(COARSE)}. "
                f"Received: coarse={coarse!r}"
            )
        self.levels = tuple(levels)
        self.coarse_levels = tuple(
            f"P{numbers[-1] + i}" for i in range(1, num_coarse + 1)
        )
        self.coarse = coarse
        self.channels = channels
        self.laterals = {
            level: self._conv(1, name=f"lateral_{level}") for level in self.levels
        }
        self.smooths = {
            level: self._conv(3, name=f"output_{level}") for level in self.levels
        }
        self.downs = {}
        if coarse != "pool":
            self.downs = {
                level: self._conv(3, 2, name=f"down_{level}")
                for level in self.coarse_levels
            }
        self.upsample = layers.UpSampling2D(2, interpolation="nearest", name="upsample")

    def _conv(self, kernel_size: int, strides: int = 1, *, name: str):
        # Detectron2's "caffe2_xavier" and torchvision's kaiming_uniform(a=1).
        return layers.Conv2D(
            self.channels,
            kernel_size,
            strides,
            padding="same",
            kernel_initializer="lecun_uniform",
            name=name,
        )

    def call(self, pyramid):
        """The pyramid; see the class."""
        sums, above = {}, None
        for level in reversed(self.levels):
            x = self.laterals[level](pyramid[level])
            if above is not None:
                height, width = ops.shape(x)[1:3]
                x = x + self.upsample(above)[:, :height, :width]
            sums[level] = above = x
        outputs = {level: self.smooths[level](sums[level]) for level in self.levels}
        return outputs | self._coarser(pyramid[self.levels[-1]], outputs)

    def _coarser(self, last_input, outputs: dict) -> dict:
        """The added levels."""
        x = last_input if self.coarse == "input" else outputs[self.levels[-1]]
        added = {}
        for level in self.coarse_levels:
            if self.coarse == "pool":
                x = x[:, ::2, ::2]
            else:
                x = self.downs[level](ops.relu(x) if added else x)
            added[level] = x
        return added

    def build_from_config(self, config):
        """Nothing: the first call builds the layers inside."""

    def get_config(self):
        """The constructor's arguments."""
        return {
            **super().get_config(),
            "levels": list(self.levels),
            "num_coarse": len(self.coarse_levels),
            "coarse": self.coarse,
            "channels": self.channels,
        }
