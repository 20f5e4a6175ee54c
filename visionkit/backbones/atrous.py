"""A backbone's output stride: which one it has, the same weights at another."""

from __future__ import annotations

import keras

from visionkit.backbones import BACKBONES, build_backbone
from visionkit.backbones.dilate import LAST_STAGE
from visionkit.backbones.limits import LAST_STAGE_BLOCKS, OUTPUT_STRIDES
from visionkit.backbones.names import flat_layers
from visionkit.backbones.stochastic_depth import StochasticDepth
from visionkit.backbones.weights import layer_variables, load_layers

_PROBE = 512  # pixels of a dynamic side, so many that every stride has its own size


def deepest_level(pyramid: dict) -> str:
    """The level with the largest number."""
    return max(pyramid, key=lambda level: int(level[1:]))


def output_stride(backbone: keras.Model) -> int:
    """Pixels of the image for each one of the deepest level, a power of 2.

    Args:
        backbone: A `keras.Model` from images to levels.

    Raises:
        ValueError: The deepest level is not ceil(size / stride) for any.
    """
    images = backbone.input
    height, width = (side or _PROBE for side in images.shape[1:3])
    pyramid = backbone.output
    if None in images.shape[1:3]:
        shape = (1, height, width, images.shape[-1])
        pyramid = backbone.compute_output_spec(keras.KerasTensor(shape, images.dtype))
    level = deepest_level(pyramid)
    size = tuple(pyramid[level].shape[1:3])
    for stride in (2**n for n in range(10)):
        if size == (-(-height // stride), -(-width // stride)):
            return stride
    raise ValueError(
        f"{level} of {backbone.name} must have ceil(size / stride) pixels a side for a "
        f"stride of 2**n. Received: {size} of images of {(height, width)}"
    )


def check_undilated(backbone: keras.Model) -> None:
    """Refuse levels that are not at strides of 2**n, for what doubles them.

    Raises:
        ValueError: The deepest level Pn has another stride than 2**n.
    """
    stride, level = output_stride(backbone), deepest_level(backbone.output)
    if stride != 2 ** int(level[1:]):
        raise ValueError(
            f"{level} must be at stride {2 ** int(level[1:])}: this model doubles each "
            f"level onto the next finer one. Leave `output_stride` out. Received: "
            f"{backbone.name} with output_stride={stride}"
        )


def multi_grid(backbone: keras.Model) -> tuple[int, ...] | None:
    """The unit rates of the blocks of a ResNet's last stage, ones where it has none.

    None for a backbone that cannot have any.
    """
    if backbone.name not in LAST_STAGE_BLOCKS:
        return None
    rates = {}
    for layer in flat_layers(backbone):
        if block := LAST_STAGE.fullmatch(layer.name):
            # A convolution that lost its stride has half the rate of the others.
            rates[block[1]] = max(rates.get(block[1], 1), *layer.dilation_rate)
    rate = max(OUTPUT_STRIDES) // output_stride(backbone)
    return tuple(found // rate for found in rates.values())


def with_output_stride(backbone: keras.Model, stride: int) -> keras.Model:
    """A copy of a backbone with the same weights at another output stride.

    Its features agree with the original's where both have a pixel. Which layers are
    frozen, the momentum of batch normalisation and the multi-grid stay.

    Args:
        backbone: What `build_backbone` made.
        stride: 8, 16 or 32.

    Raises:
        ValueError: It is no backbone of the table, or cannot have this stride.
    """
    if backbone.name not in BACKBONES:
        raise ValueError(
            "Only a backbone of the table can be built at another output stride. "
            f"Received: a backbone called {backbone.name!r}"
        )
    layers = {layer.name: layer for layer in flat_layers(backbone)}
    drops = [x.rate for x in layers.values() if isinstance(x, StochasticDepth)]
    height, width, channels = backbone.input.shape[1:]
    copy = build_backbone(
        backbone.name,
        (height, width),
        channels=channels,
        output_stride=stride,
        multi_grid=multi_grid(backbone),
        stochastic_depth=max(drops, default=None),
    )
    load_layers(copy, layer_variables(backbone), f"The backbone {backbone.name}")
    for layer in flat_layers(copy):
        original = layers.get(layer.name)  # a padding may be new
        if original is not None:
            layer.trainable = original.trainable
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = original.momentum
    return copy
