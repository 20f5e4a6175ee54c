"""Fast R-CNN (Girshick 2015): regions come from elsewhere, with the image."""

from __future__ import annotations

import keras

from visionkit.necks.fpn import FPN
from visionkit.tasks.detection.components import resolve
from visionkit.tasks.detection.faster_rcnn import RCNN_LEVELS
from visionkit.tasks.detection.rcnn import RCNN
from visionkit.tasks.task import check_levels, select_levels


@keras.saving.register_keras_serializable(package="visionkit")
class FastRCNN(RCNN):
    """Backbone -> feature pyramid -> box head on given proposals.

        backbone = vk.build_backbone("resnet50", (640, 640), weights="imagenet")
        model = vk.FastRCNN(backbone, num_classes=80)
        model.predict({"images": images, "proposals": proposals})

    The second stage of `FasterRCNN` on a pyramid in place of the VGG-16 of the paper:
    with the proposals and weights of a Faster R-CNN it gives the same detections.

    Input: {"images": (B, h, w, C) 0..255, "proposals": (B, P, 4) float32 xyxy pixels of
    the input, rows of zeros where there are fewer}; a proposal without area is none.

    Args:
        backbone: A `keras.Model` with the levels that the neck reads, of a static size.
        num_classes: Number of classes.
        num_proposals: P.
        neck: An `FPN`, or a dict of options of the default one: `{"channels": 64}`.
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
        num_proposals: int = 1000,
        neck=None,
        roi=None,
        nms=None,
        preprocessing=None,
        class_names=None,
        name: str = "fast_rcnn",
        **kwargs,
    ):
        components = {"num_proposals": num_proposals}
        components |= {"neck": neck, "roi": roi, "nms": nms}
        _check_size(backbone)
        neck = resolve(neck, lambda: FPN(RCNN_LEVELS, num_coarse=0, name="neck"))
        images = keras.Input(backbone.input.shape[1:], name="images")
        proposals = keras.Input((num_proposals, 4), name="proposals", dtype="float32")
        levels = backbone(images)
        check_levels(levels)
        pyramid = neck(select_levels(levels, neck.levels))
        super().__init__(
            {"images": images, "proposals": proposals},
            {level: pyramid[level] for level in neck.levels},
            proposals,
            {},
            image_size=tuple(backbone.input.shape[1:3]),
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
        self.neck, self.num_proposals = neck, num_proposals


def _check_size(backbone: keras.Model) -> None:
    """Refuse a backbone of dynamic size: given proposals fit one size of an image."""
    if None in backbone.input.shape[1:3]:
        raise ValueError(
            "Fast R-CNN is built for one image size, that of its proposals. Pass it to "
            "`build_backbone(name, (height, width))`. Received: a backbone of input "
            f"{backbone.input.shape}"
        )
