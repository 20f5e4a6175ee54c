"""What SSD adds to a backbone: a normalised first level and coarser levels."""

from __future__ import annotations

from collections.abc import Sequence

import keras
from keras import layers, ops

# (filters, kernel size, strides, padding) of each added level's second convolution.
# Liu et al. 2016, Figure 2 and section 3.1. The last two of SSD300 are unpadded: 5x5,
# 3x3, 1x1. SSD512's last one, 4x4 with one pixel of padding, turns 2x2 into 1x1.
SSD300_EXTRA = (
    (512, 3, 2, "same"),
    (256, 3, 2, "same"),
    (256, 3, 1, "valid"),
    (256, 3, 1, "valid"),
)
SSD512_EXTRA = (
    (512, 3, 2, "same"),
    (256, 3, 2, "same"),
    (256, 3, 2, "same"),
    (256, 3, 2, "same"),
    (256, 4, 2, "same"),
)
# Sandler et al. 2018, section 6.2, on MobileNetV2's strides 16 and 32; the widths are
# those of the configuration that was published with it.
SSDLITE_EXTRA = (
    (512, 3, 2, "same"),
    (256, 3, 2, "same"),
    (256, 3, 2, "same"),
    (128, 3, 2, "same"),
)

NORM = {"momentum": 0.97, "epsilon": 1e-3}
"""Batch normalisation of SSDLite; torchvision has the same."""


@keras.saving.register_keras_serializable(package="visionkit")
class L2Normalization(layers.Layer):
    """Each pixel's features scaled to one length, times a learnt factor per channel.

    Liu et al. 2015 (ParseNet), section 3.3; SSD has it on VGG's conv4_3, whose values
    are far larger than those of deeper layers. Computed in float32.

    Call arguments:
        inputs: (B, h, w, C). Returns the same shape and dtype.

    Args:
        scale: First value of the factors; 20 in SSD.
    """

    def __init__(self, scale: float = 20.0, **kwargs):
        super().__init__(**kwargs)
        self.initial_scale = float(scale)

    def build(self, input_shape):
        """Makes the factors."""
        self.scale = self.add_weight(
            shape=(input_shape[-1],),
            initializer=keras.initializers.Constant(self.initial_scale),
            dtype="float32",
            autocast=False,
            name="scale",
        )

    def call(self, inputs):
        """The scaled features."""
        x = ops.cast(inputs, "float32")
        squares = ops.sum(ops.square(x), axis=-1, keepdims=True)
        return ops.cast(x * ops.rsqrt(squares + 1e-10) * self.scale, inputs.dtype)

    def compute_output_shape(self, input_shape):
        """The shape of the inputs."""
        return input_shape

    def get_config(self):
        """The constructor's arguments."""
        return {**super().get_config(), "scale": self.initial_scale}


@keras.saving.register_keras_serializable(package="visionkit")
class SSDExtra(layers.Layer):
    """Levels of the backbone and, by pairs of convolutions, coarser ones.

    A pair is a 1x1 convolution with half the filters and one of `extra`, each with a
    ReLU.

    Call arguments:
        pyramid: {"P3": (B, h, w, C3), ...} with all of `levels`.

    Returns:
        The same levels and one more per entry of `extra`, named upwards from the last:
        after P3 and P4, the first is P5. (Unpadded ones are smaller than their name
        says.)

    Args:
        levels: Levels of the backbone that the head reads, the coarsest last.
        extra: (filters, kernel size, strides, "same" or "valid") of each added level.
        normalize: Whether the first level passes an `L2Normalization`.
        separable: SSDLite: batch normalisation and ReLU6 after every convolution, and
            the second of a pair depthwise, followed by another 1x1.
    """

    def __init__(
        self,
        levels: Sequence[str] = ("P3", "P4"),
        extra: Sequence[Sequence] = SSD300_EXTRA,
        *,
        normalize: bool = False,
        separable: bool = False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.levels = tuple(levels)
        self.extra = tuple(tuple(spec) for spec in extra)
        self.separable = separable
        self.normalization = None
        if normalize:
            self.normalization = L2Normalization(name=f"normalize_{self.levels[0]}")
        last = int(self.levels[-1][1:])
        self.added = {
            f"P{last + i}": self._pair(*spec, name=f"P{last + i}")
            for i, spec in enumerate(self.extra, start=1)
        }

    def _pair(self, filters, kernel_size, strides, padding, *, name: str) -> list:
        """The layers from one level to the next."""
        options = {"kernel_initializer": "glorot_uniform"}
        second = {"strides": strides, "padding": padding}
        if not self.separable:
            options |= {"activation": "relu"}
            return [
                layers.Conv2D(filters // 2, 1, **options, name=f"{name}_1"),
                layers.Conv2D(
                    filters, kernel_size, **second, **options, name=f"{name}_2"
                ),
            ]
        options |= {"use_bias": False}
        depthwise = layers.DepthwiseConv2D(
            kernel_size, **second, use_bias=False, name=f"{name}_2_depthwise"
        )
        return [
            layers.Conv2D(filters // 2, 1, **options, name=f"{name}_1"),
            *_norm_relu6(f"{name}_1"),
            depthwise,
            *_norm_relu6(f"{name}_2_depthwise"),
            layers.Conv2D(filters, 1, **options, name=f"{name}_2"),
            *_norm_relu6(f"{name}_2"),
        ]

    def call(self, pyramid, training=None):
        """The levels; see the class."""
        outputs = {level: pyramid[level] for level in self.levels}
        x = outputs[self.levels[-1]]
        specs = zip(self.added.items(), self.extra, strict=True)
        for (level, steps), (_, kernel_size, _, padding) in specs:
            if padding == "valid":
                _check_size(level, x, kernel_size)
            for layer in steps:
                if isinstance(layer, layers.BatchNormalization):
                    x = layer(x, training=training)
                else:
                    x = layer(x)
            outputs[level] = x
        if self.normalization is not None:
            outputs[self.levels[0]] = self.normalization(outputs[self.levels[0]])
        return outputs

    def build_from_config(self, config):
        """Nothing: the first call builds the layers inside."""

    def get_config(self):
        """The constructor's arguments."""
        return {
            **super().get_config(),
            "levels": list(self.levels),
            "extra": [list(spec) for spec in self.extra],
            "normalize": self.normalization is not None,
            "separable": self.separable,
        }


def _check_size(level: str, x, kernel_size: int) -> None:
    height, width = x.shape[1:3]
    if None not in (height, width) and min(height, width) < kernel_size:
        raise ValueError(
            f"{level} is an unpadded convolution of {height}x{width} features, which "
            "are too small. Pass other `extra` levels, or a larger image_size to the "
            "backbone."
        )


def _norm_relu6(name: str) -> list:
    return [
        layers.BatchNormalization(**NORM, name=f"{name}_bn"),
        layers.ReLU(6.0, name=f"{name}_relu"),
    ]
