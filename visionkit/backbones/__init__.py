"""Backbones: images in, a pyramid of feature maps out.

Nothing here imports Keras or TensorFlow until a backbone is built, so that lists and
recipes can be checked in milliseconds.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence

from visionkit._quiet import import_keras
from visionkit._spelling import check_name
from visionkit.backbones.limits import (
    CLASSIFICATION_ONLY,
    check_multi_grid,
    check_options,
    check_output_stride,
    check_shape,
)

# `applications:Name` is any `keras.applications` network, `applications:Name_050` the
# same at half its width, `keras_cv:name` one of keras-cv: another is another line.
BACKBONES: dict[str, str] = {
    "lenet5": "visionkit.backbones.lenet:lenet5",
    "alexnet": "visionkit.backbones.alexnet:alexnet",
    "alexnet_ungrouped": "visionkit.backbones.alexnet:alexnet_ungrouped",
    "vgg16": "visionkit.backbones.applications:VGG16",
    "vgg16_atrous": "visionkit.backbones.vgg_atrous:vgg16_atrous",
    "vgg16_fcn": "visionkit.backbones.vgg_atrous:vgg16_fcn",
    "vgg19": "visionkit.backbones.applications:VGG19",
    "googlenet": "visionkit.backbones.googlenet:googlenet",
    "inception_v3": "visionkit.backbones.applications:InceptionV3",
    "inception_resnet_v2": "visionkit.backbones.applications:InceptionResNetV2",
    "xception": "visionkit.backbones.applications:Xception",
    "resnet18": "visionkit.backbones.resnet_basic:resnet18",
    "resnet34": "visionkit.backbones.resnet_basic:resnet34",
    "resnet50": "visionkit.backbones.applications:ResNet50",
    "resnet101": "visionkit.backbones.applications:ResNet101",
    "resnet152": "visionkit.backbones.applications:ResNet152",
    "resnet50_v2": "visionkit.backbones.applications:ResNet50V2",
    "resnet101_v2": "visionkit.backbones.applications:ResNet101V2",
    "resnet152_v2": "visionkit.backbones.applications:ResNet152V2",
    "resnet20_cifar": "visionkit.backbones.resnet_cifar:resnet20_cifar",
    "resnet32_cifar": "visionkit.backbones.resnet_cifar:resnet32_cifar",
    "resnet44_cifar": "visionkit.backbones.resnet_cifar:resnet44_cifar",
    "resnet56_cifar": "visionkit.backbones.resnet_cifar:resnet56_cifar",
    "resnet110_cifar": "visionkit.backbones.resnet_cifar:resnet110_cifar",
    "densenet121": "visionkit.backbones.applications:DenseNet121",
    "densenet169": "visionkit.backbones.applications:DenseNet169",
    "densenet201": "visionkit.backbones.applications:DenseNet201",
    "mobilenet_v1": "visionkit.backbones.applications:MobileNet",
    "mobilenet_v1_025": "visionkit.backbones.applications:MobileNet_025",
    "mobilenet_v1_050": "visionkit.backbones.applications:MobileNet_050",
    "mobilenet_v1_075": "visionkit.backbones.applications:MobileNet_075",
    "mobilenet_v2": "visionkit.backbones.applications:MobileNetV2",
    "mobilenet_v2_035": "visionkit.backbones.applications:MobileNetV2_035",
    "mobilenet_v2_050": "visionkit.backbones.applications:MobileNetV2_050",
    "mobilenet_v2_075": "visionkit.backbones.applications:MobileNetV2_075",
    "mobilenet_v2_140": "visionkit.backbones.applications:MobileNetV2_140",
    "mobilenet_v3_small": "visionkit.backbones.applications:MobileNetV3Small",
    "mobilenet_v3_large": "visionkit.backbones.applications:MobileNetV3Large",
    "shufflenet_v2_050": "visionkit.backbones.shufflenet_v2:shufflenet_v2_050",
    "shufflenet_v2_100": "visionkit.backbones.shufflenet_v2:shufflenet_v2_100",
    "shufflenet_v2_150": "visionkit.backbones.shufflenet_v2:shufflenet_v2_150",
    "shufflenet_v2_200": "visionkit.backbones.shufflenet_v2:shufflenet_v2_200",
    "ghostnet": "visionkit.backbones.ghostnet:ghostnet",
    "nasnet_mobile": "visionkit.backbones.applications:NASNetMobile",
    "nasnet_large": "visionkit.backbones.applications:NASNetLarge",
    "efficientnet_b0": "visionkit.backbones.applications:EfficientNetB0",
    "efficientnet_b1": "visionkit.backbones.applications:EfficientNetB1",
    "efficientnet_b2": "visionkit.backbones.applications:EfficientNetB2",
    "efficientnet_b3": "visionkit.backbones.applications:EfficientNetB3",
    "efficientnet_b4": "visionkit.backbones.applications:EfficientNetB4",
    "efficientnet_b5": "visionkit.backbones.applications:EfficientNetB5",
    "efficientnet_b6": "visionkit.backbones.applications:EfficientNetB6",
    "efficientnet_b7": "visionkit.backbones.applications:EfficientNetB7",
    "efficientnet_v2_b0": "visionkit.backbones.applications:EfficientNetV2B0",
    "efficientnet_v2_b1": "visionkit.backbones.applications:EfficientNetV2B1",
    "efficientnet_v2_b2": "visionkit.backbones.applications:EfficientNetV2B2",
    "efficientnet_v2_b3": "visionkit.backbones.applications:EfficientNetV2B3",
    "efficientnet_v2_s": "visionkit.backbones.applications:EfficientNetV2S",
    "efficientnet_v2_m": "visionkit.backbones.applications:EfficientNetV2M",
    "efficientnet_v2_l": "visionkit.backbones.applications:EfficientNetV2L",
    "convnext_tiny": "visionkit.backbones.applications:ConvNeXtTiny",
    "convnext_small": "visionkit.backbones.applications:ConvNeXtSmall",
    "convnext_base": "visionkit.backbones.applications:ConvNeXtBase",
    "convnext_large": "visionkit.backbones.applications:ConvNeXtLarge",
    "convnext_xlarge": "visionkit.backbones.applications:ConvNeXtXLarge",
    "csp_darknet_n": "visionkit.backbones.csp_darknet:csp_darknet_n",
    "csp_darknet_s": "visionkit.backbones.csp_darknet:csp_darknet_s",
    "csp_darknet_m": "visionkit.backbones.csp_darknet:csp_darknet_m",
    "csp_darknet_l": "visionkit.backbones.csp_darknet:csp_darknet_l",
    "csp_darknet_x": "visionkit.backbones.csp_darknet:csp_darknet_x",
    "unet": "visionkit.backbones.unet:unet",
    "unet_norm": "visionkit.backbones.unet:unet_norm",
    "unet_32": "visionkit.backbones.unet:unet_32",
    "unet_32_norm": "visionkit.backbones.unet:unet_32_norm",
    "unet_16": "visionkit.backbones.unet:unet_16",
    "unet_16_norm": "visionkit.backbones.unet:unet_16_norm",
    "keras_cv.resnet_18": "visionkit.backbones.keras_cv:resnet_18",
    "keras_cv.resnet_34": "visionkit.backbones.keras_cv:resnet_34",
    "keras_cv.resnet_50": "visionkit.backbones.keras_cv:resnet_50",
    "keras_cv.resnet_101": "visionkit.backbones.keras_cv:resnet_101",
    "keras_cv.resnet_152": "visionkit.backbones.keras_cv:resnet_152",
    "keras_cv.resnet_v2_18": "visionkit.backbones.keras_cv:resnet_v2_18",
    "keras_cv.resnet_v2_34": "visionkit.backbones.keras_cv:resnet_v2_34",
    "keras_cv.resnet_v2_50": "visionkit.backbones.keras_cv:resnet_v2_50",
    "keras_cv.resnet_v2_101": "visionkit.backbones.keras_cv:resnet_v2_101",
    "keras_cv.resnet_v2_152": "visionkit.backbones.keras_cv:resnet_v2_152",
    "keras_cv.densenet_121": "visionkit.backbones.keras_cv:densenet_121",
    "keras_cv.densenet_169": "visionkit.backbones.keras_cv:densenet_169",
    "keras_cv.densenet_201": "visionkit.backbones.keras_cv:densenet_201",
    "keras_cv.csp_darknet_tiny": "visionkit.backbones.keras_cv:csp_darknet_tiny",
    "keras_cv.csp_darknet_s": "visionkit.backbones.keras_cv:csp_darknet_s",
    "keras_cv.csp_darknet_m": "visionkit.backbones.keras_cv:csp_darknet_m",
    "keras_cv.csp_darknet_l": "visionkit.backbones.keras_cv:csp_darknet_l",
    "keras_cv.csp_darknet_xl": "visionkit.backbones.keras_cv:csp_darknet_xl",
    "keras_cv.efficientnet_v2_b0": "visionkit.backbones.keras_cv:efficientnet_v2_b0",
    "keras_cv.efficientnet_v2_s": "visionkit.backbones.keras_cv:efficientnet_v2_s",
    "keras_cv.mobilenet_v3_small": "visionkit.backbones.keras_cv:mobilenet_v3_small",
    "keras_cv.mobilenet_v3_large": "visionkit.backbones.keras_cv:mobilenet_v3_large",
}
"""Name to "module:function". The function takes `imagenet` (bool, default False) and
returns the network as published, a functional `keras.Model` with static input size
whose first layers normalise images of 0..255."""

# Backbones that take the file of another network, and what turns one into the other.
_CONVERSIONS = {
    "vgg16_atrous": "visionkit.backbones.vgg_atrous:subsample",
    "vgg16_fcn": "visionkit.backbones.vgg_atrous:convolve",
}

# Layers that may be levels, where the last one at a stride is inside of a block or
# not the one that was published; "P0" is there only by being named here.
_TAPS = {
    "vgg16_fcn": r"block[1-4]_pool",
    **dict.fromkeys(
        (name for name in BACKBONES if name.startswith("unet")), r"stage[0-3]_2_relu"
    ),
    "inception_v3": r"activation(_[1-4])?|mixed\d+",
    "inception_resnet_v2": r"activation(_[1-4])?|block(35|17)_\d+_ac",
    "nasnet_mobile": r"stem_bn1|(reduction|normal)_concat_.*",
    "nasnet_large": r"stem_bn1|(reduction|normal)_concat_.*",
    **dict.fromkeys(
        [f"shufflenet_v2_{width}" for width in ("050", "100", "150", "200")],
        r"conv1_relu|pool1|stage\d_block\d_out",
    ),
    **dict.fromkeys(
        [f"keras_cv.resnet_v2_{depth}" for depth in (18, 34, 50, 101, 152)],
        r"conv1_conv|.*_preactivation_relu",
    ),
    **dict.fromkeys(
        ("resnet50_v2", "resnet101_v2", "resnet152_v2"),
        r"conv1_conv|conv\d_block\d+_preact_relu",
    ),
}


def build_backbone(
    name: str,
    image_size: tuple[int | None, int | None] = (None, None),
    *,
    channels: int = 3,
    weights: str | os.PathLike | None = None,
    output_stride: int = 32,
    multi_grid: Sequence[int] | None = None,
    freeze: Sequence[str] = (),
    norm_momentum: float | None = None,
    stochastic_depth: float | None = None,
    backbone_dropout: float | None = None,
):
    """A functional `keras.Model` from images to the levels of a feature pyramid.

    Its input `images` is (B, H, W, C), 0..255, RGB where C = 3, float32 or uint8;
    normalisation is its first layer. Its output is a dict {"P1": (B, h1, w1, C1), ...}
    where Pn, the last feature map at stride 2**n, has the size ceil(image_size / 2**n)
    for every image size; U-Net's have "P0" too. (Networks that pad less were published
    with other sizes; here their convolutions pad to `same`, with the same weights. The
    backbones in `CLASSIFICATION_ONLY` are left as published.)

    Args:
        name: A key of `BACKBONES`.
        image_size: (height, width) in pixels; None leaves a side dynamic.
        channels: Channels of the images. Other than 3, the normalisation is averaged
            over the channels, and so is the first kernel of `weights`, rescaled to
            keep the sum of its weights.
        weights: None (random), "imagenet" (what keras.applications downloads) or the
            path of a `.weights.h5`, `.keras` or legacy `.h5` file, written by this
            backbone or by the keras.applications network with `include_top=False`.
            Tops are never loaded. (`vgg16_fcn` and `vgg16_atrous` take that of the
            whole VGG16, whose fully connected layers they use or thin out.)
        output_stride: 32, or 16 or 8 to turn the last one or two strides into
            dilation, with the same weights. Levels keep their names: with 16, "P5"
            has the size of "P4". Families in which this would not give the undilated
            features on a finer grid refuse it: those with squeeze-and-excitation
            (EfficientNet, MobileNetV3, GhostNet), with poolings inside of late blocks
            (Inception v1 and v3, NASNet, CSPDarkNet; DenseNet, VGG and
            Inception-ResNet at 8), Xception and those of keras-cv.
        multi_grid: Unit rates of the blocks of a ResNet's last stage (DeepLab V3,
            section 3.2.1), such as (1, 2, 4): each 3x3 convolution has that many times
            the rate that the output stride gives, at 16 they are 2, 4 and 8. Weights
            are the same ones. One number for each block: two in ResNet-18, three in
            ResNet-34 to 152; other backbones refuse it. None for ones.
        freeze: Levels such as ("P1", "P2"): every layer up to and including those
            stays fixed, batch normalisation in inference mode. "norm" among them: so
            does every batch normalisation, as R-CNN and RetinaNet are published, whose
            few images per device say little about statistics. This is saved along.
        norm_momentum: Share of the old running statistics that batch normalisation
            keeps in a step. The published value (0.999 for MobileNetV2) needs several
            thousand steps to forget the statistics it starts with, which makes
            validation lag behind a short fine-tuning; 0.9 to 0.99 suits that. None
            keeps the published one.
        stochastic_depth: Share of images for which training leaves out the last
            residual branch, growing linearly from the first (Huang et al. 2016); 0
            for none. None keeps what was published: 0.2 in EfficientNets, none
            elsewhere. Networks without residual additions refuse it.
        backbone_dropout: Share of single features that the backbone's own dropouts
            leave out in training: on U-Net's deepest level, behind fc6 and fc7 of
            `vgg16_fcn`. None keeps what was published, 0.5; others refuse it.

    Returns:
        The model, of Keras' own and registered layers, named `name`.

    Raises:
        ValueError: Unknown name or level, an option out of range, a file that does
            not fit (nothing has been loaded then).
        FileNotFoundError: No file at `weights`.
        ImportError: A backbone of keras-cv without keras-cv or without TensorFlow.
        ConnectionError: The "imagenet" download failed.
    """
    check_name("backbone", name, BACKBONES)
    shape = check_shape(image_size, channels)
    check_output_stride(name, output_stride)
    check_multi_grid(name, multi_grid)
    check_options(name, weights, stochastic_depth)

    import_keras()
    from visionkit.backbones.dilate import rebuild
    from visionkit.backbones.settings import (
        freeze_parts,
        set_dropout,
        set_norm_momentum,
    )
    from visionkit.backbones.weights import layer_variables, load_file, load_layers

    build = _resolve(BACKBONES[name])
    imagenet = isinstance(weights, str) and weights == "imagenet"
    reference = build(imagenet=imagenet)
    pyramid = name not in CLASSIFICATION_ONLY
    backbone = rebuild(
        reference,
        name,
        shape,
        output_stride,
        pyramid=pyramid,
        taps=_TAPS.get(name),
        stochastic_depth=stochastic_depth,
        multi_grid=multi_grid,
    )
    freeze_parts(backbone, freeze)
    if norm_momentum is not None:
        set_norm_momentum(backbone, norm_momentum)
    if backbone_dropout is not None:
        set_dropout(backbone, backbone_dropout)
    if imagenet:
        load_layers(backbone, layer_variables(reference), "The ImageNet network")
    elif weights is not None:
        convert = _resolve(_CONVERSIONS[name]) if name in _CONVERSIONS else None
        load_file(backbone, weights, list(layer_variables(reference)), convert)
    return backbone


def _resolve(reference: str):
    """The object that "module:attribute" names."""
    module, _, attribute = reference.partition(":")
    return getattr(importlib.import_module(module), attribute)
