"""Faster R-CNN (Ren et al. 2015) with a feature pyramid (Lin et al. 2017)."""

from __future__ import annotations

import keras

from visionkit.heads.dense import DenseHead
from visionkit.losses.boxes import SmoothL1
from visionkit.necks.fpn import FPN
from visionkit.ops.anchors import RPN_ANCHORS
from visionkit.tasks.detection.components import level_sizes, per_size, resolve
from visionkit.tasks.detection.detector import answer_size
from visionkit.tasks.detection.proposals import (
    Proposals,
    RPNOptions,
    anchors_by_level,
    rpn_terms,
)
from visionkit.tasks.detection.rcnn import RCNN
from visionkit.tasks.task import check_levels, select_levels

RCNN_LEVELS = ("P2", "P3", "P4", "P5")


@keras.saving.register_keras_serializable(package="visionkit")
class FasterRCNN(RCNN):
    """Backbone -> feature pyramid -> RPN -> proposals -> box head, one network.

        backbone = vk.build_backbone(
            "resnet50", (640, 640), weights="imagenet", freeze=("P1", "P2", "norm")
        )
        model = vk.FasterRCNN(backbone, num_classes=80)

    As published: P2 to P5 for the boxes and P6 for the RPN alone, three anchors at
    every place, RoIAlign of 7x7, two dense layers of 1,024, deltas for each class. Both
    stages train at once, on random samples of anchors and of regions; no gradient
    passes through the proposals.

    The published networks keep all batch normalisation of the backbone as ImageNet left
    it, since two images per device say little about statistics: "norm" in `freeze` does
    so. Nothing is frozen by default, for a backbone that starts at random needs its
    statistics.

    `model(x)` beside what `RCNN` says: {"rpn_classes": (B, A, 1) objectness logits,
    "rpn_boxes": (B, A, 4) deltas, "proposal_scores": (B, N) objectness in [0, 1]}.

    Args:
        backbone: A `keras.Model` with the levels that the neck reads; for its size see
            `Detector`.
        num_classes: Number of classes.
        neck: An `FPN` with all levels of the anchors, or a dict of options of the
            default one: `{"channels": 64}`. The box head reads its `levels`.
        anchors: An `AnchorGenerator`, or a dict of options of the published one:
            `{"sizes": [16, 32, 64, 128, 256]}`.
        rpn: `RPNOptions`, or a dict of them: `{"num_proposals": 300}`.
        roi: `RoiOptions`, or a dict of them: `{"num_samples": 128, "units": 256}`.
        nms: An `NMS`, or a dict of options: `{"score_threshold": 0.2}`.
        preprocessing: `Preprocessing` for files; default "shortest_edge".
        class_names: Names in label order; default "0", "1", ...
        name: Name of the model.
    """

    def __init__(
        self,
        backbone: keras.Model,
        num_classes: int,
        *,
        neck=None,
        anchors=None,
        rpn=None,
        roi=None,
        nms=None,
        preprocessing=None,
        class_names=None,
        name: str = "faster_rcnn",
        **kwargs,
    ):
        image_size = answer_size(backbone, preprocessing)
        components = {"neck": neck, "anchors": anchors, "rpn": rpn}
        components |= {"roi": roi, "nms": nms}
        neck = resolve(neck, _default_neck)
        anchors = resolve(anchors, lambda: RPN_ANCHORS)
        rpn = resolve(rpn, RPNOptions)

        images = keras.Input(backbone.input.shape[1:], name="images")
        levels = backbone(images)
        check_levels(levels)
        pyramid = neck(select_levels(levels, neck.levels))
        objects = DenseHead(
            1,
            anchors.num_anchors,
            depth=1,
            channels=neck.channels,
            shared_tower=True,
            kernel_size=1,
            name="rpn_head",
        )(pyramid)
        anchors_at = per_size(
            lambda size: anchors_by_level(anchors, level_sizes(pyramid, size), size)
        )
        propose = Proposals(anchors_at, rpn, name="proposals")
        proposals, scores = propose(objects["classes"], objects["boxes"], images)
        outputs = {f"rpn_{output}": value for output, value in objects.items()}
        super().__init__(
            images,
            {level: pyramid[level] for level in neck.levels},
            proposals,
            {**outputs, "proposal_scores": scores},
            image_size=image_size,
            backbone=backbone,
            num_classes=num_classes,
            roi=roi,
            nms=nms,
            preprocessing=preprocessing,
            class_names=class_names,
            components=components,
            name=name,
            **kwargs,
        )
        self.neck, self.rpn = neck, rpn
        self.anchor_boxes, _ = anchors_at(image_size)
        self._anchors_at = anchors_at

    def default_losses(self):
        """Those of the RPN and of the box head."""
        return {
            "rpn_classes": keras.losses.BinaryCrossentropy(
                from_logits=True, reduction="sum"
            ),
            "rpn_boxes": SmoothL1(beta=0.0, reduction="sum"),
            **super().default_losses(),
        }

    def loss_terms(self, x, y, y_pred, training):
        """Those of the RPN and of the box head; see `RCNN`."""
        seed = self.seed_generator if training else 0
        anchors, _ = self._anchors_at(self.image_size(x))
        first = rpn_terms(anchors, y_pred, y["boxes"], y["labels"], self.rpn, seed)
        return {**first, **super().loss_terms(x, y, y_pred, training)}


def _default_neck() -> FPN:
    return FPN(RCNN_LEVELS, num_coarse=1, coarse="pool", name="neck")
