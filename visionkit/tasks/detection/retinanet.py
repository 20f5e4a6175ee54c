"""RetinaNet (Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017)."""

from __future__ import annotations

import keras
from keras import ops

from visionkit.heads.dense import DenseHead
from visionkit.losses.boxes import SigmoidFocalLoss, SmoothL1
from visionkit.necks.fpn import FPN
from visionkit.ops.anchors import RETINANET_ANCHORS
from visionkit.ops.box_coder import BoxCoder
from visionkit.ops.nms import NMS
from visionkit.tasks.detection.anchored import AnchorDetector, anchor_terms
from visionkit.tasks.detection.components import resolve
from visionkit.tasks.detection.detector import answer_size
from visionkit.tasks.task import check_class_names, check_levels, select_levels

RETINANET_NMS = NMS(
    score_threshold=0.05, iou_threshold=0.5, max_detections=100, pre_nms=1000
)


@keras.saving.register_keras_serializable(package="visionkit")
class RetinaNet(AnchorDetector):
    """Backbone -> feature pyramid -> one head for every anchor of every level.

        backbone = vk.build_backbone("resnet50", (640, 640), weights="imagenet")
        model = vk.RetinaNet(backbone, num_classes=80)

    As published: P3 to P7, nine anchors at every place, two towers of four 3x3
    convolutions, a focal loss on all anchors and an absolute error on the deltas of the
    positive ones (IoU at least 0.5, or the best anchor of a truth; negative below 0.4),
    both divided by the number of positives of the batch.
    `model(x)`: {"classes": (B, A, num_classes) logits, "boxes": (B, A, 4) deltas}.

    Args:
        backbone: A `keras.Model` with the levels that the neck reads; for its size see
            `Detector`.
        num_classes: Number of classes.
        neck: An `FPN`, or a dict of options of the default one: `{"channels": 64}`, or
            `{"coarse": "output"}` for a P6 made of P5 in place of the backbone's last
            level.
        head: A dict of options of `DenseHead`: `depth` (4), `channels` (those of the
            neck), `prior` (0.01), `normalization` (None, or "batch" as in TF Model
            Garden).
        anchors: An `AnchorGenerator` with the neck's levels, or a dict of options of
            the published one: `{"sizes": [16, 32, 64, 128, 256]}`.
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
        head: dict | None = None,
        anchors=None,
        nms=None,
        preprocessing=None,
        class_names=None,
        name: str = "retinanet",
        **kwargs,
    ):
        class_names = check_class_names(num_classes, class_names, at_least=1)
        image_size = answer_size(backbone, preprocessing)
        components = {"neck": neck, "head": head, "anchors": anchors, "nms": nms}
        neck = resolve(neck, lambda: FPN(name="neck"))
        anchors = resolve(anchors, lambda: RETINANET_ANCHORS)
        nms = resolve(nms, lambda: RETINANET_NMS)

        images = keras.Input(backbone.input.shape[1:], name="images")
        levels = backbone(images)
        check_levels(levels)
        pyramid = neck(select_levels(levels, neck.levels))
        options = {"depth": 4, "channels": neck.channels, "prior": 0.01, **(head or {})}
        head = DenseHead(num_classes, anchors.num_anchors, **options, name="head")
        super().__init__(
            images,
            pyramid,
            head(pyramid),
            backbone=backbone,
            num_classes=num_classes,
            image_size=image_size,
            anchors=anchors,
            coder=BoxCoder(),
            activation="sigmoid",
            nms=nms,
            preprocessing=preprocessing,
            class_names=class_names,
            components=components,
            name=name,
            **kwargs,
        )

    def default_losses(self):
        """Focal loss of the classes, absolute error of the deltas."""
        return {
            "classes": SigmoidFocalLoss(reduction="sum"),
            "boxes": SmoothL1(beta=0.0, reduction="sum"),
        }

    def loss_terms(self, x, y, y_pred, training):
        """The truth as targets of the anchors; see the class."""
        match, target = self.match(x, y, positive=0.5, negative=0.4)
        # A label of -1, background, is a row of zeros.
        classes = ops.one_hot(target["labels"], self.num_classes)
        return anchor_terms(match, classes, target["deltas"], y_pred)
