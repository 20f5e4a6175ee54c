"""U-Net (Ronneberger et al., "U-Net: Convolutional Networks for Biomedical Image
Segmentation", MICCAI 2015).
"""

from __future__ import annotations

import keras

from visionkit.backbones.atrous import check_undilated
from visionkit.backbones.names import flat_layers
from visionkit.backbones.unet import unpadded
from visionkit.blocks import CropLike
from visionkit.heads.unet import UNetHead
from visionkit.tasks.semantic_segmentation.segmenter import Segmenter
from visionkit.tasks.task import check_levels

PADDINGS = ("same", "valid")

WIDTH = 16
"""Channels at the image's size behind a backbone that has none there."""


@keras.saving.register_keras_serializable(package="visionkit")
class UNet(Segmenter):
    """Backbone -> all of its levels, from the coarsest up to the image's size.

        model = vk.UNet(vk.build_backbone("unet"), num_classes=2, padding="valid")
        model = vk.UNet(vk.build_backbone("unet_16_norm"), num_classes=2)
        model = vk.UNet(vk.build_backbone("resnet34", weights="r34.h5"), num_classes=2)

    The first is the published network: no convolution pads, so that every prediction
    has seen image all around it. There the image must be 184 pixels larger than what is
    predicted (572x572 gives 388x388), and is mirrored at its border to be so; here that
    is the network's own work, and the logits have the image's size all the same (388 is
    one without a remainder). `unet_16` has a quarter of the channels, `..._norm` batch
    normalisation; any other backbone takes the place of the contracting path. Sizes
    need no multiple of anything.

    Input, truth and outputs: see `Segmenter`.

    Args:
        backbone: A `keras.Model` with at least one level, not dilated.
        num_classes: Number of classes, a background among them.
        padding: `"same"`, or `"valid"` for the U-Net backbones.
        width: Channels at the image's size, twice as many at every coarser one;
            default those of the backbone's P0, 16 where it has none.
        norm: Whether the convolutions after the backbone have batch normalisation;
            default whether the backbone has any.
        preprocessing: `Preprocessing` for files; default "letterbox".
        class_names: Names in label order; default "0", "1", ...
        name: Name of the model.
        **kwargs: `auxiliary_level` and `auxiliary_weight`, see `Segmenter`.
    """

    def __init__(
        self,
        backbone: keras.Model,
        num_classes: int,
        *,
        padding: str = "same",
        width: int | None = None,
        norm: bool | None = None,
        preprocessing=None,
        class_names=None,
        name: str = "unet",
        **kwargs,
    ):
        if padding not in PADDINGS:
            raise ValueError(
                f"`padding` must be one of {PADDINGS}. Received: padding={padding!r}"
            )
        if padding == "valid" and kwargs.get("auxiliary_level"):
            raise ValueError(
                "With padding='valid' the levels are larger than the image, so none "
                "can have an auxiliary head. Use padding='same'."
            )
        check_levels(backbone.output)
        if padding == "valid":
            backbone = unpadded(backbone)
        if width is None:
            finest = backbone.output.get("P0")
            width = WIDTH if finest is None else finest.shape[-1]
        if norm is None:
            norm = any(
                isinstance(layer, keras.layers.BatchNormalization)
                for layer in flat_layers(backbone)
            )
        images = keras.Input(backbone.input.shape[1:], name="images")
        pyramid = backbone(images)
        head = UNetHead(
            num_classes,
            list(pyramid),
            width=width,
            padding=padding,
            norm=norm,
            name="head",
        )
        super().__init__(
            images,
            CropLike(name="logits")(head(pyramid), images),
            pyramid,
            backbone=backbone,
            num_classes=num_classes,
            components={"padding": padding, "width": width, "norm": norm},
            preprocessing=preprocessing,
            class_names=class_names,
            name=name,
            **kwargs,
        )
        if padding == "same":
            check_undilated(backbone)
        self.head = head
