"""Backbones: images in, a pyramid of feature maps out.

Nothing here imports Keras or TensorFlow until a backbone is built, so that lists and
recipes can be checked in milliseconds.
"""

from __future__ import annotations

import importlib
import numbers
import os
from collections.abc import Sequence

from visionkit._spelling import check_name

# `applications:Name` is any `keras.applications` network, `applications:Name_050` the
# same at half its width: another one is another line.
BACKBONES: dict[str, str] = {
    "lenet5": "visionkit.backbones.lenet:lenet5",
    "mobilenet_v2": "visionkit.backbones.applications:MobileNetV2",
    "mobilenet_v2_035": "visionkit.backbones.applications:MobileNetV2_035",
    "mobilenet_v2_050": "visionkit.backbones.applications:MobileNetV2_050",
    "mobilenet_v2_075": "visionkit.backbones.applications:MobileNetV2_075",
    "mobilenet_v2_140": "visionkit.backbones.applications:MobileNetV2_140",
    "resnet18": "visionkit.backbones.resnet_basic:resnet18",
    "resnet34": "visionkit.backbones.resnet_basic:resnet34",
    "resnet50": "visionkit.backbones.applications:ResNet50",
}
"""Name to "module:function". The function takes `imagenet` (bool, default False) and
returns the network as published, a functional `keras.Model` with static input size
whose first layers normalise images of 0..255."""

CLASSIFICATION_ONLY = frozenset({"lenet5"})
"""Backbones that keep their valid padding, so that their levels are no pyramid."""

OUTPUT_STRIDES = (8, 16, 32)


def build_backbone(
    name: str,
    image_size: tuple[int | None, int | None] = (None, None),
    *,
    channels: int = 3,
    weights: str | os.PathLike | None = None,
    output_stride: int = 32,
    freeze: Sequence[str] = (),
    norm_momentum: float | None = None,
):
    """A functional `keras.Model` from images to the levels of a feature pyramid.

    Its input `images` is (B, H, W, C), 0..255, RGB where C = 3, float32 or uint8;
    normalisation is its first layer. Its output is a dict {"P1": (B, h1, w1, C1), ...}
    where Pn, the last feature map at stride 2**n, has the size ceil(image_size / 2**n)
    for every image size. (Networks that pad less were published with other sizes; here
    their convolutions pad to `same`, with the same weights. The backbones in
    `CLASSIFICATION_ONLY` are left as published.)

    Args:
        name: A key of `BACKBONES`.
        image_size: (height, width) in pixels; None leaves a side dynamic.
        channels: Channels of the images. Other than 3, the normalisation is averaged
            over the channels, and so is the first kernel of `weights`, rescaled to
            keep the sum of its weights.
        weights: None (random), "imagenet" (what keras.applications downloads) or the
            path of a `.weights.h5`, `.keras` or legacy `.h5` file, written by this
            backbone or by the keras.applications network with `include_top=False`.
        output_stride: 32, or 16 or 8 to turn the last one or two strides into
            dilation, with the same weights. Levels keep their names: with 16, "P5"
            has the size of "P4".
        freeze: Levels such as ("P1", "P2"): every layer up to and including those
            stays fixed, batch normalisation in inference mode. This is saved along.
        norm_momentum: Share of the old running statistics that batch normalisation
            keeps in a step. The published value (0.999 for MobileNetV2) needs several
            thousand steps to forget the statistics it starts with, which makes
            validation lag behind a short fine-tuning; 0.9 to 0.99 suits that. None
            keeps the published one.

    Returns:
        The model, of Keras' own and registered layers, named `name`.

    Raises:
        ValueError: Unknown name or level, an option out of range, a file that does
            not fit (nothing has been loaded then).
        FileNotFoundError: No file at `weights`.
        ConnectionError: The "imagenet" download failed.
    """
    check_name("backbone", name, BACKBONES)
    shape = _check_shape(image_size, channels)
    _check_output_stride(name, output_stride)

    from visionkit.backbones.dilate import freeze_levels, rebuild, set_norm_momentum
    from visionkit.backbones.weights import layer_variables, load_file, load_layers

    module, _, function = BACKBONES[name].partition(":")
    build = getattr(importlib.import_module(module), function)
    imagenet = isinstance(weights, str) and weights == "imagenet"
    reference = build(imagenet=imagenet)
    pyramid = name not in CLASSIFICATION_ONLY
    backbone = rebuild(reference, name, shape, output_stride, pyramid=pyramid)
    freeze_levels(backbone, freeze)
    if norm_momentum is not None:
        set_norm_momentum(backbone, norm_momentum)
    if imagenet:
        load_layers(backbone, layer_variables(reference), "The ImageNet network")
    elif weights is not None:
        load_file(backbone, weights, order=list(layer_variables(reference)))
    return backbone


def _check_shape(image_size, channels) -> tuple[int | None, int | None, int]:
    """(height, width, channels) of the input, or a `ValueError`."""

    def positive(value):
        return isinstance(value, numbers.Integral) and value > 0

    sides = tuple(image_size) if isinstance(image_size, Sequence) else ()
    if len(sides) != 2 or not all(side is None or positive(side) for side in sides):
        raise ValueError(
            "`image_size` must be (height, width), positive integers or None for a "
            f"dynamic side. Received: image_size={image_size!r}"
        )
    if not positive(channels):
        raise ValueError(
            f"`channels` must be a positive integer. Received: channels={channels!r}"
        )
    return (*sides, channels)


def _check_output_stride(name: str, output_stride: int) -> None:
    """Refuses an output stride that no backbone, or not this one, can have."""
    if output_stride not in OUTPUT_STRIDES:
        raise ValueError(
            f"`output_stride` must be one of {OUTPUT_STRIDES}. "
            f"Received: output_stride={output_stride!r}"
        )
    if name in CLASSIFICATION_ONLY and output_stride != max(OUTPUT_STRIDES):
        raise ValueError(
            f"{name} serves classification only and cannot be dilated: leave "
            f"`output_stride` at its default. Received: output_stride={output_stride}"
        )
