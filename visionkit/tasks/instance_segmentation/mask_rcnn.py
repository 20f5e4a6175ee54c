"""Mask R-CNN (He et al. 2017) with a feature pyramid."""

from __future__ import annotations

import keras

from visionkit.heads.mask import MaskHead
from visionkit.tasks.detection.components import resolve
from visionkit.tasks.detection.faster_rcnn import FasterRCNN
from visionkit.tasks.instance_segmentation.masks import (
    MaskDetections,
    MaskOptions,
    mask_terms,
)
from visionkit.tasks.scoring import InstanceScorer


@keras.saving.register_keras_serializable(package="visionkit")
class MaskRCNN(FasterRCNN):
    """A `FasterRCNN` that draws what it finds: one more head on the regions.

        backbone = vk.build_backbone(
            "resnet50", (640, 640), weights="imagenet", freeze=("P1", "P2", "norm")
        )
        model = vk.MaskRCNN(backbone, num_classes=80)

    As published: RoIAlign of 14x14, four 3x3 convolutions, masks of 28x28 for each
    class, trained by binary cross-entropy in the channel of the own class of positive
    regions; the loss "masks" has the weight 1.

    Truth: that of a `Detector`, and "masks" (B, M, h, w) 0 or 1 of any number type,
    each framed by its box and of any one size; what is cut off with the box is gone.
    `model.predict(x)`: the answers of a `Detector`, and "masks" (B, D, 28, 28) float32
    probabilities of the detection's own class, framed by its box: cell (i, j) covers
    the share [j / 28, (j + 1) / 28] of its width and the same of i of its height. Zeros
    in padded rows.
    `model(x)` is that of `FasterRCNN`: masks are drawn for the detections alone, and in
    training for the positives of the sample, never for all proposals.

    Args:
        backbone: As for `FasterRCNN`, like all that is not named here.
        num_classes: Number of classes.
        mask: `MaskOptions`, or a dict of them: `{"class_agnostic": True}`.
        neck: An `FPN`, or a dict of options.
        anchors: An `AnchorGenerator`, or a dict of options.
        rpn: `RPNOptions`, or a dict of them.
        roi: `RoiOptions`, or a dict of them. Of each image `num_samples` times
            `positive_fraction` regions train the masks.
        nms: An `NMS`, or a dict of options. Of each image `max_detections` masks are
            drawn.
        preprocessing: `Preprocessing` for files; default "shortest_edge".
        class_names: Names in label order; default "0", "1", ...
        name: Name of the model.
    """

    task = "instance_segmentation"
    logged_scores = (
        *FasterRCNN.logged_scores,
        *(f"mask_{name}" for name in FasterRCNN.logged_scores),
    )

    def __init__(
        self,
        backbone: keras.Model,
        num_classes: int,
        mask=None,
        *,
        neck=None,
        anchors=None,
        rpn=None,
        roi=None,
        nms=None,
        preprocessing=None,
        class_names=None,
        name: str = "mask_rcnn",
        **kwargs,
    ):
        mask = resolve(mask, MaskOptions)
        super().__init__(
            backbone,
            num_classes,
            neck=neck,
            anchors=anchors,
            rpn=rpn,
            roi=roi,
            nms=nms,
            preprocessing=preprocessing,
            class_names=class_names,
            name=name,
            **kwargs,
        )
        self.mask = mask
        self.mask_head = MaskHead(num_classes, **mask.get_config(), name="mask_head")
        pyramid = {level: self.output[level] for level in self.levels}
        labels = keras.KerasTensor(self.output["proposals"].shape[:2], "int32")
        self.mask_head(pyramid, self.output["proposals"], labels)  # has weights now
        self.postprocess = MaskDetections(
            self.postprocess, self.mask_head, self.levels, name="masks"
        )

    def default_losses(self):
        """Those of Faster R-CNN, and binary cross-entropy of the masks."""
        masks = keras.losses.BinaryCrossentropy(from_logits=True, reduction="sum")
        return {**super().default_losses(), "masks": masks}

    def roi_terms(self, sample, pyramid, y, training):
        """Those of the box head, and the masks of the positives."""
        if "masks" not in y:
            raise ValueError(
                "Instance segmentation trains on masks: the target must have 'masks' "
                "(B, M, h, w), framed by its 'boxes'. Received a target with: "
                f"{', '.join(sorted(y))}. Take a source with instance masks, "
                "`task='instance_segmentation'`."
            )
        terms = super().roi_terms(sample, pyramid, y, training)
        sample = sample.first(self.roi)
        return {**terms, **mask_terms(sample, pyramid, y, self.mask_head)}

    def scorer(self, source=None):
        """An `InstanceScorer` for answers of this model."""
        return InstanceScorer(self.class_names, self.preprocessing, source)

    def _init_config(self):
        return {**super()._init_config(), "mask": self.mask}
