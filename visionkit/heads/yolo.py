"""The decoupled, anchor-free head of YOLOv8."""

from __future__ import annotations

import math
from collections.abc import Sequence

import keras
from keras import layers, ops

from visionkit.blocks import conv_block

BINS = 16
"""Distances that the distribution of a side is spread over: 0 to 15 strides (Li et al.
2020, "Generalized Focal Loss", whose `n` is 16)."""


@keras.saving.register_keras_serializable(package="visionkit")
class YOLOHead(layers.Layer):
    """At every location class logits and a distribution for each side of a box.

    Classes and boxes have two 3x3 convolutions and a 1x1 convolution each, of their own
    at every level.

    Call arguments:
        pyramid: {"P3": (B, h, w, C), ...} with all of `levels`.

    Returns:
        {"classes": (B, A, num_classes) float32 logits, "boxes": (B, A, 4 * bins)
        float32 logits of the distances to the left, top, right and bottom side, in
        strides}; the A locations row by row, the finest level first.

    Args:
        num_classes: Number of classes.
        channels: Channels of the finest level, which the widths follow: those of the
            boxes are `max(16, channels / 4, 4 * bins)`, those of the classes
            `max(channels, min(num_classes, 100))`.
        bins: Bins of a distribution.
        levels: The levels, finest first.
    """

    def __init__(
        self,
        num_classes: int,
        channels: int,
        *,
        bins: int = BINS,
        levels: Sequence[str] = ("P3", "P4", "P5"),
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.num_classes = num_classes
        self.channels = channels
        self.bins = bins
        self.levels = tuple(levels)
        self.boxes = self._towers("boxes", max(16, channels // 4, 4 * bins), 4 * bins)
        self.classes = self._towers(
            "classes", max(channels, min(num_classes, 100)), num_classes
        )

    def _towers(self, name: str, width: int, outputs: int) -> dict:
        """Level -> its convolutions."""
        towers = {}
        for level in self.levels:
            bias = "zeros"
            if name == "classes":
                # About five objects of a class in a 640x640 image.
                cells = (640 / 2 ** int(level[1:])) ** 2
                bias = keras.initializers.Constant(math.log(5 / outputs / cells))
            dtype = self.dtype_policy
            steps = [
                conv_block(width, 3, dtype=dtype, name="conv1"),
                conv_block(width, 3, dtype=dtype, name="conv2"),
                layers.Conv2D(
                    outputs, 1, bias_initializer=bias, dtype="float32", name="logits"
                ),
            ]
            towers[level] = keras.Sequential(steps, name=f"{name}_{level}")
        return towers

    def call(self, pyramid):
        """Raw outputs; see the class."""
        return {
            "classes": self._flat(self.classes, pyramid),
            "boxes": self._flat(self.boxes, pyramid),
        }

    def _flat(self, towers: dict, pyramid: dict):
        """(B, A, C) of all levels."""
        maps = [towers[level](pyramid[level]) for level in self.levels]
        sizes = [ops.shape(x)[1:] for x in maps]
        flat = [
            ops.reshape(x, (-1, height * width, channels))
            for x, (height, width, channels) in zip(maps, sizes, strict=True)
        ]
        return ops.concatenate(flat, axis=1)

    def build_from_config(self, config):
        """Nothing: the first call builds the layers inside."""

    def get_config(self):
        """The constructor's arguments."""
        return {
            **super().get_config(),
            "num_classes": self.num_classes,
            "channels": self.channels,
            "bins": self.bins,
            "levels": list(self.levels),
        }
