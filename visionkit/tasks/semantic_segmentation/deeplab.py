"""DeepLab V3 (Chen et al. 2017) and V3+ (Chen et al., ECCV 2018)."""

from __future__ import annotations

from collections.abc import Sequence

import keras
from keras import layers

from visionkit.backbones.atrous import (
    deepest_level,
    output_stride,
    with_output_stride,
)
from visionkit.heads.deeplab import (
    ASPP,
    DROPOUT,
    NORM_MOMENTUM,
    DeepLabDecoder,
    check_rates,
)
from visionkit.ops.resize import ResizeLike
from visionkit.tasks.semantic_segmentation.segmenter import Segmenter
from visionkit.tasks.task import check_levels, select_levels
from visionkit.tasks.transfer import take_weights

_RATES = (6, 12, 18)  # at output stride 16 (V3, section 3.3)


@keras.saving.register_keras_serializable(package="visionkit")
class DeepLabV3(Segmenter):
    """Backbone with holes -> context of several ranges -> logits, resized.

        backbone = vk.build_backbone("resnet101", weights="imagenet", output_stride=16)
        model = vk.DeepLabV3(backbone, num_classes=21)
        finer = model.with_output_stride(8)  # the same weights

    The backbone's deepest level goes through `ASPP` and a 1x1 convolution, and its
    logits are resized to the image's size; images may have any size where the backbone
    was built with (None, None). Torchvision's has another 3x3 convolution in front of
    the last one, 590,336 parameters more.

    Args:
        backbone: A `keras.Model` with the level that is read, of output stride 16 or 8
            as published; others are possible.
        num_classes: Number of classes, with the background where the data have one.
        rates: Of the 3x3 convolutions of the `ASPP`; None for (6, 12, 18) at an output
            stride of 16, twice that at 8, and so on.
        head_channels: Of the convolutions of the head.
        separable: Whether its 3x3 convolutions are depthwise, then 1x1 (V3+, section
            3.1).
        dropout: Share of the context dropped in training; the authors' code has 0.1.
        norm_momentum: Share of the old running statistics that batch normalisation
            keeps in a step. The published value needs about 10,000 steps to forget the
            statistics it starts with, until which validation lags behind; 0.9 to 0.99
            suits a short training. A backbone has its own, `build_backbone`'s.
        preprocessing: `Preprocessing` for files; default "letterbox".
        class_names: Names in label order; default "0", "1", ...
        name: Name of the model; default that of the network.
        **kwargs: `auxiliary_level` and `auxiliary_weight`, see `Segmenter`.
    """

    default_name = "deeplab_v3"

    def __init__(
        self,
        backbone: keras.Model,
        num_classes: int,
        *,
        rates: Sequence[int] | None = None,
        head_channels: int = 256,
        separable: bool = False,
        dropout: float = DROPOUT,
        norm_momentum: float = NORM_MOMENTUM,
        preprocessing=None,
        class_names=None,
        name: str | None = None,
        **kwargs,
    ):
        head = {
            "channels": head_channels,
            "separable": separable,
            "norm_momentum": norm_momentum,
        }
        images = keras.Input(backbone.input.shape[1:], name="images")
        pyramid = backbone(images)
        check_levels(pyramid)
        aspp = ASPP(_rates_on(backbone, rates), dropout=dropout, **head, name="aspp")
        features = aspp(pyramid[deepest_level(pyramid)])
        features = self._decode(features, pyramid, head)
        # Not the authors' N(0, 0.01): under Adam all features would begin by telling
        # background apart, and stay alike.
        logits = layers.Conv2D(
            num_classes,
            1,
            dtype="float32",  # logits keep their digits in half precision
            name="logits",
        )(features)
        outputs = ResizeLike(name="resize")(logits, images)
        super().__init__(
            images,
            outputs,
            pyramid,
            num_classes=num_classes,
            components={
                "rates": rates and list(rates),
                "head_channels": head_channels,
                "separable": separable,
                "dropout": dropout,
                "norm_momentum": norm_momentum,
            },
            class_names=class_names,
            backbone=backbone,
            preprocessing=preprocessing,
            name=name or self.default_name,
            **kwargs,
        )

    @staticmethod
    def _decode(context, pyramid: dict, head: dict):
        """What the logits are made of; V3 has no decoder."""
        del pyramid, head
        return context

    def with_output_stride(self, stride: int):
        """A copy of the model with the same weights at another output stride.

        Train at 16, which is fast, and measure at 8, which is finer (V3, section 4.3).
        Rates follow the stride. A compiled model's copy is compiled too, with a fresh
        optimizer.

        Args:
            stride: 8, 16 or 32.

        Raises:
            ValueError: The backbone is none of `build_backbone`'s, or cannot have this
                stride.
        """
        config = self.get_config()
        ratio = output_stride(self.backbone) / stride
        if config["rates"]:
            config["rates"] = _scaled(config["rates"], ratio)
        policy = keras.config.dtype_policy()
        keras.config.set_dtype_policy(self.get_layer("aspp").dtype_policy)
        try:
            config["backbone"] = with_output_stride(self.backbone, stride)
            model = self.from_config(config)
        finally:
            keras.config.set_dtype_policy(policy)
        take_weights(model, self)
        if self.compiled:
            model.compile_from_config(self.get_compile_config())
        return model


@keras.saving.register_keras_serializable(package="visionkit")
class DeepLabV3Plus(DeepLabV3):
    """DeepLab V3 with a decoder: the context is sharpened by the level of stride 4.

        backbone = vk.build_backbone("resnet101", weights="imagenet", output_stride=16)
        model = vk.DeepLabV3Plus(backbone, num_classes=21)

    `ASPP`, then `DeepLabDecoder` with the backbone's level P2, a 1x1 convolution, and
    its logits are resized to the image's size. Arguments are those of `DeepLabV3`; the
    backbone must have P2 as well.
    """

    default_name = "deeplab_v3_plus"

    @staticmethod
    def _decode(context, pyramid: dict, head: dict):
        """The context at stride 4."""
        fine = select_levels(pyramid, ["P2"])["P2"]
        return DeepLabDecoder(**head, name="decoder")(context, fine)


def _rates_on(backbone: keras.Model, rates) -> Sequence[int]:
    """Those given, or the published ones at the backbone's output stride."""
    if rates is None:
        return _scaled(_RATES, 16 / output_stride(backbone))
    return check_rates(rates)


def _scaled(rates: Sequence[int], factor: float) -> list[int]:
    """Rates of the same reach in pixels of the image."""
    return [max(1, round(rate * factor)) for rate in rates]
