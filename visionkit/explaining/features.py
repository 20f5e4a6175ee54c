"""What is inside a backbone: the features of an image, the kernels of a layer."""

from __future__ import annotations

from collections.abc import Iterator

import keras
import numpy as np
from keras import ops

from visionkit._spelling import nearest
from visionkit.explaining.taps import as_images, find_tap, run_tapped


def feature_maps(model, images, level: str | None = None) -> np.ndarray:
    """The activations at a level or layer; `plot_feature_maps` draws one image's.

    Args:
        model: A `VisionTask`, fresh or loaded.
        images: (B, h, w, C) 0..255 at the model's size.
        level: A level of the backbone such as "P3" or the name of a layer inside it;
            default the last level.

    Returns:
        (B, h', w', C') float32.

    Raises:
        ValueError: A wrong level or shape.
    """
    images = as_images(model, images)
    tap = find_tap(model, level, images.shape)
    activation, _ = run_tapped(model, images, tap)
    return ops.convert_to_numpy(ops.cast(activation, "float32"))


def filters(model, layer: str | None = None) -> np.ndarray:
    """The kernels of a convolution in the backbone; `plot_filters` draws them.

    Args:
        model: A `VisionTask`, fresh or loaded.
        layer: Name of a convolution; default the first one, which sees the image.

    Returns:
        (kernel_height, kernel_width, in_channels, out_channels) float32.

    Raises:
        ValueError: There is no convolution, or none of that name.
    """
    kernels = {
        each.name: each.kernel
        for each in _layers(model.backbone)
        if len(getattr(getattr(each, "kernel", None), "shape", ())) == 4
    }
    name = next(iter(kernels), None) if layer is None else layer
    if name not in kernels:
        names = ", ".join(kernels) or "none"
        raise ValueError(
            f"{model.backbone.name} has no convolution {name!r}."
            f"{nearest(name, kernels)} Its convolutions: {names}."
        )
    return ops.convert_to_numpy(ops.cast(kernels[name], "float32"))


def _layers(model) -> Iterator[keras.layers.Layer]:
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _layers(layer)
        else:
            yield layer
