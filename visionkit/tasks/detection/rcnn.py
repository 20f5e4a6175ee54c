"""What Fast R-CNN and Faster R-CNN share: the second stage, and how it is trained."""

from __future__ import annotations

import keras

from visionkit.heads.roi import BoxHead
from visionkit.losses.boxes import SmoothL1
from visionkit.ops.box_coder import BoxCoder
from visionkit.ops.nms import NMS
from visionkit.tasks.detection.components import resolve
from visionkit.tasks.detection.detector import Detector
from visionkit.tasks.detection.rois import (
    RoiDetections,
    RoiOptions,
    RoiSample,
    box_terms,
    sample_rois,
)
from visionkit.tasks.task import check_class_names

RCNN_NMS = NMS(
    score_threshold=0.05, iou_threshold=0.5, max_detections=100, pre_nms=1000
)

ROI_CODER = BoxCoder((10.0, 10.0, 5.0, 5.0))
"""One over the usual deviations of the deltas of proposals (Girshick 2015)."""


class RCNN(Detector):
    """A `Detector` whose head reads regions: pyramid and proposals -> box head.

    While training, the head is called again, on regions sampled around the truth, with
    the features of the one pass through the backbone; its answers for the proposals are
    then read by nobody, and the compiler leaves them out.

    `model(x)`: {"proposals": (B, N, 4) xyxy pixels of the input, zeros where there are
    fewer, "classes": (B, N, 1 + num_classes) logits, background first, "boxes": (B, N,
    num_classes, 4) deltas}, and the pyramid that the head read, {"P2": (B, h, w, C),
    ...}, in the type that the layers compute in.

    A subclass gives its graph up to the proposals to the constructor. A further head on
    the regions is one more term in `roi_terms` and one more step after `postprocess`.

    Args:
        inputs: What the graph begins with.
        pyramid: {"P2": (B, h, w, C), ...}, all that the heads read.
        proposals: (B, N, 4) xyxy.
        outputs: Further raw outputs.
        image_size: (height, width) that is answered for.
        num_classes: Number of classes.
        roi: `RoiOptions`, a dict of its options, or None.
        nms: `NMS`, a dict of its options, or None.
        class_names: Names in label order, or None.
        **kwargs: As for `Detector`.
    """

    def __init__(
        self,
        inputs,
        pyramid: dict,
        proposals,
        outputs: dict,
        *,
        image_size: tuple[int, int],
        num_classes: int,
        roi,
        nms,
        class_names,
        **kwargs,
    ):
        class_names = check_class_names(num_classes, class_names, at_least=1)
        roi = resolve(roi, RoiOptions)
        nms = resolve(nms, lambda: RCNN_NMS)
        head = BoxHead(
            num_classes,
            output_size=roi.output_size,
            sampling_ratio=roi.sampling_ratio,
            units=roi.units,
            name="box_head",
        )
        raw = {"proposals": proposals, **head(pyramid, proposals)}
        super().__init__(
            inputs,
            {**outputs, **raw, **pyramid},
            num_classes=num_classes,
            postprocess=RoiDetections(ROI_CODER, nms, image_size, name="detections"),
            nms=nms,
            class_names=class_names,
            **kwargs,
        )
        self.roi, self.box_head = roi, head
        self.levels = self.hidden_outputs = tuple(pyramid)
        self.seed_generator = keras.random.SeedGenerator()

    def default_losses(self):
        """Cross-entropy of the classes, absolute error of the deltas."""
        return {
            "classes": keras.losses.SparseCategoricalCrossentropy(
                from_logits=True, reduction="sum"
            ),
            "boxes": SmoothL1(beta=0.0, reduction="sum"),
        }

    def loss_terms(self, x, y, y_pred, training):
        """The truth as targets of regions sampled around it.

        Where the weights are not about to change, the regions are the same every time.
        """
        seed = self.seed_generator if training else 0
        proposals = y_pred["proposals"]
        sample = sample_rois(proposals, y["boxes"], y["labels"], self.roi, seed)
        pyramid = {level: y_pred[level] for level in self.levels}
        return self.roi_terms(sample, pyramid, y, training)

    def roi_terms(self, sample: RoiSample, pyramid: dict, y: dict, training) -> dict:
        """The terms of the heads that read regions."""
        outputs = self.box_head(pyramid, sample.boxes, training=training)
        return box_terms(sample, outputs, y["boxes"], y["labels"], ROI_CODER)
