"""VGG-16 with its fully connected layers turned into convolutions.

Long, Shelhamer and Darrell 2015 (FCN), section 4.1: all of both, at stride 32.
Liu et al. 2016 (SSD), section 3.1: fc6 and fc7 become convolutions whose weights are
drawn from theirs, the last pooling is 3x3 with stride 1, and fc6 is dilated to see what
it saw before (Chen et al. 2015).
"""

from __future__ import annotations

import keras
import numpy as np
from keras import layers

from visionkit.backbones.applications import build_application
from visionkit.backbones.weights import Layers, layer_variables, load_layers

_FC6 = (7, 7, 512, 4096)  # what VGG's fc1 reads at 224x224, and its units
_STEP = 3  # of the 7x7 positions: 3x3 remain
_UNITS = 4  # every fourth of the 4,096 units: 1,024 remain


def vgg16_atrous(imagenet: bool = False) -> keras.Model:
    """VGG-16 up to fc7, without poolings beyond stride 16: 20,483,904 parameters.

    Its levels P3 and P4 are conv4_3 (after its ReLU) and fc7.
    """
    network = build_application("VGG16")
    x = network.get_layer("block5_conv3").output
    x = layers.MaxPooling2D(3, 1, padding="same", name="block5_pool")(x)
    x = layers.Conv2D(
        1024, 3, padding="same", dilation_rate=6, activation="relu", name="fc6"
    )(x)
    x = layers.Conv2D(1024, 1, activation="relu", name="fc7")(x)
    network = keras.Model(network.inputs[0], x, name="vgg16_atrous")
    if imagenet:
        full = _full_imagenet()
        load_layers(network, subsample(layer_variables(full)), "The ImageNet network")
    return network


def vgg16_fcn(imagenet: bool = False) -> keras.Model:
    """VGG-16 up to fc7, as FCN has it: 134,260,544 parameters.

    Its levels P1 to P4 are the poolings, P5 is fc7 with half of it dropped in training,
    as of fc6 (VGG's own dropout).
    """
    network = build_application("VGG16")
    x = network.outputs[0]
    for name, size in (("fc6", 7), ("fc7", 1)):
        x = layers.Conv2D(4096, size, padding="same", activation="relu", name=name)(x)
        x = layers.Dropout(0.5, name=f"{name}_dropout")(x)
    network = keras.Model(network.inputs[0], x, name="vgg16_fcn")
    if imagenet:
        full = _full_imagenet()
        load_layers(network, convolve(layer_variables(full)), "The ImageNet network")
    return network


def convolve(stored: Layers) -> Layers:
    """Weights of the whole VGG-16 as those of `vgg16_fcn`.

    fc1 becomes a convolution of 7x7, fc2 one of 1x1. The classifier is left out.

    Args:
        stored: Weights by layer. Without "fc1" and "fc2" they come back as they are.
    """
    if not _has_whole_fc(stored):
        return stored
    fc1, fc2 = stored["fc1"], stored["fc2"]
    converted = {
        "fc6": {"0": np.reshape(fc1["0"], _FC6), "1": fc1["1"]},
        "fc7": {"0": np.asarray(fc2["0"])[None, None], "1": fc2["1"]},
    }
    return _without_top(stored) | converted


def subsample(stored: Layers) -> Layers:
    """Weights of the whole VGG-16 as those of `vgg16_atrous`.

    fc6 keeps every third row and column of fc1's 7x7 kernel and every fourth unit,
    beginning with the first; fc7 every fourth unit on both sides. The classifier is
    left out.

    Args:
        stored: Weights by layer. Without "fc1" and "fc2" they come back as they are.
    """
    if not _has_whole_fc(stored):
        return stored
    fc1, fc2 = stored["fc1"], stored["fc2"]
    kernel = np.reshape(fc1["0"][:, ::_UNITS], (*_FC6[:3], -1))
    converted = {
        "fc6": {"0": kernel[::_STEP, ::_STEP], "1": fc1["1"][::_UNITS]},
        "fc7": {
            "0": np.asarray(fc2["0"])[None, None, ::_UNITS, ::_UNITS],
            "1": fc2["1"][::_UNITS],
        },
    }
    return _without_top(stored) | converted


def _has_whole_fc(stored: Layers) -> bool:
    """Whether VGG's own fully connected layers are there; others no layer will fit."""
    shape = (np.prod(_FC6[:3]), _FC6[3])
    return {"fc1", "fc2"} <= stored.keys() and tuple(stored["fc1"]["0"].shape) == shape


def _without_top(stored: Layers) -> Layers:
    left_out = {"fc1", "fc2", "predictions"}
    return {k: v for k, v in stored.items() if k not in left_out}


def _full_imagenet() -> keras.Model:
    """VGG-16 with its top and the weights that Keras fetches."""
    try:
        return keras.applications.VGG16(weights="imagenet")
    except Exception as error:  # Keras raises a bare Exception when offline.
        raise ConnectionError(
            f"Keras could not fetch the ImageNet weights of the whole VGG16: {error} "
            "Fetch that file elsewhere and give its path: `weights=PATH`."
        ) from error
