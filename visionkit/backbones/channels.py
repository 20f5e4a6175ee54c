"""Layers that take channels apart and put them together."""

from __future__ import annotations

import keras
from keras import layers, ops


@keras.saving.register_keras_serializable(package="visionkit")
class ChannelSlice(layers.Layer):
    """Channels `start` to `stop`, counted from the first.

    Call arguments:
        inputs: (B, h, w, C). Returns (B, h, w, stop - start).

    Args:
        start: First channel.
        stop: The one after the last.
    """

    def __init__(self, start: int, stop: int, **kwargs):
        super().__init__(**kwargs)
        self.start = start
        self.stop = stop

    def call(self, inputs):
        """The slice."""
        return inputs[..., self.start : self.stop]

    def get_config(self):
        """The constructor's arguments."""
        return {**super().get_config(), "start": self.start, "stop": self.stop}


@keras.saving.register_keras_serializable(package="visionkit")
class ChannelShuffle(layers.Layer):
    """Channels of two halves in turn: 0, C/2, 1, C/2 + 1, ... (ShuffleNet).

    Call arguments:
        inputs: (B, h, w, C), C even. Returns the same shape.
    """

    def call(self, inputs):
        """The same channels in the new order."""
        shape = ops.shape(inputs)
        halves = ops.reshape(inputs, (*shape[:-1], 2, shape[-1] // 2))
        return ops.reshape(ops.swapaxes(halves, -1, -2), shape)

    def compute_output_shape(self, input_shape):
        """The shape of the inputs."""
        return input_shape


@keras.saving.register_keras_serializable(package="visionkit")
class ChannelwiseConv2D(layers.Conv2D):
    """A `Conv2D` with one filter per channel, computed as a depthwise convolution.

    Arguments and weights are those of `Conv2D(C, ..., groups=C)`, which TensorFlow
    cannot run on a CPU without compiling it first.
    """

    def convolution_op(self, inputs, kernel):
        """The convolution without its bias."""
        return ops.depthwise_conv(
            inputs,
            ops.swapaxes(kernel, 2, 3),
            strides=self.strides,
            padding=self.padding,
            dilation_rate=self.dilation_rate,
        )


@keras.saving.register_keras_serializable(package="visionkit")
class LocalResponseNormalization(layers.Layer):
    """Each value divided by the activity of its neighbours in channel order.

    `x / (k + alpha * sum(x_j ** 2)) ** beta` over `size` adjacent channels, centred
    (Krizhevsky et al. 2012, section 3.3, with its constants), in float32.

    Call arguments:
        inputs: (B, h, w, C). Returns the same shape.

    Args:
        size: Neighbours, an odd number.
        k: Constant of the denominator.
        alpha: Factor of each square.
        beta: Exponent.
    """

    def __init__(
        self,
        size: int = 5,
        k: float = 2.0,
        alpha: float = 1e-4,
        beta: float = 0.75,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.size, self.k, self.alpha, self.beta = size, k, alpha, beta

    def call(self, inputs):
        """The normalised activities."""
        x = ops.cast(inputs, "float32")
        reach, channels = self.size // 2, inputs.shape[-1]
        squares = ops.pad(ops.square(x), [[0, 0]] * 3 + [[reach, reach]])
        total = sum(squares[..., i : i + channels] for i in range(self.size))
        return ops.cast(x * (self.k + self.alpha * total) ** -self.beta, inputs.dtype)

    def compute_output_shape(self, input_shape):
        """The shape of the inputs."""
        return input_shape

    def get_config(self):
        """The constructor's arguments."""
        config = {"size": self.size, "k": self.k, "alpha": self.alpha}
        return {**super().get_config(), **config, "beta": self.beta}
