"""The layers that end classifiers: from features to float32 logits."""

from __future__ import annotations

import keras
from keras import layers


class Top(layers.Layer):
    """What every top shares: its arguments and its float32 logits."""

    def __init__(self, num_classes: int, dropout: float = 0.0, **kwargs):
        super().__init__(**kwargs)
        self.num_classes = num_classes
        self.dropout_rate = dropout
        self.dropout = layers.Dropout(dropout, dtype="float32", name="dropout")
        self.logits = layers.Dense(num_classes, dtype="float32", name="logits")

    def get_config(self):
        """The constructor's arguments."""
        config = {"num_classes": self.num_classes, "dropout": self.dropout_rate}
        return {**super().get_config(), **config}


@keras.saving.register_keras_serializable(package="visionkit")
class PooledTop(Top):
    """Global average pooling, dropout and one dense layer: the top since ResNet.

    Call arguments:
        features: (B, h, w, C) of any size.

    Returns:
        (B, num_classes) float32 logits.

    Args:
        num_classes: Number of classes.
        dropout: Share of pooled features dropped in training, 0 <= d < 1.
        hidden_units: Units of a dense layer before the dropout, the 1x1 convolution
            after pooling of MobileNetV3 and GhostNet; None for none.
        activation: Activation of that layer.
    """

    def __init__(
        self,
        num_classes: int,
        dropout: float = 0.0,
        hidden_units: int | None = None,
        activation: str | None = None,
        **kwargs,
    ):
        super().__init__(num_classes, dropout, **kwargs)
        self.hidden_units = hidden_units
        self.activation = activation
        # float32 from the pooling on: a mean over bfloat16 loses digits.
        self.pooling = layers.GlobalAveragePooling2D(dtype="float32", name="pooling")
        self.hidden = None
        if hidden_units:
            self.hidden = layers.Dense(hidden_units, activation, name="hidden")

    def call(self, features, training=None):
        """Logits; see the class."""
        x = self.pooling(features)
        if self.hidden is not None:
            x = self.hidden(x)
        return self.logits(self.dropout(x, training=training))

    def get_config(self):
        """The constructor's arguments."""
        config = {"hidden_units": self.hidden_units, "activation": self.activation}
        return {**super().get_config(), **config}


@keras.saving.register_keras_serializable(package="visionkit")
class FullyConnectedTop(Top):
    """Two hidden layers of 4,096 ReLU units: the top of AlexNet and VGG.

    Krizhevsky et al. 2012, section 3.5; Simonyan and Zisserman 2015, section 2.1.

    Call arguments:
        features: (B, h, w, C) of one static size.

    Returns:
        (B, num_classes) float32 logits.

    Args:
        num_classes: Number of classes.
        dropout: Share of each hidden layer's units dropped in training; 0.5 in both
            papers. AlexNet's is at the inputs of both layers.
        dropout_first: Whether dropout comes before each hidden layer (AlexNet) and
            not after it (VGG).
    """

    def __init__(
        self,
        num_classes: int,
        dropout: float = 0.0,
        dropout_first: bool = False,
        **kwargs,
    ):
        super().__init__(num_classes, dropout, **kwargs)
        self.dropout_first = dropout_first
        self.flatten = layers.Flatten(name="flatten")
        self.first_dropout = layers.Dropout(dropout, name="first_dropout")
        self.fc6 = layers.Dense(4096, activation="relu", name="fc6")
        self.fc7 = layers.Dense(4096, activation="relu", name="fc7")

    def call(self, features, training=None):
        """Logits; see the class."""
        x = self.flatten(features)
        if self.dropout_first:
            x = self.fc6(self.first_dropout(x, training=training))
            return self.logits(self.fc7(self.dropout(x, training=training)))
        x = self.fc7(self.first_dropout(self.fc6(x), training=training))
        return self.logits(self.dropout(x, training=training))

    def get_config(self):
        """The constructor's arguments."""
        return {**super().get_config(), "dropout_first": self.dropout_first}


@keras.saving.register_keras_serializable(package="visionkit")
class AuxiliaryTop(Top):
    """A classifier on features in the middle of GoogLeNet, for training alone.

    Szegedy et al. 2015, section 5: 5x5 average pooling with stride 3, a 1x1
    convolution with 128 filters, 1,024 units, 70 % dropout.

    Call arguments:
        features: (B, h, w, C) of one static size, at least 5x5.

    Returns:
        (B, num_classes) float32 logits.

    Args:
        num_classes: Number of classes.
        dropout: Share of the hidden units dropped in training.
    """

    def __init__(self, num_classes: int, dropout: float = 0.7, **kwargs):
        super().__init__(num_classes, dropout, **kwargs)
        self.pooling = layers.AveragePooling2D(5, 3, name="pooling")
        self.conv = layers.Conv2D(128, 1, activation="relu", name="conv")
        self.flatten = layers.Flatten(name="flatten")
        self.fc = layers.Dense(1024, activation="relu", name="fc")

    def call(self, features, training=None):
        """Logits; see the class."""
        x = self.fc(self.flatten(self.conv(self.pooling(features))))
        return self.logits(self.dropout(x, training=training))


@keras.saving.register_keras_serializable(package="visionkit")
class LeNet5Top(Top):
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
        super().__init__(num_classes, dropout, **kwargs)
        self.c5 = layers.Conv2D(120, 5, activation="tanh", name="c5")
        self.flatten = layers.Flatten(name="flatten")
        self.f6 = layers.Dense(84, activation="tanh", name="f6")

    def call(self, features, training=None):
        """Logits; see the class."""
        x = self.f6(self.flatten(self.c5(features)))
        return self.logits(self.dropout(x, training=training))
