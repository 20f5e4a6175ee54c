"""The head of fully convolutional networks.

Long, Shelhamer and Darrell, "Fully Convolutional Networks for Semantic Segmentation",
CVPR 2015, section 4.
"""

from __future__ import annotations

import keras
import numpy as np
from keras import layers

from visionkit.blocks import CropLike

LEVELS = {32: ("P5",), 16: ("P4", "P5"), 8: ("P3", "P4", "P5")}
"""The levels that are scored, by the stride of the finest."""


@keras.saving.register_keras_serializable(package="visionkit")
class Bilinear(keras.initializers.Initializer):
    """A transposed convolution's kernel that interpolates each channel bilinearly.

    For kernels (2f, 2f, C, C) with stride f: pixels lie on half-pixel centres, and
    beyond the border the map is zero.
    """

    def __call__(self, shape, dtype=None):
        """The kernel (k, k, C, C)."""
        size, _, channels, _ = shape
        places = (np.arange(size) - (size - 1) / 2) / (size // 2)
        tent = 1 - np.abs(places)
        kernel = np.einsum("i,j,cd->ijcd", tent, tent, np.eye(channels))
        return keras.ops.convert_to_tensor(kernel, dtype=dtype)


@keras.saving.register_keras_serializable(package="visionkit")
class FCNHead(layers.Layer):
    """Scores of one to three levels, each doubled and added to the finer one.

    Call arguments:
        pyramid: {"P3": (B, h3, w3, C3), "P4": ..., "P5": ...}, the levels of `stride`.

    Returns:
        (B, H, W, num_classes) float32 logits that begin at the image's first pixel, H
        and W the size of the finest level times its stride: the image's size or up to
        stride - 1 more.

    Args:
        num_classes: Channels of the scores.
        stride: Of the finest level that is scored: 32, 16 or 8. All 1x1 scores begin
            at zero (section 4.3), those of P4 and P3 for the coarser net's answers.
        channels: Of a 3x3 convolution with batch normalisation and ReLU on P5 before
            its scores; 0 for none.
        dropout: Share of its features dropped in training.
        learn_upsampling: Whether the transposed convolutions train. All begin as
            bilinear interpolation.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        stride: int = 8,
        channels: int = 0,
        dropout: float = 0.0,
        learn_upsampling: bool = True,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if stride not in LEVELS:
            raise ValueError(
                f"`stride` must be one of {sorted(LEVELS)}. Received: stride={stride}"
            )
        self.num_classes, self.stride = num_classes, stride
        self.channels, self.dropout_rate = channels, dropout
        self.learn_upsampling = learn_upsampling
        self.conv = self.norm = self.dropout = None
        if channels:
            self.conv = layers.Conv2D(
                channels,
                3,
                padding="same",
                use_bias=False,
                kernel_initializer="he_normal",
                name="conv",
            )
            self.norm = layers.BatchNormalization(
                momentum=0.9, epsilon=1e-5, name="norm"
            )
            self.dropout = layers.Dropout(dropout, name="dropout")
        self.scores = {
            level: layers.Conv2D(
                num_classes,
                1,
                kernel_initializer="zeros",
                dtype="float32",
                name=f"score_{level}",
            )
            for level in LEVELS[stride]
        }
        self.doubled = {
            level: self._upsampling(2, f"double_{level}")
            for level in LEVELS[stride][1:]
        }
        self.upsampling = self._upsampling(stride, f"upsample_{stride}")
        self.crop = CropLike(name="crop") if self.doubled else None

    def _upsampling(self, factor: int, name: str) -> layers.Layer:
        return layers.Conv2DTranspose(
            self.num_classes,
            2 * factor,
            factor,
            padding="same",
            use_bias=False,
            kernel_initializer=Bilinear(),
            trainable=self.learn_upsampling,
            dtype="float32",
            name=name,
        )

    def call(self, pyramid, training=None):
        """Logits; see the class."""
        x = pyramid["P5"]
        if self.channels:
            x = keras.ops.relu(self.norm(self.conv(x), training=training))
            x = self.dropout(x, training=training)
        x = self.scores["P5"](x)
        finer = ("P4", "P3")[: len(self.doubled)]
        for level, coarser in zip(finer, ("P5", "P4"), strict=False):
            score = self.scores[level](pyramid[level])
            x = score + self.crop(self.doubled[coarser](x), score)
        return self.upsampling(x)

    def build_from_config(self, config):
        """Nothing: the first call builds the layers inside."""

    def get_config(self):
        """The constructor's arguments."""
        return {
            **super().get_config(),
            "num_classes": self.num_classes,
            "stride": self.stride,
            "channels": self.channels,
            "dropout": self.dropout_rate,
            "learn_upsampling": self.learn_upsampling,
        }


def auxiliary_scores(features, num_classes: int, dropout: float = 0.1):
    """Scores of one level by a head of its own, for an auxiliary loss.

    A 3x3 convolution with a quarter of the level's channels, batch normalisation, ReLU,
    dropout, and a 1x1 convolution: torchvision's auxiliary head (2,365,205 parameters
    on 1,024 channels for 21 classes).

    Args:
        features: (B, h, w, C) symbolic.
        num_classes: Channels of the scores.
        dropout: Share of the features dropped in training.

    Returns:
        (B, h, w, num_classes) float32.
    """
    x = layers.Conv2D(
        features.shape[-1] // 4,
        3,
        padding="same",
        use_bias=False,
        kernel_initializer="he_normal",
        name="auxiliary_conv",
    )(features)
    x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name="auxiliary_norm")(x)
    x = layers.Activation("relu", name="auxiliary_relu")(x)
    x = layers.Dropout(dropout, name="auxiliary_dropout")(x)
    return layers.Conv2D(num_classes, 1, dtype="float32", name="auxiliary_score")(x)
