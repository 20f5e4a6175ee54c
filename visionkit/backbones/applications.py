"""Every convolutional network of `keras.applications`, as published.

`getattr(applications, "ResNet50")` builds that network, and a name with a suffix such
as `MobileNetV2_050` the one with the width multiplier (alpha) of 50 %.
"""

from __future__ import annotations

import functools
import re
import sys
import warnings
from collections.abc import Callable

import keras
import numpy as np

from visionkit.backbones.normalization import ImageNormalization

REFERENCE_SIZE = (256, 320)
"""Size at which networks are built to be rewritten: even at every stride up to 32."""

# Of ImageNet's training pixels in 0..1. Keras takes the deviation for the variance
# and divides by its root a second time, which comes to the same.
_MEAN = np.array([0.485, 0.456, 0.406], "float32")
_STD = np.array([0.229, 0.224, 0.225], "float32")


def __getattr__(name: str) -> Callable[..., keras.Model]:
    application, alpha = re.fullmatch(r"(.+?)(?:_(\d{3}))?", name).groups()
    if not application[0].isupper() or not hasattr(keras.applications, application):
        raise AttributeError(f"keras.applications has no network named {application!r}")
    options = {"alpha": int(alpha) / 100} if alpha else {}
    return functools.partial(build_application, application, **options)


def build_application(
    application: str, *, imagenet: bool = False, **options
) -> keras.Model:
    """A `keras.applications` network without its top, from images of 0..255.

    Args:
        application: Name of the function, e.g. "ResNet50".
        imagenet: Whether Keras fetches its ImageNet weights.
        **options: Keywords of that function, such as `alpha`.

    Returns:
        A functional model from (B, 256, 320, 3) to the last feature map.

    Raises:
        ConnectionError: The weights could not be fetched.
    """
    build = getattr(keras.applications, application)
    shape = (*REFERENCE_SIZE, 3)
    images = keras.Input(shape, name="images", dtype="float32")
    normalization = _normalization(sys.modules[build.__module__].preprocess_input)
    options |= {
        "include_top": False,
        "input_shape": shape,
        "input_tensor": normalization(images) if normalization else images,
    }
    with warnings.catch_warnings():
        # MobileNet says that it takes its 224-pixel weights, which is what we want.
        warnings.filterwarnings("ignore", message=".*input_shape. is undefined")
        if not imagenet:
            network = build(weights=None, **options)
            if re.fullmatch(r"EfficientNetB\d", application):
                return _with_published_constants(network)
            return network
        try:
            return build(weights="imagenet", **options)
        except Exception as error:  # Keras raises a bare Exception when offline.
            raise ConnectionError(
                f"Keras could not fetch the ImageNet weights of {application}: {error} "
                "Fetch that file elsewhere and give its path: `weights=PATH`."
            ) from error


def _with_published_constants(network: keras.Model) -> keras.Model:
    """EfficientNet (the first) with the normalisation that its ImageNet weights have.

    Keras keeps half of it in the weights file and adds the other half, a `Rescaling`,
    for `weights="imagenet"` alone: a file given by its path, or random weights, would
    see images in another range.
    """
    layer = next(x for x in network.layers if isinstance(x, keras.layers.Normalization))
    layer.load_own_variables({"0": _MEAN, "1": _STD, "2": np.zeros((), "int64")})
    return insert_after(network, layer, keras.layers.Rescaling((_STD**-0.5).tolist()))


def insert_after(network: keras.Model, place, layer) -> keras.Model:
    """A network of the same layers with one more after `place`."""

    def call(operation, *args, **kwargs):
        outputs = operation(*args, **kwargs)
        return layer(outputs) if operation is place else outputs

    images = keras.Input(network.inputs[0].shape[1:], name="images", dtype="float32")
    return keras.models.clone_model(
        network,
        input_tensors=keras.tree.pack_sequence_as(network.input, [images]),
        clone_function=lambda layer: layer,
        call_function=call,
    )


def _normalization(preprocess_input: Callable) -> ImageNormalization | None:
    """The layer that does what `preprocess_input` does; None if that is nothing.

    Keras does not say which of its three conventions a network follows, but each is
    `(x - mean) / std` per channel after an optional RGB to BGR, and three colours
    tell them apart.
    """
    colors = np.array([[0, 0, 0], [255, 255, 255], [255, 0, 0]], dtype="float64")
    black, white, red = preprocess_input(colors[:, None, None].copy())[:, 0, 0]
    std = 255 / (white - black)
    mean = -black * std
    if np.allclose(std, 1) and np.allclose(mean, 0):
        return None
    return ImageNormalization(
        mean=mean.round(6).tolist(),
        std=std.round(6).tolist(),
        reverse_channels=bool(red[0] == black[0]),
        name="normalization",
    )
