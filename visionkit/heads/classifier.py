"""Tops of classifiers: from the last pyramid level to logits."""

from __future__ import annotations

import keras
from keras import layers


@keras.saving.register_keras_serializable(package="visionkit")
class PooledTop(layers.Layer):
    """Global average pooling, dropout and one dense layer: the top since ResNet.

    Call arguments:
        features: (B, h, w, C) of any size.

    Returns:
        (B, num_classes) float32 logits.

    Args:
        num_classes: Number of classes.
        dropout: Share of pooled features dropped in training, 0 <= d < 1.
    """

    def __init__(self, num_classes: int, dropout: float = 0.0, **kwargs):
        super().__init__(**kwargs)
        self.num_classes = num_classes
        self.dropout_rate = dropout
        # float32 from the pooling on: a mean over bfloat16 loses digits.
        self.pooling = layers.GlobalAveragePooling2D(dtype="float32", name="pooling")
        self.dropout = layers.Dropout(dropout, dtype="float32", name="dropout")
        self.logits = layers.Dense(num_classes, dtype="float32", name="logits")

    def call(self, features, training=None):
        """Logits; see the class."""
        pooled = self.dropout(self.pooling(features), training=training)
        return self.logits(pooled)

    def get_config(self):
        """The constructor's arguments."""
        config = {"num_classes": self.num_classes, "dropout": self.dropout_rate}
        return {**super().get_config(), **config}


@keras.saving.register_keras_serializable(package="visionkit")
class LeNet5Top(layers.Layer):
    """C5, F6 and the output of LeNet-5 (LeCun et al. 1998, section II.B).

    C5 is the paper's 5x5 convolution with 120 maps, which on the 5x5 maps of a
    32x32 image sees everything at once. The output is a softmax layer's logits, not
    the paper's Gaussian connections. 48,120 + 10,164 + 850 parameters at 10 classes.

    Call arguments:
        features: (B, 5, 5, 16), the last level of `lenet5` at 32x32.

    Returns:
        (B, num_classes) float32 logits.

    Args:
        num_classes: Number of classes.
        dropout: Share of F6 dropped in training; the paper has none.
    """

    def __init__(self, num_classes: int, dropout: float = 0.0, **kwargs):
        super().__init__(**kwargs)
        self.num_classes = num_classes
        self.dropout_rate = dropout
        self.c5 = layers.Conv2D(120, 5, activation="tanh", name="c5")
        self.flatten = layers.Flatten(name="flatten")
        self.f6 = layers.Dense(84, activation="tanh", name="f6")
        self.dropout = layers.Dropout(dropout, name="dropout")
        self.logits = layers.Dense(num_classes, dtype="float32", name="logits")

    def call(self, features, training=None):
        """Logits; see the class."""
        x = self.f6(self.flatten(self.c5(features)))
        return self.logits(self.dropout(x, training=training))

    def get_config(self):
        """The constructor's arguments."""
        config = {"num_classes": self.num_classes, "dropout": self.dropout_rate}
        return {**super().get_config(), **config}


# Backbone -> published top and the features it reads. The rest publish a pooled one.
PAPER_TOPS = {"lenet5": (LeNet5Top, (5, 5, 16), "32x32")}


def build_top(top: str, backbone, num_classes: int, dropout: float, features):
    """Logits from the last level of a backbone.

    Args:
        top: `"pooled"`, or `"paper"` (the published top of that backbone).
        backbone: The backbone; `"paper"` goes by its name.
        num_classes: Number of classes.
        dropout: Share dropped before the logits.
        features: (B, h, w, C), the last level.

    Returns:
        (B, num_classes) float32.

    Raises:
        ValueError: `top` is neither, the backbone has no published top, or the features
            are not those of the published image size.
    """
    if top == "pooled":
        return PooledTop(num_classes, dropout, name="top")(features)
    if top != "paper":
        raise ValueError(f"`top` must be 'pooled' or 'paper'. Received: top={top!r}")

    from visionkit.backbones import BACKBONES

    if backbone.name not in BACKBONES:
        raise ValueError(
            f"The backbone {backbone.name!r} has no published top: it is not in "
            "`visionkit.BACKBONES`. Use top='pooled'."
        )
    shape = tuple(features.shape[1:])
    layer, expected, size = PAPER_TOPS.get(backbone.name, (PooledTop, shape, ""))
    if shape != expected:
        raise ValueError(
            f"The published top of {backbone.name} reads features of shape {expected}, "
            f"those of a {size} image. Received: {shape}. Build the backbone with "
            "that image_size, or use top='pooled'."
        )
    return layer(num_classes, dropout, name="top")(features)
