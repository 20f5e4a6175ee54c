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
from visionkit.ops.matching import match_by_iou
from visionkit.ops.mining import hardest_negatives
from visionkit.ops.nms import NMS
from visionkit.ops.targets import anchor_targets
from visionkit.postprocess import DenseDetections
from visionkit.tasks.detection.components import level_sizes, resolve
from visionkit.tasks.detection.detector import (
    Detector,
    resolve_nms,
    select_levels,
    static_size,
)
from visionkit.tasks.task import (
    check_class_names,
    check_levels,
    default_preprocessing,
)

SSD_NMS = NMS(score_threshold=0.01, iou_threshold=0.45, max_detections=200, pre_nms=400)

NEGATIVES = 3.0
"""Negatives that train for each positive of their image (section 2.2)."""


@keras.saving.register_keras_serializable(package="visionkit")
class SSD(Detector):
    """Backbone -> its last levels and coarser ones -> a predictor for each.

        backbone = vk.build_backbone("vgg16_atrous", (300, 300), weights="imagenet")
        model = vk.SSD(backbone, num_classes=20)         # SSD300, 8,732 default boxes

        backbone = vk.build_backbone("mobilenet_v2", (320, 320), weights="imagenet")
        model = vk.SSD(backbone, num_classes=20, lite=True)                  # SSDLite

    What is built goes by the backbone. `vgg16_atrous` at 300x300 or 512x512: SSD300 and
    SSD512 as published. Others: their levels from P3 on (P4 where there is no P3) and
    added ones, six in all, with the default boxes of SSD300 in proportion to the image.
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
        backbone: A `keras.Model` with levels from P3 or P4 on, of a static size.
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
        image_size = static_size(backbone)
        components = {"lite": lite, "neck": neck, "anchors": anchors, "nms": nms}
        images = keras.Input(backbone.input.shape[1:], name="images")
        levels = backbone(images)
        check_levels(levels)
        neck = resolve(neck, lambda: default_neck(backbone, lite))
        pyramid = neck(select_levels(levels, neck.levels))
        anchors = resolve(anchors, lambda: default_boxes(list(pyramid)))
        nms = resolve_nms(nms, SSD_NMS)
        head = DenseHead(
            1 + num_classes,
            anchors.num_anchors,
            shared_levels=False,
            separable=lite,
            name="head",
        )
        outputs = head(pyramid)

        coder = BoxCoder((10, 10, 5, 5))  # one over the variances
        boxes = anchors(level_sizes(pyramid), image_size)
        super().__init__(
            images,
            outputs,
            backbone=backbone,
            num_classes=num_classes,
            postprocess=DenseDetections(
                boxes, coder, nms, image_size, "softmax", name="detections"
            ),
            preprocessing=preprocessing or default_preprocessing(backbone, "stretch"),
            class_names=class_names,
            name=name,
            **kwargs,
        )
        self.nms, self.coder, self.anchor_boxes = nms, coder, boxes
        self._components = components

    def default_losses(self):
        """Cross-entropy of the classes and the background, smooth L1 of the deltas."""
        return {
            "classes": keras.losses.SparseCategoricalCrossentropy(
                from_logits=True, reduction="sum"
            ),
            "boxes": SmoothL1(reduction="sum"),
        }

    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, training=True
    ):
        """Encodes the truth as targets of the default boxes; see the class."""
        match = match_by_iou(
            self.anchor_boxes,
            y["boxes"],
            y["labels"],
            positive=0.5,
            negative=0.5,
            force_best=True,
        )
        target = anchor_targets(
            match, self.anchor_boxes, y["boxes"], y["labels"], self.coder
        )
        background_loss = -ops.log_softmax(y_pred["classes"], axis=-1)[..., 0]
        mined = hardest_negatives(
            background_loss, match.positive, match.negative, NEGATIVES
        )
        positive = ops.cast(match.positive, "float32")
        count = ops.maximum(ops.sum(positive), 1.0)
        trained = positive + ops.cast(mined, "float32")
        y_true = {"classes": target["labels"] + 1, "boxes": target["deltas"]}
        weights = {"classes": trained / count, "boxes": positive / count}
        return super().compute_loss(x, y_true, y_pred, weights, training=training)

    def _init_config(self):
        return {"num_classes": self.num_classes, **self._components}


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
        extra = sizes.get(static_size(backbone), extra)
    # VGG has no normalisation of its own: its conv4_3 is far larger than the rest.
    normalize = backbone.name.startswith("vgg")
    return SSDExtra(levels, extra, normalize=normalize, name="neck")


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
