"""CSPDarkNet in the form and sizes of YOLOv8, from its published description.

Cross-stage partial stages (Wang et al., "CSPNet", 2020) with two 3x3 convolutions in
each bottleneck, whose intermediate maps are all concatenated ("C2f"), and spatial
pyramid pooling by three 5x5 poolings in a row ("SPPF") at the end. Every convolution
has batch normalisation (epsilon 1e-3, momentum 0.97) and SiLU, and no bias.
"""

from __future__ import annotations

import keras
from keras import layers

from visionkit.backbones.applications import REFERENCE_SIZE
from visionkit.backbones.channels import ChannelSlice
from visionkit.backbones.normalization import ImageNormalization
from visionkit.backbones.weights import refuse_imagenet

# Depth and width multiples, and channels of the last stage before the width multiple;
# those of the detector too.
SIZES = {
    "n": (1 / 3, 0.25, 1024),
    "s": (1 / 3, 0.5, 1024),
    "m": (2 / 3, 0.75, 768),
    "l": (1.0, 1.0, 512),
    "x": (1.0, 1.25, 512),
}


def csp_darknet_n(imagenet: bool = False) -> keras.Model:
    """The backbone of YOLOv8n: 1,272,656 parameters."""
    return _csp_darknet("n", imagenet)


def csp_darknet_s(imagenet: bool = False) -> keras.Model:
    """The backbone of YOLOv8s: 5,079,712 parameters."""
    return _csp_darknet("s", imagenet)


def csp_darknet_m(imagenet: bool = False) -> keras.Model:
    """The backbone of YOLOv8m: 11,855,856 parameters."""
    return _csp_darknet("m", imagenet)


def csp_darknet_l(imagenet: bool = False) -> keras.Model:
    """The backbone of YOLOv8l: 19,808,576 parameters."""
    return _csp_darknet("l", imagenet)


def csp_darknet_x(imagenet: bool = False) -> keras.Model:
    """The backbone of YOLOv8x: 30,943,120 parameters."""
    return _csp_darknet("x", imagenet)


def _csp_darknet(size: str, imagenet: bool) -> keras.Model:
    if imagenet:
        refuse_imagenet(f"csp_darknet_{size}")
    depth, width, last = SIZES[size]
    images = keras.Input((*REFERENCE_SIZE, 3), name="images", dtype="float32")
    x = ImageNormalization([0.0] * 3, [255.0] * 3, name="normalization")(images)
    x = _conv(x, int(64 * width), 3, stride=2, name="stem")
    stages = zip((128, 256, 512, last), (3, 6, 6, 3), strict=True)
    for stage, (filters, blocks) in enumerate(stages, start=2):
        filters = int(filters * width)
        x = _conv(x, filters, 3, stride=2, name=f"stage{stage}_down")
        x = _c2f(x, filters, round(blocks * depth), name=f"stage{stage}")
    return keras.Model(images, _sppf(x), name=f"csp_darknet_{size}")


def _c2f(x, filters: int, blocks: int, name: str):
    half = filters // 2
    x = _conv(x, filters, 1, name=f"{name}_in")
    parts = [
        ChannelSlice(0, half, name=f"{name}_passed")(x),
        ChannelSlice(half, filters, name=f"{name}_block0")(x),
    ]
    for block in range(1, blocks + 1):
        x = _conv(parts[-1], half, 3, name=f"{name}_block{block}_1")
        x = _conv(x, half, 3, name=f"{name}_block{block}_2")
        parts += [layers.Add(name=f"{name}_block{block}")([parts[-1], x])]
    x = layers.Concatenate(name=f"{name}_concat")(parts)
    return _conv(x, filters, 1, name=f"{name}_out")


def _sppf(x):
    filters = x.shape[-1]
    parts = [_conv(x, filters // 2, 1, name="sppf_in")]
    for i in range(1, 4):
        pool = layers.MaxPooling2D(5, 1, padding="same", name=f"sppf_pool{i}")
        parts += [pool(parts[-1])]
    return _conv(layers.Concatenate(name="sppf_concat")(parts), filters, 1, name="sppf")


def _conv(x, filters: int, kernel_size: int, stride: int = 1, *, name: str):
    if kernel_size > 1:
        x = layers.ZeroPadding2D(kernel_size // 2, name=f"{name}_pad")(x)
    x = layers.Conv2D(
        filters, kernel_size, stride, use_bias=False, name=f"{name}_conv"
    )(x)
    x = layers.BatchNormalization(momentum=0.97, epsilon=1e-3, name=f"{name}_bn")(x)
    return layers.Activation("silu", name=f"{name}_silu")(x)
