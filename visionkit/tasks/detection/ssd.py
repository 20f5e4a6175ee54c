"""SSD (Liu et al., "SSD: Single Shot MultiBox Detector", ECCV 2016) and SSDLite."""

from __future__ import annotations

import keras
from keras import ops

from visionkit.heads.dense import DenseHead
from visionkit.losses.boxes import SmoothL1
from visionkit.necks.ssd_extra import (
    SSD300_EXTRA,
    SSD512_EXTRA,
    SSDLITE_EXTRA,
    SSDExtra,
)
from visionkit.ops.anchors import (
    SSD300_BOXES,
    SSD512_BOXES,
    SSDLITE_BOXES,
    DefaultBoxes,
)
from visionkit.ops.box_coder import BoxCoder
from visionkit.ops.mining import hardest_negatives
from visionkit.ops.nms import NMS
from visionkit.tasks.detection.anchored import AnchorDetector, anchor_terms
from visionkit.tasks.detection.components import resolve
from visionkit.tasks.detection.detector import answer_size
from visionkit.tasks.task import check_class_names, check_levels, select_levels

SSD_NMS = NMS(score_threshold=0.01, iou_threshold=0.45, max_detections=200, pre_nms=400)

NEGATIVES = 3.0
"""Negatives that train for each positive of their image (section 2.2)."""


@keras.saving.register_keras_serializable(package="visionkit")
class SSD(AnchorDetector):
    """Backbone -> its last levels and coarser ones -> a predictor for each.

        backbone = vk.build_backbone("vgg16_atrous", (300, 300), weights="imagenet")
        model = vk.SSD(backbone, num_classes=20)         # SSD300, 8,732 default boxes

        backbone = vk.build_backbone("mobilenet_v2", (320, 320), weights="imagenet")
        model = vk.SSD(backbone, num_classes=20, lite=True)                  # SSDLite

    What is built goes by the backbone. `vgg16_atrous` at 300x300 or 512x512: SSD300 and
    SSD512 as published. Others, and it at other or dynamic sizes: their levels from P3
    on (P4 where there is no P3) and added ones, six in all, with the default boxes of
    SSD300 in proportion to the image.
    `lite`: the same from P4 on, with separable convolutions (Sandler et al. 2018,
    section 6.2: MobileNetV2's P4 is the expansion of its 15th layer, its P5 the last
    layer); boxes of shares 0.2 to 0.95 of the image and six at each place on every
    level (the published configuration has three on the first); strides from `same`
    padding.

    As published: softmax with the background as class 0, smooth L1 on the deltas
    (variances 0.1, 0.1, 0.2, 0.2); positive are the best box of each truth and every
    other with an IoU of at least 0.5, negative the three hardest others for each; both
    losses divided by the number of positives of the batch.
    `model(x)`: {"classes": (B, A, 1 + num_classes) logits, "boxes": (B, A, 4) deltas}.

    Args:
        backbone: A `keras.Model` with levels from P3 or P4 on; for its size see
            `Detector`.
        num_classes: Number of classes, without the background.
        lite: Separable convolutions, from P4 on.
        neck: An `SSDExtra`, or a dict of options of the default one.
        anchors: A `DefaultBoxes` with the neck's levels, or a dict of options of the
            default one, such as its `min_sizes` and `max_sizes`.
        nms: An `NMS`, or a dict of options: `{"score_threshold": 0.2}`.
        preprocessing: `Preprocessing` for files; default "stretch".
        class_names: Names in label order; default "0", "1", ...
        name: Name of the model.
    """

    default_resize = "stretch"

    def __init__(
        self,
        backbone: keras.Model,
        num_classes: int,
        *,
        lite: bool = False,
        neck=None,
        anchors=None,
        nms=None,
        preprocessing=None,
        class_names=None,
        name: str = "ssd",
        **kwargs,
    ):
        class_names = check_class_names(num_classes, class_names, at_least=1)
        image_size = answer_size(backbone, preprocessing)
        components = {"lite": lite, "neck": neck, "anchors": anchors, "nms": nms}
        images = keras.Input(backbone.input.shape[1:], name="images")
        levels = backbone(images)
        check_levels(levels)
        neck = resolve(neck, lambda: default_neck(backbone, lite))
        _check_padding(neck, backbone)
        pyramid = neck(select_levels(levels, neck.levels))
        anchors = resolve(anchors, lambda: default_boxes(list(pyramid)))
        nms = resolve(nms, lambda: SSD_NMS)
        head = DenseHead(
            1 + num_classes,
            anchors.num_anchors,
            shared_levels=False,
            separable=lite,
            name="head",
        )
        super().__init__(
            images,
            pyramid,
            head(pyramid),
            backbone=backbone,
            num_classes=num_classes,
            image_size=image_size,
            anchors=anchors,
            coder=BoxCoder((10, 10, 5, 5)),  # one over the variances
            activation="softmax",
            nms=nms,
            preprocessing=preprocessing,
            class_names=class_names,
            components=components,
            name=name,
            **kwargs,
        )

    def default_losses(self):
        """Cross-entropy of the classes and the background, smooth L1 of the deltas."""
        return {
            "classes": keras.losses.SparseCategoricalCrossentropy(
                from_logits=True, reduction="sum"
            ),
            "boxes": SmoothL1(reduction="sum"),
        }

    def loss_terms(self, x, y, y_pred, training):
        """The truth as targets of the default boxes; see the class."""
        match, target = self.match(x, y, positive=0.5, negative=0.5)
        background_loss = -ops.log_softmax(y_pred["classes"], axis=-1)[..., 0]
        mined = hardest_negatives(
            background_loss, match.positive, match.negative, NEGATIVES
        )
        match = match._replace(negative=mined)
        return anchor_terms(match, target["labels"] + 1, target["deltas"], y_pred)


def default_neck(backbone: keras.Model, lite: bool = False) -> SSDExtra:
    """The levels of a backbone that SSD reads, and those that it adds.

    Raises:
        ValueError: The backbone has no level P4.
    """
    levels = [level for level in ("P3", "P4", "P5") if level in backbone.output]
    if lite:
        select_levels(backbone.output, ("P4", "P5"))
        return SSDExtra(("P4", "P5"), SSDLITE_EXTRA, separable=True, name="neck")
    select_levels(backbone.output, ("P4",))
    extra = SSDLITE_EXTRA[: 6 - len(levels)]
    if levels[-1] == "P4":
        sizes = {(300, 300): SSD300_EXTRA, (512, 512): SSD512_EXTRA}
        extra = sizes.get(tuple(backbone.input.shape[1:3]), extra)
    # VGG has no normalisation of its own: its conv4_3 is far larger than the rest.
    normalize = backbone.name.startswith("vgg")
    return SSDExtra(levels, extra, normalize=normalize, name="neck")


def _check_padding(neck: SSDExtra, backbone: keras.Model) -> None:
    """Refuse levels whose size does not follow from that of the images."""
    dynamic = None in backbone.input.shape[1:3]
    if dynamic and any(padding == "valid" for *_, padding in neck.extra):
        raise ValueError(
            "On a backbone of dynamic size all levels that the neck adds must be "
            "padded, 'same', so that their size follows from that of the images. "
            f"Received: extra={neck.extra}"
        )


def default_boxes(levels: list[str]) -> DefaultBoxes:
    """The published default boxes for levels of these names.

    Raises:
        ValueError: There are none: other levels need default boxes of their own.
    """
    for boxes in (SSD300_BOXES, SSD512_BOXES, SSDLITE_BOXES):
        if list(boxes.levels) == levels:
            return boxes
    raise ValueError(
        "There are no published default boxes for the levels "
        f"{', '.join(levels)}. Pass `anchors=DefaultBoxes(...)` for them."
    )
