"""FCN (Long, Shelhamer and Darrell, "Fully Convolutional Networks for Semantic
Segmentation", CVPR 2015).
"""

from __future__ import annotations

import keras

from visionkit.backbones.atrous import check_undilated
from visionkit.blocks import CropLike
from visionkit.heads.fcn import LEVELS, FCNHead
from visionkit.tasks.semantic_segmentation.segmenter import Segmenter
from visionkit.tasks.task import check_levels, select_levels
from visionkit.tasks.transfer import take_weights


@keras.saving.register_keras_serializable(package="visionkit")
class FCN(Segmenter):
    """Backbone -> 1x1 scores of P5 (P4, P3) -> learnt upsampling to the image's size.

        backbone = vk.build_backbone("vgg16_fcn", weights="imagenet")
        model = vk.FCN(backbone, num_classes=21, stride=32)             # FCN-32s
        model.compile()
        model.fit(dataset)
        model = model.with_stride(16)           # FCN-16s, from what FCN-32s has learnt

    On `vgg16_fcn` as published: fc6 and fc7 are convolutions with the weights of VGG's
    fully connected layers, P4 and P3 are pool4 and pool3. One thing is not: there the
    first convolution pads the image by 100 pixels, because fc6 does not pad, and the
    logits are cropped by an offset that goes with that. Here all convolutions pad to
    `same`, which gives one score for each 32x32 pixels from the first pixel on, and
    logits at the image's own size for every size.
    On other backbones a 3x3 convolution with a quarter of P5's channels, batch
    normalisation and ReLU takes the place of fc6 and fc7, as is usual on ResNets.
    The transposed convolutions see zeros beyond the border, which makes the logits of
    the outermost half stride smaller, of all classes alike.

    Input, truth and outputs: see `Segmenter`.

    Args:
        backbone: A `keras.Model` with P5, for strides 16 and 8 with P4 and P3, not
            dilated.
        num_classes: Number of classes, a background among them.
        stride: 32, 16 or 8, of the finest level that is scored.
        head_channels: Of the convolution before the scores of P5, 0 for none; default
            none on `vgg16_fcn`, a quarter of P5's elsewhere.
        dropout: Share of its features dropped in training.
        learn_upsampling: Whether the upsampling trains; it begins as bilinear.
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
        stride: int = 8,
        head_channels: int | None = None,
        dropout: float = 0.1,
        learn_upsampling: bool = True,
        preprocessing=None,
        class_names=None,
        name: str = "fcn",
        **kwargs,
    ):
        images = keras.Input(backbone.input.shape[1:], name="images")
        pyramid = backbone(images)
        check_levels(pyramid)
        if head_channels is None:
            whole = backbone.name == "vgg16_fcn"
            head_channels = (
                0 if whole or "P5" not in pyramid else pyramid["P5"].shape[-1] // 4
            )
        head = FCNHead(
            num_classes,
            stride=stride,
            channels=head_channels,
            dropout=dropout,
            learn_upsampling=learn_upsampling,
            name="head",
        )
        logits = head(select_levels(pyramid, LEVELS[stride]))
        super().__init__(
            images,
            CropLike(name="logits")(logits, images),
            pyramid,
            backbone=backbone,
            num_classes=num_classes,
            components={
                "stride": stride,
                "head_channels": head_channels,
                "dropout": dropout,
                "learn_upsampling": learn_upsampling,
            },
            preprocessing=preprocessing,
            class_names=class_names,
            name=name,
            **kwargs,
        )
        check_undilated(backbone)
        self.head = head

    def with_stride(self, stride: int) -> FCN:
        """A model of another stride, uncompiled, with the weights that both have.

        Scores that it adds are zero, so that it begins with this model's answers, but
        for two interpolations in a row not being one.

        Args:
            stride: 32, 16 or 8.
        """
        model = type(self).from_config({**self.get_config(), "stride": stride})
        take_weights(model, self)
        return model
