"""A published network becomes a feature pyramid: padding, dilation, levels, freezing.

The network is walked once, layer by layer, and each layer is copied onto a new input
with the padding and dilation that its place asks for. Names and weights stay.
"""

from __future__ import annotations

from collections.abc import Sequence

import keras

from visionkit.backbones.names import flat_layers, stable_names
from visionkit.backbones.normalization import ImageNormalization

_NORMALIZATIONS = (
    ImageNormalization,
    keras.layers.Normalization,
    keras.layers.Rescaling,
)


def rebuild(
    reference: keras.Model,
    name: str,
    input_shape: tuple[int | None, int | None, int],
    output_stride: int = 32,
    *,
    pyramid: bool = True,
) -> keras.Model:
    """A copy of a network on another input, whose outputs are its levels.

    Dilated features, sampled on the grid of the undilated ones, equal them. Where they
    cannot: squeeze-and-excitation averages over more positions (EfficientNet,
    MobileNetV3), and on even sizes a pooling of 3x3 beside a strided 1x1 shortcut
    (Xception) has its grid one pixel from the shortcut's.

    Args:
        reference: A functional model from images to features.
        name: Name of the new model.
        input_shape: (height, width, channels); None is a dynamic side.
        output_stride: A layer that would exceed it loses its stride, and those after
            it are dilated.
        pyramid: Whether paddings are made such that Pn has ceil(size / 2**n) pixels
            on every size; False leaves them as they are.

    Returns:
        A model with the outputs {"P1": ..., "P2": ...} and new, random weights.

    Raises:
        ValueError: The network cannot be dilated.
    """
    images = keras.Input(input_shape, name="images", dtype="float32")
    copy = _Copy(images, stable_names(reference), output_stride, pyramid)
    keras.models.clone_model(
        reference,
        input_tensors=keras.tree.pack_sequence_as(reference.input, [images]),
        clone_function=lambda layer: layer,  # `copy` makes the new layers
        call_function=copy,
    )
    return keras.Model(images, copy.levels, name=name)


def set_norm_momentum(backbone: keras.Model, momentum: float) -> None:
    """Gives every batch normalisation this momentum.

    Raises:
        ValueError: It is not in [0, 1).
    """
    if not 0 <= momentum < 1:
        raise ValueError(
            f"`norm_momentum` must be in [0, 1). Received: norm_momentum={momentum}"
        )
    for layer in flat_layers(backbone):
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = momentum


def freeze_levels(backbone: keras.Model, levels: Sequence[str]) -> None:
    """Fixes every layer up to and including the given levels, in place.

    Raises:
        ValueError: The backbone has no such level.
    """
    levels = (levels,) if isinstance(levels, str) else tuple(levels)
    outputs = backbone.output
    unknown = [level for level in levels if level not in outputs]
    if unknown:
        raise ValueError(
            f"{backbone.name} has no level {unknown[0]!r} to freeze. "
            f"Its levels: {', '.join(outputs)}. Received: freeze={levels}"
        )
    if levels:
        frozen = keras.Model(backbone.input, [outputs[level] for level in levels])
        for layer in frozen.layers:
            layer.trainable = False


class _Copy:
    """Called with each layer of the reference and its new inputs, in graph order.

    Attributes:
        levels: The last feature map at each stride 2**n, n > 0, so far.
        strides: Stride of each new tensor relative to the images in the reference.
        unpadded: For each output of a `ZeroPadding2D`, its input and its padding.
    """

    def __init__(self, images, names: dict, output_stride: int, pyramid: bool):
        self.names = names
        self.levels = {}
        self.strides = {images: 1}
        self.unpadded = {}
        self.output_stride = output_stride
        self.pyramid = pyramid
        self.channels = images.shape[-1]

    def __call__(self, layer, *args, **kwargs):
        if isinstance(layer, keras.Sequential):
            outputs = args[0]
            for inner in layer.layers:
                outputs = self(inner, outputs)
            return outputs
        tensors = [x for x in keras.tree.flatten((args, kwargs)) if x in self.strides]
        stride = max(self.strides[x] for x in tensors)
        if not isinstance(layer, keras.Layer):  # an operation such as `a + b`
            outputs = layer(*args, **kwargs)
        else:
            config = {**layer.get_config(), "name": self.names[layer.name]}
            if isinstance(layer, _NORMALIZATIONS) and self.channels != 3:
                _average_channels(config)
            if "strides" in config:
                args = self._adapt(layer.name, config, stride, *args)
                stride *= max(layer.strides)
            outputs = type(layer).from_config(config)(*args, **kwargs)
        self.strides[outputs] = stride
        if isinstance(layer, keras.layers.ZeroPadding2D):
            self.unpadded[outputs] = (args[0], layer.padding)
        elif len(outputs.shape) == 4 and stride > 1 and stride & (stride - 1) == 0:
            self.levels[f"P{stride.bit_length() - 1}"] = outputs
        return outputs

    def _adapt(self, name: str, config: dict, stride: int, x) -> tuple:
        """Adapts the config of a convolution or pooling; returns its arguments.

        At `stride` relative to the images in the reference, tensors here are
        `stride / output_stride` times denser, where that exceeds 1: that is the
        layer's rate, also of one that loses its own stride.
        """
        if not self.pyramid:
            return (x,)
        window = max(config.get("kernel_size") or config["pool_size"])
        rate = max(1, stride // self.output_stride)
        if stride >= self.output_stride:
            config["strides"] = (1, 1)
        if window == 1:
            return (x,)
        if rate > 1:
            if "dilation_rate" not in config:
                raise ValueError(
                    f"{name} pools at stride {stride} and cannot be dilated: use an "
                    f"`output_stride` of {stride} or more. "
                    f"Received: output_stride={self.output_stride}"
                )
            config["dilation_rate"] = tuple(rate * d for d in config["dilation_rate"])
        # Symmetric padding before a stride has its own alignment, which the weights
        # know. All other paddings are what `same` does on an even size, but unlike it
        # they were computed for one size.
        unpadded, padding = self.unpadded.get(x, (x, None))
        symmetric = padding == ((window // 2,) * 2,) * 2
        if not symmetric or max(config["strides"]) == 1:
            config["padding"] = "same"
            return (unpadded,)
        return (x,)


def _average_channels(config: dict) -> None:
    """Replaces the constants of three colour channels by their mean."""
    for key in ("mean", "variance", "std", "scale", "offset"):
        value = config.get(key)
        if isinstance(value, (list, tuple)) and len(value) == 3:
            config[key] = [sum(value) / 3]
