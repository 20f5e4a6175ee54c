"""The backbones of keras-cv 0.9, imported when one is built.

`getattr(keras_cv, "resnet_v2_50")` builds that network through its general
constructor, because the classes named after one size fetch a file from the network.
All take images of 0..255 and divide them by 255 (`include_rescaling=True`); none
subtracts a mean. Their blocks are layers of keras-cv: to load a model that was saved
with one, `import keras_cv` first.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import keras
from keras import ops

from visionkit.backbones.applications import REFERENCE_SIZE, insert_after

PREFIX = "keras_cv."
"""What the names of these backbones begin with."""

_RESNET_BLOCKS = {
    "18": (2, 2, 2, 2),
    "34": (3, 4, 6, 3),
    "50": (3, 4, 6, 3),
    "101": (3, 4, 23, 3),
    "152": (3, 8, 36, 3),
}
_DENSENET_BLOCKS = {
    "121": (6, 12, 24, 16),
    "169": (6, 12, 32, 32),
    "201": (6, 12, 48, 32),
}
# YOLOX (Ge et al. 2021): channels of the four stages; their depths.
_CSP_DARKNET = {
    "tiny": ((48, 96, 192, 384), (1, 3, 3, 1)),
    "s": ((64, 128, 256, 512), (1, 3, 3, 1)),
    "m": ((96, 192, 384, 768), (2, 6, 6, 2)),
    "l": ((128, 256, 512, 1024), (3, 9, 9, 3)),
    "xl": ((170, 340, 680, 1360), (4, 12, 12, 4)),
}
# EfficientNetV2 (Tan and Le 2021, Table 4 and the authors' B variants): each stage's
# repeats, filters in and out, expansion, squeeze-and-excitation, stride, fused or not.
_EFFICIENTNET_V2 = {
    "s": (
        (2, 24, 24, 1, 0, 1, "fused"),
        (4, 24, 48, 4, 0, 2, "fused"),
        (4, 48, 64, 4, 0, 2, "fused"),
        (6, 64, 128, 4, 0.25, 2, "unfused"),
        (9, 128, 160, 6, 0.25, 1, "unfused"),
        (15, 160, 256, 6, 0.25, 2, "unfused"),
    ),
    "b0": (
        (1, 32, 16, 1, 0, 1, "fused"),
        (2, 16, 32, 4, 0, 2, "fused"),
        (2, 32, 48, 4, 0, 2, "fused"),
        (3, 48, 96, 4, 0.25, 2, "unfused"),
        (5, 96, 112, 6, 0.25, 1, "unfused"),
        (8, 112, 192, 6, 0.25, 2, "unfused"),
    ),
}
# MobileNetV3 (Howard et al. 2019, Tables 1 and 2): kernel size, expansion of the
# input, filters, squeeze-and-excitation, activation, stride.
_MOBILENET_V3 = {
    "small": (
        (3, 1, 16, 0.25, "relu", 2),
        (3, 72 / 16, 24, None, "relu", 2),
        (3, 88 / 24, 24, None, "relu", 1),
        (5, 4, 40, 0.25, "hard_swish", 2),
        (5, 6, 40, 0.25, "hard_swish", 1),
        (5, 6, 40, 0.25, "hard_swish", 1),
        (5, 3, 48, 0.25, "hard_swish", 1),
        (5, 3, 48, 0.25, "hard_swish", 1),
        (5, 6, 96, 0.25, "hard_swish", 2),
        (5, 6, 96, 0.25, "hard_swish", 1),
        (5, 6, 96, 0.25, "hard_swish", 1),
    ),
    "large": (
        (3, 1, 16, None, "relu", 1),
        (3, 4, 24, None, "relu", 2),
        (3, 3, 24, None, "relu", 1),
        (5, 3, 40, 0.25, "relu", 2),
        (5, 3, 40, 0.25, "relu", 1),
        (5, 3, 40, 0.25, "relu", 1),
        (3, 6, 80, None, "hard_swish", 2),
        (3, 2.5, 80, None, "hard_swish", 1),
        (3, 2.3, 80, None, "hard_swish", 1),
        (3, 2.3, 80, None, "hard_swish", 1),
        (3, 6, 112, 0.25, "hard_swish", 1),
        (3, 6, 112, 0.25, "hard_swish", 1),
        (5, 6, 160, 0.25, "hard_swish", 2),
        (5, 6, 160, 0.25, "hard_swish", 1),
        (5, 6, 160, 0.25, "hard_swish", 1),
    ),
}


@keras.saving.register_keras_serializable(package="visionkit")
class EvenSize(keras.layers.Layer):
    """Images with a black row below and a black column at the right of odd sides.

    CSPDarkNet of keras-cv begins with the four halves of the pixels, which have to be
    alike.

    Call arguments:
        images: (B, H, W, C). Returns (B, H + H % 2, W + W % 2, C).
    """

    def call(self, images):
        """The padded images."""
        _, height, width, _ = ops.shape(images)
        return ops.pad(images, [[0, 0], [0, height % 2], [0, width % 2], [0, 0]])

    def compute_output_shape(self, input_shape):
        """The shape of the padded images."""
        batch, *sides, channels = input_shape
        return (batch, *(side and side + side % 2 for side in sides), channels)


def __getattr__(name: str) -> Callable[..., keras.Model]:
    family, _, size = name.rpartition("_")
    if family not in _FAMILIES or size not in _FAMILIES[family][1]:
        raise AttributeError(f"there is no keras-cv backbone {name!r} here")
    return functools.partial(_build, name)


def _build(name: str, *, imagenet: bool = False) -> keras.Model:
    """The network on (B, 256, 320, 3).

    Raises:
        ImportError: keras-cv is missing, or Keras runs on another backend than
            TensorFlow, which keras-cv cannot do without.
        ValueError: `imagenet`, whose weights only keras-cv itself fetches.
    """
    if imagenet:
        raise ValueError(
            f"The ImageNet weights of {PREFIX}{name} are not loaded here. Use "
            "`weights=None`, then `backbone.load_weights(PATH)` of a file saved "
            "by this backbone."
        )
    if keras.backend.backend() != "tensorflow":
        raise ImportError(
            f"{PREFIX}{name} needs the TensorFlow backend of Keras: keras-cv imports "
            f"TensorFlow. Received: the {keras.backend.backend()!r} backend. Set "
            "KERAS_BACKEND=tensorflow, or use a backbone without that prefix."
        )
    try:
        import keras_cv
    except ImportError as error:
        raise ImportError(
            f"{PREFIX}{name} needs keras-cv, which cannot be imported ({error}): "
            "`pip install keras-cv==0.9.0`, or use a backbone without that prefix."
        ) from error
    family, _, size = name.rpartition("_")
    kind, sizes, options = _FAMILIES[family]
    network = getattr(keras_cv.models, kind)(
        include_rescaling=True,
        input_shape=(*REFERENCE_SIZE, 3),
        **options(size, sizes[size]),
    )
    network = keras.Model(network.input, network.output, name=name)
    for layer in network.layers:
        if hasattr(layer, "excite_activation"):
            # MobileNetV3's own layer for it cannot be loaded from a file.
            layer.excite_activation = keras.activations.hard_sigmoid
    if family == "csp_darknet":
        return insert_after(network, network.layers[1], EvenSize(name="even_size"))
    return network


def _resnet(size: str, blocks) -> dict:
    return {
        "stackwise_filters": [64, 128, 256, 512],
        "stackwise_blocks": list(blocks),
        "stackwise_strides": [1, 2, 2, 2],
        "block_type": "basic_block" if size in ("18", "34") else "block",
    }


def _densenet(_, blocks) -> dict:
    return {"stackwise_num_repeats": list(blocks)}


def _csp_darknet(_, widths_and_depths) -> dict:
    widths, depths = widths_and_depths
    return {"stackwise_channels": list(widths), "stackwise_depth": list(depths)}


def _efficientnet_v2(_, stages) -> dict:
    repeats, inside, out, expansion, squeeze, strides, kinds = map(
        list, zip(*stages, strict=True)
    )
    return {
        "width_coefficient": 1.0,
        "depth_coefficient": 1.0,
        "stackwise_kernel_sizes": [3] * len(repeats),
        "stackwise_num_repeats": repeats,
        "stackwise_input_filters": inside,
        "stackwise_output_filters": out,
        "stackwise_expansion_ratios": expansion,
        "stackwise_squeeze_and_excite_ratios": squeeze,
        "stackwise_strides": strides,
        "stackwise_conv_types": kinds,
    }


def _mobilenet_v3(_, blocks) -> dict:
    kernels, expansion, filters, squeeze, activation, strides = map(
        list, zip(*blocks, strict=True)
    )
    return {
        "stackwise_kernel_size": kernels,
        "stackwise_expansion": expansion,
        "stackwise_filters": filters,
        "stackwise_se_ratio": squeeze,
        "stackwise_activation": activation,
        "stackwise_stride": strides,
    }


# Class of keras_cv.models, its sizes, and the function from a size to its options.
_FAMILIES = {
    "resnet": ("ResNetBackbone", _RESNET_BLOCKS, _resnet),
    "resnet_v2": ("ResNetV2Backbone", _RESNET_BLOCKS, _resnet),
    "densenet": ("DenseNetBackbone", _DENSENET_BLOCKS, _densenet),
    "csp_darknet": ("CSPDarkNetBackbone", _CSP_DARKNET, _csp_darknet),
    "efficientnet_v2": ("EfficientNetV2Backbone", _EFFICIENTNET_V2, _efficientnet_v2),
    "mobilenet_v3": ("MobileNetV3Backbone", _MOBILENET_V3, _mobilenet_v3),
}
