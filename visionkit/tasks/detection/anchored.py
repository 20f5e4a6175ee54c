"""What SSD and RetinaNet share: a class and a box for every anchor of a pyramid."""

from __future__ import annotations

from keras import ops

from visionkit.ops.matching import Match, match_by_iou
from visionkit.ops.targets import anchor_targets
from visionkit.postprocess import DenseDetections
from visionkit.tasks.detection.components import level_sizes, per_size
from visionkit.tasks.detection.detector import Detector


class AnchorDetector(Detector):
    """A `Detector` whose head says a class and a box for every anchor.

    Args:
        images: The graph's input.
        pyramid: Level -> (B, h, w, C), what the head reads.
        outputs: {"classes": (B, A, K) logits, "boxes": (B, A, 4) deltas}.
        image_size: (height, width) that is answered for.
        anchors: An `AnchorGenerator` or `DefaultBoxes`.
        coder: `BoxCoder` of the deltas.
        activation: As for `DenseDetections`.
        nms: `NMS`.
        **kwargs: As for `Detector`.

    Attributes:
        coder: `BoxCoder`.
        anchor_boxes: (A, 4) float32 xyxy pixels of the input that is answered for.
    """

    def __init__(
        self,
        images,
        pyramid: dict,
        outputs: dict,
        *,
        image_size: tuple[int, int],
        anchors,
        coder,
        activation: str,
        nms,
        **kwargs,
    ):
        anchors_at = per_size(lambda size: anchors(level_sizes(pyramid, size), size))
        boxes = anchors_at(image_size)
        super().__init__(
            images,
            outputs,
            postprocess=DenseDetections(
                boxes, coder, nms, image_size, activation, name="detections"
            ),
            nms=nms,
            **kwargs,
        )
        self.coder, self.anchor_boxes = coder, boxes
        self._anchors_at = anchors_at

    def match(self, x, y: dict, *, positive: float, negative: float):
        """The anchors of a batch, matched with its truth.

        Args:
            x: The images, for their size.
            y: "boxes" (B, M, 4) and "labels" (B, M).
            positive: As for `match_by_iou`.
            negative: As for `match_by_iou`.

        Returns:
            (`Match`, the dict of `anchor_targets`).
        """
        anchors = self._anchors_at(self.image_size(x))
        boxes, labels = y["boxes"], y["labels"]
        match = match_by_iou(
            anchors,
            boxes,
            labels,
            positive=positive,
            negative=negative,
            force_best=True,
        )
        return match, anchor_targets(match, anchors, boxes, labels, self.coder)


def anchor_terms(match: Match, classes, deltas, y_pred: dict) -> dict:
    """What both losses read, each divided by the number of positives of the batch.

    Args:
        match: `Match` of the anchors; what is neither positive nor negative in it does
            not count.
        classes: The truth of the classes, of all anchors.
        deltas: (B, A, 4), which count where the anchor is positive.
        y_pred: "classes" and "boxes".

    Returns:
        {"classes", "boxes"}, each (truth, prediction, (B, A) weights).
    """
    positive = ops.cast(match.positive, "float32")
    trained = positive + ops.cast(match.negative, "float32")
    count = ops.maximum(ops.sum(positive), 1.0)
    return {
        "classes": (classes, y_pred["classes"], trained / count),
        "boxes": (deltas, y_pred["boxes"], positive / count),
    }
