"""A published network becomes a feature pyramid: padding, dilation, levels.

The network is walked once, layer by layer, and each layer is copied onto a new input
with the padding and dilation that its place asks for. Names and weights stay.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import keras
import numpy as np

from visionkit.backbones.channels import ChannelwiseConv2D
from visionkit.backbones.names import flat_layers, stable_names
from visionkit.backbones.normalization import ImageNormalization
from visionkit.backbones.stochastic_depth import ResidualDrops, is_addition, is_drop

LAST_STAGE = re.compile(r"conv5_block(\d+)_\d_conv")
"""Names of the convolutions of a ResNet's last stage, with the block's number."""

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
    taps: str | None = None,
    stochastic_depth: float | None = None,
    multi_grid: Sequence[int] | None = None,
) -> keras.Model:
    """A copy of a network on another input, whose outputs are its levels.

    Dilated features, sampled on the grid of the undilated ones, equal them (those of
    one multi-grid each other).

    Args:
        reference: A functional model from images to features.
        name: Name of the new model.
        input_shape: (height, width, channels); None is a dynamic side.
        output_stride: A layer that would exceed it loses its stride, and those after
            it are dilated.
        pyramid: Whether paddings are made such that Pn has ceil(size / 2**n) pixels
            on every size; False leaves them as they are.
        taps: Regular expression of the layers that may be levels, beside the last
            one. None: any, but for those of the image's own size.
        stochastic_depth: Share of the last residual branch dropped in training; None
            for what was published.
        multi_grid: What the rates of each block of a ResNet's last stage are
            multiplied by.

    Returns:
        A model with the outputs {"P1": ..., "P2": ...} and new, random weights.

    Raises:
        ValueError: The network cannot be dilated, or has no residual branches.
    """
    images = keras.Input(input_shape, name="images", dtype="float32")
    drops = ResidualDrops(list(flat_layers(reference)), stochastic_depth)
    names = stable_names(reference)
    copy = _Copy(images, names, output_stride, pyramid, drops, multi_grid)
    keras.models.clone_model(
        reference,
        input_tensors=keras.tree.pack_sequence_as(reference.input, [images]),
        clone_function=lambda layer: layer,  # `copy` makes the new layers
        call_function=copy,
    )
    drops.finish(name)
    last = copy.names[reference.layers[-1].name]
    levels = {
        f"P{stride.bit_length() - 1}": tensor
        for layer, stride, tensor in copy.maps
        if (stride > 1 if taps is None else layer == last or re.fullmatch(taps, layer))
    }
    return keras.Model(images, dict(sorted(levels.items())), name=name)


class _Copy:
    """Called with each layer of the reference and its new inputs, in graph order.

    Attributes:
        maps: (layer, stride, tensor) of the feature maps so far at a stride 2**n.
        strides: Stride of each new tensor relative to the images in the reference.
        depths: Layers with weights on the longest way from the images to it.
        unpadded: For each output of a `ZeroPadding2D`, its input and its padding.
    """

    def __init__(
        self,
        images,
        names: dict,
        output_stride: int,
        pyramid: bool,
        drops: ResidualDrops,
        multi_grid: Sequence[int] | None,
    ):
        self.names = names
        self.maps = []
        self.strides = {images: 1}
        self.depths = {images: 0}
        self.unpadded = {}
        self.output_stride = output_stride
        self.pyramid = pyramid
        self.drops = drops
        self.multi_grid = multi_grid
        self.channels = images.shape[-1]

    def __call__(self, layer, *args, **kwargs):
        if isinstance(layer, keras.Sequential):
            outputs = args[0]
            for inner in layer.layers:
                outputs = self(inner, outputs)
            return outputs
        tensors = [x for x in keras.tree.flatten((args, kwargs)) if _is_tensor(x)]
        stride = max(self.strides[x] for x in tensors)
        depth = max(self.depths[x] for x in tensors)
        if is_addition(layer) and len(tensors) == 2:
            args, kwargs = self.drops.drop(self.depths, args, kwargs)
        if not isinstance(layer, keras.Layer):  # an operation such as `a + b`
            outputs = layer(*args, **kwargs)
            if type(layer).__name__ == "GetItem":  # such as `images[:, ::2, ::2]`
                stride *= round(layer.input.shape[1] / layer.output.shape[1])
        else:
            depth += bool(layer.weights)
            config = {**layer.get_config(), "name": self.names[layer.name]}
            if isinstance(layer, _NORMALIZATIONS):
                config["dtype"] = "float32"
                if self.channels != 3:
                    _average_channels(config)
            if "strides" in config and "padding" in config:
                args = self._adapt(layer.name, config, stride, *args)
                stride *= max(layer.strides)
            elif type(layer).__module__.startswith("keras_cv"):
                stride *= round(layer.input.shape[1] / layer.output.shape[1])
            outputs = self._copy(layer, config)(*args, **kwargs)
        self.strides[outputs] = stride
        self.depths[outputs] = depth
        if isinstance(layer, keras.layers.ZeroPadding2D):
            self.unpadded[outputs] = (args[0], layer.padding)
        elif len(outputs.shape) == 4 and stride & (stride - 1) == 0:
            name = self.names.get(layer.name, layer.name)
            self.maps.append((name, stride, outputs))
        return outputs

    def _copy(self, layer, config: dict) -> keras.Layer:
        """A layer of this config, or one that does the same and saves or runs."""
        if is_drop(layer):
            return self.drops.own(config)
        if isinstance(layer, keras.layers.Lambda):  # the only one is keras-cv's SiLU
            return keras.layers.Activation("silu", name=config["name"])
        if type(layer) is keras.layers.Conv2D and 1 < layer.groups == layer.filters:
            return ChannelwiseConv2D.from_config(config)
        copy = type(layer).from_config(config)
        if isinstance(layer, keras.layers.Normalization) and layer.weights:
            _copy_statistics(layer, copy, self.channels)
        return copy

    def _adapt(self, name: str, config: dict, stride: int, x) -> tuple:
        """Adapts the config of a convolution or pooling; returns its arguments.

        At `stride` relative to the images in the reference, tensors here are
        `stride / output_stride` times denser, where that exceeds 1: that is the
        layer's rate, also of one that loses its own stride, times its block's in a
        multi-grid.
        """
        if not self.pyramid:
            return (x,)
        window = max(config.get("kernel_size") or config["pool_size"])
        rate = max(1, stride // self.output_stride)
        if stride >= self.output_stride:
            config["strides"] = (1, 1)
        if window == 1:
            return (x,)
        rate *= self._unit_rate(name, config)
        if rate > 1:
            if "dilation_rate" not in config:
                raise ValueError(
                    f"{name} pools at stride {stride} and cannot be dilated: use an "
                    f"`output_stride` of {stride} or more. "
                    f"Received: output_stride={self.output_stride}"
                )
            config["dilation_rate"] = tuple(rate * d for d in config["dilation_rate"])
            if window % 2 == 0:  # `same` would centre what a stride does not
                padding = ((0, rate * (window - 1)),) * 2
                config["padding"] = "valid"
                return (keras.layers.ZeroPadding2D(padding, name=f"{name}_pad")(x),)
        # Symmetric padding before a stride has its own alignment, which the weights
        # know. All other paddings are what `same` does on an even size, but unlike it
        # they were computed for one size.
        unpadded, padding = self.unpadded.get(x, (x, None))
        symmetric = padding == ((window // 2,) * 2,) * 2
        if not symmetric or max(config["strides"]) == 1:
            config["padding"] = "same"
            return (unpadded,)
        return (x,)

    def _unit_rate(self, name: str, config: dict) -> int:
        """What the multi-grid, if there is one, multiplies a layer's rate by."""
        block = LAST_STAGE.fullmatch(name)
        if self.multi_grid is None or block is None:
            return 1
        rate = self.multi_grid[int(block[1]) - 1]
        if rate > 1 and max(config["strides"]) > 1:
            raise ValueError(
                f"{name} has a stride and cannot have holes too: use an `output_stride`"
                f" of 16 or 8, or begin with 1. Received: multi_grid={self.multi_grid}"
            )
        return rate


def _is_tensor(value) -> bool:
    return isinstance(value, keras.KerasTensor)


def _copy_statistics(layer, copy, channels: int) -> None:
    """Gives a learnt normalisation of colours its constants, averaged if need be."""
    mean, variance, count = layer.get_weights()
    if channels != 3:
        mean, variance = (np.full(channels, x.mean()) for x in (mean, variance))
    copy.build((None, None, None, channels))
    copy.load_own_variables({"0": mean, "1": variance, "2": count})


def _average_channels(config: dict) -> None:
    """Replaces the constants of three colour channels by their mean."""
    for key in ("mean", "variance", "std", "scale", "offset"):
        value = config.get(key)
        if isinstance(value, (list, tuple)) and len(value) == 3:
            config[key] = [sum(value) / 3]
