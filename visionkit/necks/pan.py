"""Path aggregation network (Liu et al. 2018) in the form of YOLOv8."""

from __future__ import annotations

from collections.abc import Sequence

import keras
from keras import layers, ops

from visionkit.blocks import conv_block


@keras.saving.register_keras_serializable(package="visionkit")
class CrossStage(layers.Layer):
    """Cross-stage partial block ("C2f"): half of the features pass, half are convolved.

    A 1x1 convolution, whose second half goes through pairs of 3x3 convolutions in a
    row; both halves and what every pair gives, concatenated, pass another 1x1
    convolution. Unlike those of the backbone, the pairs have no shortcuts.

    Call arguments:
        inputs: (B, h, w, C). Returns (B, h, w, filters).

    Args:
        filters: Output channels, an even number.
        blocks: Number of pairs.
    """

    def __init__(self, filters: int, blocks: int = 1, **kwargs):
        super().__init__(**kwargs)
        self.filters = filters
        self.blocks = blocks
        dtype = self.dtype_policy
        self.first = conv_block(filters, 1, dtype=dtype, name="first")
        self.convs = [
            conv_block(filters // 2, 3, dtype=dtype, name=f"block{block}_{i}")
            for block in range(1, blocks + 1)
            for i in (1, 2)
        ]
        self.last = conv_block(filters, 1, dtype=dtype, name="last")

    def call(self, inputs):
        """The features; see the class."""
        parts = ops.split(self.first(inputs), 2, axis=-1)
        for first, second in zip(self.convs[::2], self.convs[1::2], strict=True):
            parts = [*parts, second(first(parts[-1]))]
        return self.last(ops.concatenate(parts, axis=-1))

    def build_from_config(self, config):
        """Nothing: the first call builds the layers inside."""

    def get_config(self):
        """The constructor's arguments."""
        config = {"filters": self.filters, "blocks": self.blocks}
        return {**super().get_config(), **config}


@keras.saving.register_keras_serializable(package="visionkit")
class PAN(layers.Layer):
    """Meaning flows down to fine levels, then places flow up to coarse ones.

    From the coarsest level down, each is doubled (nearest neighbour, cut where a level
    is odd), joined to the one below and passed through a `CrossStage`; then from the
    finest level up, each is halved by a 3x3 convolution, joined to what the way down
    had at that level and passed through another. No convolution is at the entrance, so
    a backbone may have any channels.

    Call arguments:
        pyramid: {"P3": (B, h, w, C3), ...} with all of `levels`, of sizes
            ceil(image_size / 2**n).

    Returns:
        {"P3": (B, h, w, channels[0]), ...}, the same levels.

    Args:
        channels: Channels of each level, even numbers.
        blocks: Pairs of convolutions in each `CrossStage`.
        levels: Adjacent levels, finest first.

    Raises:
        ValueError: There are not as many channels as levels.
    """

    def __init__(
        self,
        channels: Sequence[int],
        blocks: int = 1,
        levels: Sequence[str] = ("P3", "P4", "P5"),
        **kwargs,
    ):
        super().__init__(**kwargs)
        if len(channels) != len(levels):
            raise ValueError(
                "`channels` must hold one number per level. Received: "
                f"channels={tuple(channels)}, levels={tuple(levels)}"
            )
        self.channels = tuple(channels)
        self.blocks = blocks
        self.levels = tuple(levels)
        dtype = self.dtype_policy
        width = dict(zip(self.levels, self.channels, strict=True))
        self.downward = {
            level: CrossStage(width[level], blocks, dtype=dtype, name=f"down_{level}")
            for level in self.levels[:-1]
        }
        self.halve = {
            level: conv_block(width[level], 3, 2, dtype=dtype, name=f"halve_{level}")
            for level in self.levels[:-1]
        }
        self.upward = {
            level: CrossStage(width[level], blocks, dtype=dtype, name=f"up_{level}")
            for level in self.levels[1:]
        }
        self.double = layers.UpSampling2D(2, dtype=dtype, name="double")

    def call(self, pyramid):
        """The pyramid; see the class."""
        inner = {self.levels[-1]: pyramid[self.levels[-1]]}
        x = inner[self.levels[-1]]
        for level in reversed(self.levels[:-1]):
            below = pyramid[level]
            height, width = ops.shape(below)[1:3]
            doubled = self.double(x)[:, :height, :width]
            x = self.downward[level](ops.concatenate([doubled, below], axis=-1))
            inner[level] = x
        outputs = {self.levels[0]: x}
        for finer, level in zip(self.levels, self.levels[1:], strict=False):
            halved = self.halve[finer](outputs[finer])
            joined = ops.concatenate([halved, inner[level]], axis=-1)
            outputs[level] = self.upward[level](joined)
        return outputs

    def build_from_config(self, config):
        """Nothing: the first call builds the layers inside."""

    def get_config(self):
        """The constructor's arguments."""
        return {
            **super().get_config(),
            "channels": list(self.channels),
            "blocks": self.blocks,
            "levels": list(self.levels),
        }
