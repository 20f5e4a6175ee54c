"""What DeepLab puts on a backbone: context of several ranges, and a decoder.

Chen et al., "Rethinking Atrous Convolution for Semantic Image Segmentation", 2017 (V3);
"Encoder-Decoder with Atrous Separable Convolution", ECCV 2018 (V3+).
"""

from __future__ import annotations

from collections.abc import Sequence

import keras
from keras import layers, ops

from visionkit.ops.resize import resize_bilinear

NORM_MOMENTUM = 0.9997
"""Of batch normalisation (V3, section 4.1), for 30,000 steps with 16 images: it needs
about 10,000 to forget the statistics it starts with."""

DROPOUT = 0.1
"""Of the context, in the authors' code, which keeps 0.9; torchvision drops 0.5."""


@keras.saving.register_keras_serializable(package="visionkit")
class ASPP(layers.Layer):
    """Atrous spatial pyramid pooling (V3, section 3.3): each pixel's near and far.

    Side by side a 1x1 convolution, 3x3 ones with holes, and the mean of the whole map
    through a 1x1 convolution; concatenated, through another 1x1 convolution, a share
    dropped in training. All have batch normalisation and a ReLU.

    Call arguments:
        features: (B, h, w, C).

    Returns:
        (B, h, w, channels).

    Args:
        rates: Pixels from tap to tap of each 3x3 convolution: (6, 12, 18) at output
            stride 16, twice that at 8.
        channels: Of each convolution.
        separable: Whether the 3x3 convolutions are depthwise, then 1x1 (V3+, section
            3.1).
        dropout: Share dropped, 0 <= d < 1.
        norm_momentum: Share of the old running statistics that a step keeps.
    """

    def __init__(
        self,
        rates: Sequence[int] = (6, 12, 18),
        *,
        channels: int = 256,
        separable: bool = False,
        dropout: float = DROPOUT,
        norm_momentum: float = NORM_MOMENTUM,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.rates = check_rates(rates)
        self.channels = channels
        self.separable = separable
        self.dropout_rate = dropout
        self.norm_momentum = norm_momentum

        def block(name, kernel_size=1, rate=1):
            return _block(
                channels,
                kernel_size,
                rate,
                separable=separable and kernel_size > 1,
                momentum=norm_momentum,
                name=name,
            )

        self.branches = [
            block("pixel"),
            *(block(f"atrous_{i}", 3, rate) for i, rate in enumerate(self.rates, 1)),
        ]
        self.whole = block("whole")
        self.project = block("project")
        self.dropout = layers.Dropout(dropout, name="dropout")

    def call(self, features, training=None):
        """The context; see the class."""
        maps = [branch(features, training=training) for branch in self.branches]
        # A mean of half precision loses digits.
        mean = ops.mean(ops.cast(features, "float32"), axis=(1, 2), keepdims=True)
        whole = self.whole(ops.cast(mean, features.dtype), training=training)
        maps.append(resize_bilinear(whole, ops.shape(features)[1:3]))
        x = self.project(ops.concatenate(maps, axis=-1), training=training)
        return self.dropout(x, training=training)

    def build_from_config(self, config):
        """Nothing: the first call builds the layers inside."""

    def get_config(self):
        """The constructor's arguments."""
        return {
            **super().get_config(),
            "rates": list(self.rates),
            "channels": self.channels,
            "separable": self.separable,
            "dropout": self.dropout_rate,
            "norm_momentum": self.norm_momentum,
        }


@keras.saving.register_keras_serializable(package="visionkit")
class DeepLabDecoder(layers.Layer):
    """The decoder of V3+ (section 3.1): a fine level sharpens the context.

    The fine level through a 1x1 convolution of few channels, so that it does not
    outweigh the context, which is resized to it and concatenated; then two 3x3
    convolutions (section 4.1, table 2). All have batch normalisation and a ReLU.

    Call arguments:
        context: (B, h, w, C).
        fine: (B, H, W, C'), the backbone's last level of stride 4.

    Returns:
        (B, H, W, channels).

    Args:
        channels: Of the 3x3 convolutions.
        fine_channels: Of the 1x1 convolution (table 1: 48).
        depth: Number of 3x3 convolutions.
        separable: Whether these are depthwise, then 1x1.
        norm_momentum: Share of the old running statistics that a step keeps.
    """

    def __init__(
        self,
        channels: int = 256,
        *,
        fine_channels: int = 48,
        depth: int = 2,
        separable: bool = False,
        norm_momentum: float = NORM_MOMENTUM,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.channels, self.fine_channels = channels, fine_channels
        self.depth, self.separable = depth, separable
        self.norm_momentum = norm_momentum
        self.reduce = _block(fine_channels, 1, momentum=norm_momentum, name="reduce")
        self.refine = [
            _block(
                channels,
                3,
                separable=separable,
                momentum=norm_momentum,
                name=f"refine_{i}",
            )
            for i in range(1, depth + 1)
        ]

    def call(self, context, fine, training=None):
        """The sharpened context; see the class."""
        fine = self.reduce(fine, training=training)
        context = resize_bilinear(context, ops.shape(fine)[1:3])
        x = ops.concatenate([context, fine], axis=-1)
        for block in self.refine:
            x = block(x, training=training)
        return x

    def build_from_config(self, config):
        """Nothing: the first call builds the layers inside."""

    def get_config(self):
        """The constructor's arguments."""
        return {
            **super().get_config(),
            "channels": self.channels,
            "fine_channels": self.fine_channels,
            "depth": self.depth,
            "separable": self.separable,
            "norm_momentum": self.norm_momentum,
        }


def check_rates(rates: Sequence[int]) -> tuple[int, ...]:
    """The rates, or a `ValueError` where one is not a positive integer."""
    rates = tuple(rates)
    if not rates or not all(isinstance(rate, int) and rate > 0 for rate in rates):
        raise ValueError(
            "`rates` must be positive integers such as (6, 12, 18). "
            f"Received: rates={rates}"
        )
    return rates


def _block(
    filters: int,
    kernel_size: int,
    rate: int = 1,
    *,
    separable: bool = False,
    momentum: float,
    name: str,
) -> keras.Sequential:
    """Convolution without bias, batch normalisation (epsilon 1e-3) and ReLU.

    A separable one has both twice, after its depthwise and after its 1x1 convolution
    (V3+, section 3.2).
    """

    def norm(prefix=""):
        return [
            layers.BatchNormalization(
                momentum=momentum, epsilon=1e-3, name=f"{prefix}norm"
            ),
            layers.ReLU(name=f"{prefix}relu"),
        ]

    options = {"padding": "same", "use_bias": False}
    steps = []
    if separable:
        steps += [
            layers.DepthwiseConv2D(
                kernel_size, dilation_rate=rate, name="depthwise", **options
            ),
            *norm("depthwise_"),
        ]
        kernel_size = rate = 1
    conv = layers.Conv2D(
        filters, kernel_size, dilation_rate=rate, name="conv", **options
    )
    return keras.Sequential([*steps, conv, *norm()], name=name)
