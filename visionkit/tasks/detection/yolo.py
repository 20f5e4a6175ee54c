"""YOLO without anchors, in the form and sizes of YOLOv8."""

from __future__ import annotations

from typing import ClassVar

import keras
from keras import ops

from visionkit.backbones.atrous import check_undilated
from visionkit.backbones.csp_darknet import SIZES
from visionkit.heads.yolo import YOLOHead
from visionkit.losses.boxes import IoULoss
from visionkit.losses.distribution_focal import DistributionFocalLoss
from visionkit.necks.pan import PAN
from visionkit.ops.anchors import anchor_points
from visionkit.ops.box_coder import boxes_to_distances, distances_to_boxes
from visionkit.ops.boxes import clip_boxes
from visionkit.ops.distribution import expected_distances
from visionkit.ops.gather import gather_rows
from visionkit.ops.nms import NMS
from visionkit.ops.task_aligned import assign_task_aligned
from visionkit.tasks.detection.components import level_sizes, per_size, resolve
from visionkit.tasks.detection.detector import Detector, answer_size
from visionkit.tasks.task import check_class_names, check_levels, select_levels

# The published settings of the evaluation. A lower limit of scores than anyone wants to
# see gives the precision-recall curve its end.
YOLO_NMS = NMS(
    score_threshold=0.001, iou_threshold=0.7, max_detections=300, pre_nms=3000
)


@keras.saving.register_keras_serializable(package="visionkit")
class YOLO(Detector):
    """YOLOv8: path aggregation, a decoupled head without anchors, task alignment.

        backbone = vk.build_backbone("csp_darknet_n", (640, 640))
        model = YOLO(backbone, num_classes=80)

    Written from its published description and numbers, for any backbone with P3 to P5.
    On `csp_darknet_n`, `s`, `m`, `l` and `x`, with 80 classes, its trainable parameters
    and 16 are the published 3,157,200, 11,166,560, 25,902,640, 43,691,520 and
    68,229,648: those count the distances 0 to 15, constants here, as a fixed kernel.

    Raw outputs: see `YOLOHead`. The losses are "classes", binary cross-entropy of soft
    targets; "boxes", 1 - CIoU; "distribution", distribution focal loss; weighted 0.5,
    7.5 and 1.5. Each is a sum over the batch, over max(sum of all targets, 1), times
    the number of images: so the published rate of SGD, 0.01 with gradients clipped to a
    norm of 10, is meant for it.
    An object so small that no cell's centre is inside of it teaches nothing.

    Args:
        backbone: A `keras.Model` with the levels that the neck reads, P3 to P5 as a
            rule; for its size see `Detector`.
        num_classes: Number of classes.
        size: "n", "s", "m", "l" or "x": depth and width of the neck and the head.
            Default that of a `csp_darknet` backbone, "n" for others.
        neck: A `PAN`, another layer from levels to levels, or a dict of options of the
            `PAN` of that size: `{"channels": [32, 64, 64]}`.
        nms: An `NMS`, or a dict of options of the published evaluation's (scores above
            0.001, IoU 0.7, 300 detections): `{"score_threshold": 0.25}`.
        preprocessing: `Preprocessing` for files; default letterbox.
        class_names: Names in label order; default "0", "1", ...
        name: Name of the model.

    Raises:
        ValueError: Unknown size, or a backbone that lacks a level, or images of no
            known size.
    """

    default_resize = "letterbox"
    default_loss_weights: ClassVar[dict[str, float]] = {
        "classes": 0.5,
        "boxes": 7.5,
        "distribution": 1.5,
    }

    def __init__(
        self,
        backbone: keras.Model,
        num_classes: int,
        *,
        size: str | None = None,
        neck=None,
        nms=None,
        preprocessing=None,
        class_names=None,
        name: str = "yolo",
        **kwargs,
    ):
        class_names = check_class_names(num_classes, class_names, at_least=1)
        image_size = answer_size(backbone, preprocessing)
        size = _resolve_size(size, backbone.name)
        components = {"size": size, "neck": neck, "nms": nms}
        neck = resolve(neck, lambda: _build_neck(size))
        nms = resolve(nms, lambda: YOLO_NMS)

        images = keras.Input(backbone.input.shape[1:], name="images")
        levels = backbone(images)
        check_levels(levels)
        check_undilated(backbone)
        pyramid = neck(select_levels(levels, neck.levels))
        channels = next(iter(pyramid.values())).shape[-1]
        head = YOLOHead(num_classes, channels, levels=tuple(pyramid), name="head")
        outputs = head(pyramid)

        points_at = per_size(lambda size: anchor_points(level_sizes(pyramid, size)))
        points, strides = points_at(image_size)
        super().__init__(
            images,
            outputs,
            backbone=backbone,
            num_classes=num_classes,
            postprocess=YOLODetections(
                points, strides, nms, image_size, name="detections"
            ),
            nms=nms,
            preprocessing=preprocessing,
            class_names=class_names,
            components=components,
            name=name,
            **kwargs,
        )
        self.points, self.strides = points, strides
        self._points_at = points_at

    def default_losses(self):
        """The published losses."""
        return {
            "classes": keras.losses.BinaryCrossentropy(
                from_logits=True, reduction="sum"
            ),
            "boxes": IoULoss("ciou", reduction="sum"),
            "distribution": DistributionFocalLoss(reduction="sum"),
        }

    def loss_terms(self, x, y, y_pred, training):
        """The truth as targets of the places that answer for it; see the class."""
        points, strides = self._points_at(self.image_size(x))
        logits, distribution = y_pred["classes"], y_pred["boxes"]
        boxes = decode_boxes(distribution, points, strides)
        # What a padded row holds must not reach a loss, not even times zero.
        valid = (y["labels"] >= 0)[..., None]
        true_boxes = ops.where(valid, ops.cast(y["boxes"], "float32"), 0.0)
        index, score = assign_task_aligned(
            logits, boxes, points, true_boxes, y["labels"]
        )
        true_boxes = gather_rows(true_boxes, index)
        labels = gather_rows(y["labels"], index)
        distances = boxes_to_distances(points, true_boxes) / strides[:, None]
        classes = ops.one_hot(labels, self.num_classes) * score[..., None]
        images = ops.cast(ops.shape(score)[0], "float32")
        factor = images / ops.maximum(ops.sum(score), 1.0)
        # Keras takes the mean over the classes where the sum is meant.
        every = ops.ones_like(score) * (self.num_classes * factor)
        return {
            "classes": (classes, logits, every),
            "boxes": (true_boxes, boxes, score * factor),
            "distribution": (distances, distribution, score * factor),
        }


class YOLODetections(keras.layers.Layer):
    """Decoding and non-maximum suppression of a YOLO's raw outputs, in float32.

    Call arguments:
        raw: See `YOLOHead`.

    Returns:
        See `Detector`.

    Args:
        points: (A, 2) centres of the locations, xy pixels.
        strides: (A,) pixels.
        nms: `NMS`.
        image_size: (height, width) that boxes are clipped to.
    """

    def __init__(self, points, strides, nms: NMS, image_size, **kwargs):
        super().__init__(**{"dtype": "float32", **kwargs})
        self.points = points
        self.strides = strides
        self.nms = nms
        self.image_size = image_size

    def call(self, raw):
        """Answers; see the class."""
        boxes = decode_boxes(raw["boxes"], self.points, self.strides)
        answers = self.nms(boxes, ops.sigmoid(raw["classes"]))
        return {**answers, "boxes": clip_boxes(answers["boxes"], self.image_size)}


def decode_boxes(distribution, points, strides):
    """Boxes (B, A, 4) float32 xyxy pixels from a head's (B, A, 4 * bins) logits."""
    distances = expected_distances(distribution, distribution.shape[-1] // 4)
    return distances_to_boxes(points, distances * strides[:, None])


def _resolve_size(size: str | None, backbone: str) -> str:
    if size is None:
        family, _, letter = backbone.rpartition("_")
        size = letter if family == "csp_darknet" else "n"
    if size not in SIZES:
        raise ValueError(
            f"`size` must be one of {', '.join(SIZES)}. Received: size={size!r}"
        )
    return size


def _build_neck(size: str) -> PAN:
    depth, width, last = SIZES[size]
    channels = [int(width * filters) for filters in (256, 512, last)]
    return PAN(channels, round(3 * depth), name="neck")
