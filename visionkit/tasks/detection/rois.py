"""The second stage of the R-CNN family: regions to train on, regions to detections."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import keras
from keras import ops

from visionkit.ops.boxes import box_area, clip_boxes
from visionkit.ops.gather import gather_rows
from visionkit.ops.matching import Match, match_by_iou
from visionkit.ops.options import Options
from visionkit.ops.sampling import most_positives, sample_balanced
from visionkit.ops.targets import anchor_targets
from visionkit.tasks.detection.proposals import check_options, sample_shares


@keras.saving.register_keras_serializable(package="visionkit")
@dataclasses.dataclass(frozen=True)
class RoiOptions(Options):
    """Numbers of the second stage; defaults as published with an FPN.

    Args:
        num_samples: Regions of each image that the loss reads.
        positive_fraction: Largest share of positives among them.
        positive_iou: Least IoU of a positive region; all others are background.
        output_size: Bins per side of a region's features.
        sampling_ratio: Points per bin and side.
        units: Of each of the two dense layers.
    """

    num_samples: int = 512
    positive_fraction: float = 0.25
    positive_iou: float = 0.5
    output_size: int = 7
    sampling_ratio: int = 2
    units: int = 1024

    def __post_init__(self):
        check_options(self, ("num_samples", "output_size", "sampling_ratio", "units"))


class RoiSample(NamedTuple):
    """Regions of a fixed number, the positives first.

    Attributes:
        boxes: (B, S, 4) float32 xyxy.
        match: `Match` of (B, S): the row of the truth, positive, negative (background);
            neither where there were too few regions.
    """

    boxes: object
    match: Match

    def first(self, options: RoiOptions) -> RoiSample:
        """The rows that positives can be in, for a head that nothing else trains."""
        count = most_positives(self.boxes.shape[1], options.positive_fraction)
        rows = [x[:, :count] for x in (self.boxes, *self.match)]
        return RoiSample(rows[0], Match(*rows[1:]))


def sample_rois(proposals, boxes, labels, options: RoiOptions, seed) -> RoiSample:
    """Draw the regions that train the second stage.

    The truth itself is among the candidates, so that there are positives before the
    proposals are any good (Ren et al. 2015; Detectron2's and torchvision's default).

    Args:
        proposals: (B, N, 4) xyxy; those without area are none.
        boxes: (B, M, 4) truth; rows of padding may hold anything.
        labels: (B, M) truth, -1 for padding.
        options: `RoiOptions`.
        seed: As for `sample_balanced`.
    """
    truth = ops.where((labels >= 0)[..., None], ops.cast(boxes, "float32"), 0.0)
    candidates = ops.concatenate([ops.cast(proposals, "float32"), truth], axis=1)
    candidates = ops.stop_gradient(candidates)
    match = match_by_iou(
        candidates,
        boxes,
        labels,
        positive=options.positive_iou,
        negative=options.positive_iou,
        force_best=False,
    )
    sample = sample_balanced(
        match.positive,
        ops.logical_and(match.negative, box_area(candidates) > 0),
        options.num_samples,
        options.positive_fraction,
        seed,
    )
    truth_rows = gather_rows(match.index, sample.index)
    return RoiSample(
        gather_rows(candidates, sample.index),
        Match(truth_rows, sample.positive, sample.negative),
    )


def box_terms(sample: RoiSample, outputs: dict, boxes, labels, coder) -> dict:
    """What the two losses of the box head read, both divided by the size of the sample.

    Args:
        sample: Of `sample_rois`.
        outputs: Of a `BoxHead` on `sample.boxes`.
        boxes: (B, M, 4) truth.
        labels: (B, M) truth, -1 for padding.
        coder: `BoxCoder` of the head's deltas.

    Returns:
        {"classes", "boxes"}, each (truth, prediction, weights).
    """
    target = anchor_targets(sample.match, sample.boxes, boxes, labels, coder)
    deltas = outputs["boxes"]
    num_rois, num_classes = deltas.shape[1:3]
    # Of each positive the deltas of its own class.
    own = ops.arange(num_rois, dtype="int32") * num_classes
    own = own + ops.maximum(target["labels"], 0)
    deltas = ops.reshape(deltas, (-1, num_rois * num_classes, 4))
    positive, share = sample_shares(sample.match)
    return {
        # Background is class 0, and the label of all that is not positive is -1.
        "classes": (target["labels"] + 1, outputs["classes"], share),
        "boxes": (target["deltas"], gather_rows(deltas, own), positive * share),
    }


class RoiDetections(keras.layers.Layer):
    """Answers of a box head; see `Detector`.

    Call arguments:
        outputs: "proposals" (B, N, 4) xyxy, those without area are none; "classes" (B,
            N, 1 + K) logits, background first; "boxes" (B, N, K, 4) deltas.

    Args:
        coder: `BoxCoder` of the deltas.
        nms: `NMS`.
        image_size: (height, width) to clip to.
    """

    def __init__(self, coder, nms, image_size, **kwargs):
        super().__init__(**{"dtype": "float32", **kwargs})
        self.coder, self.nms, self.image_size = coder, nms, image_size

    def call(self, outputs):
        """Detections; see the class."""
        proposals = outputs["proposals"][:, :, None]
        boxes = self.coder.decode(outputs["boxes"], proposals)
        boxes = clip_boxes(boxes, self.image_size)
        scores = ops.softmax(outputs["classes"], axis=-1)[..., 1:]
        # Nothing is left of a region that was decoded to a place outside the image.
        present = ops.logical_and(box_area(proposals) > 0, box_area(boxes) > 0)
        return self.nms(boxes, ops.where(present, scores, 0.0))
