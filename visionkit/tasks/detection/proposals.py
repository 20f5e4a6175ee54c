"""The first stage of Faster R-CNN: what trains the RPN, and the boxes it proposes."""

from __future__ import annotations

import dataclasses
import math

import keras
from keras import ops

from visionkit.ops.box_coder import BoxCoder
from visionkit.ops.boxes import box_area, clip_boxes
from visionkit.ops.gather import gather_rows
from visionkit.ops.matching import Match, match_by_iou
from visionkit.ops.nms import suppress, top_rows
from visionkit.ops.options import Options
from visionkit.ops.sampling import sample_balanced
from visionkit.ops.targets import anchor_targets


@keras.saving.register_keras_serializable(package="visionkit")
@dataclasses.dataclass(frozen=True)
class RPNOptions(Options):
    """Numbers of the region proposal network; defaults as published with an FPN.

    Args:
        num_proposals: Boxes that go on to the second stage, of all levels together.
        pre_nms: Best anchors of each level that take part in suppression.
        training_pre_nms: The same while training.
        iou_threshold: A proposal that overlaps a better one of its level by more is
            dropped.
        num_samples: Anchors of each image that the loss reads.
        positive_fraction: Largest share of positives among them.
        positive_iou: Least IoU of a positive anchor; the best one of a truth is always
            positive.
        negative_iou: IoU below which an anchor is negative.
    """

    num_proposals: int = 1000
    pre_nms: int = 1000
    training_pre_nms: int = 2000
    iou_threshold: float = 0.7
    num_samples: int = 256
    positive_fraction: float = 0.5
    positive_iou: float = 0.7
    negative_iou: float = 0.3

    def __post_init__(self):
        counts = ("num_proposals", "pre_nms", "training_pre_nms", "num_samples")
        check_options(self, counts)


def check_options(options, counts) -> None:
    """Refuse counts below 1, and shares or IoUs that are not in 0..1.

    Raises:
        ValueError: With the name of the option.
    """
    for name, value in dataclasses.asdict(options).items():
        low, high = (1, math.inf) if name in counts else (0, 1)
        if not low <= value <= high:
            raise ValueError(
                f"`{name}` must be "
                f"{'at least 1' if name in counts else 'in 0..1'}. "
                f"Received: {name}={value}"
            )


def anchors_by_level(anchors, level_sizes: dict, image_size):
    """The anchors of an RPN, and how many each level has.

    Args:
        anchors: An `AnchorGenerator`.
        level_sizes: Level -> (height, width) of its features.
        image_size: (height, width).

    Returns:
        ((A, 4) float32 xyxy, level after level; the number of each in order).
    """
    counts = [
        math.prod(level_sizes[level]) * count
        for level, count in anchors.num_anchors.items()
    ]
    return anchors(level_sizes, image_size), counts


class Proposals(keras.layers.Layer):
    """The best boxes of an RPN, each level's own suppressed among themselves.

    Call arguments:
        classes: (B, A, 1) objectness logits.
        boxes: (B, A, 4) deltas.
        images: (B, h, w, C), for their size.
        training: Decides how many take part.

    Returns:
        (B, num_proposals, 4) float32 xyxy pixels, within the image, best first, and
        (B, num_proposals) float32 their objectness in [0, 1]; zeros where there are
        fewer. No gradient passes.

    Args:
        anchors_at: (height, width) of the images -> what `anchors_by_level` returns.
        options: `RPNOptions`.
    """

    def __init__(self, anchors_at, options, **kwargs):
        super().__init__(**{"dtype": "float32", **kwargs})
        self.anchors_at, self.options = anchors_at, options
        self.coder = BoxCoder()

    def call(self, classes, boxes, images, training=None):
        """The proposals; see the class."""
        classes, boxes = ops.stop_gradient(classes), ops.stop_gradient(boxes)
        image_size = ops.shape(images)[1:3]
        anchors, counts = self.anchors_at(image_size)
        levels, start = [], 0
        for count in counts:
            rows = slice(start, start + count)
            level = (classes[:, rows, 0], boxes[:, rows], anchors[rows])
            levels.append(self._best_of_level(*level, image_size, training))
            start = start + count
        boxes = ops.concatenate([boxes for boxes, _ in levels], axis=1)
        scores = ops.concatenate([scores for _, scores in levels], axis=1)
        missing = max(0, self.options.num_proposals - boxes.shape[1])
        scores, best = ops.top_k(scores, self.options.num_proposals - missing)
        boxes = ops.pad(gather_rows(boxes, best), ((0, 0), (0, missing), (0, 0)))
        return boxes, ops.pad(ops.sigmoid(scores), ((0, 0), (0, missing)))

    def compute_output_shape(self, classes_shape, *_):
        """The shapes of boxes and scores."""
        batch, count = classes_shape[0], self.options.num_proposals
        return (batch, count, 4), (batch, count)

    def _best_of_level(self, logits, deltas, anchors, image_size, training):
        """(B, n, 4) boxes and (B, n) logits; zeros and -inf where there are fewer."""
        options = self.options
        limit = options.training_pre_nms if training else options.pre_nms
        anchors = ops.convert_to_tensor(anchors)
        if logits.shape[1] is None:  # a level of any size: so that there are enough
            logits = ops.pad(logits, ((0, 0), (0, limit)), constant_values=-math.inf)
            deltas = ops.pad(deltas, ((0, 0), (0, limit), (0, 0)))
            anchors = ops.pad(anchors, ((0, limit), (0, 0)))
        rows = top_rows(logits, limit)
        boxes = self.coder.decode(
            gather_rows(deltas, rows), ops.take(anchors, rows, axis=0)
        )
        boxes = clip_boxes(boxes, image_size)
        scores = gather_rows(logits, rows)
        # Beside the image nothing is left; of what is no number neither.
        present = ops.logical_and(box_area(boxes) > 0, scores > -math.inf)
        boxes = ops.where(present[..., None], boxes, 0.0)
        scores = ops.where(present, scores, -math.inf)
        count = min(options.num_proposals, rows.shape[1])
        kept, valid = suppress(boxes, scores, options.iou_threshold, count)
        boxes = ops.where(valid[..., None], gather_rows(boxes, kept), 0.0)
        return boxes, ops.where(valid, gather_rows(scores, kept), -math.inf)


def rpn_terms(anchors, outputs: dict, boxes, labels, options: RPNOptions, seed) -> dict:
    """What the two losses of the RPN read.

    A random sample of anchors, the positives at most a share of it; both losses are
    divided by its size (Ren et al. 2015, section 3.1.2; Detectron2 and torchvision).

    Args:
        anchors: (A, 4) float32.
        outputs: "rpn_classes" (B, A, 1) and "rpn_boxes" (B, A, 4).
        boxes: (B, M, 4) truth.
        labels: (B, M) truth, -1 for padding.
        options: `RPNOptions`.
        seed: As for `sample_balanced`.

    Returns:
        {"rpn_classes", "rpn_boxes"}, each (truth, prediction, weights).
    """
    match = match_by_iou(
        anchors,
        boxes,
        labels,
        positive=options.positive_iou,
        negative=options.negative_iou,
        force_best=True,
    )
    sample = sample_balanced(
        match.positive,
        match.negative,
        options.num_samples,
        options.positive_fraction,
        seed,
    )
    truth_rows = gather_rows(match.index, sample.index)
    match = Match(truth_rows, sample.positive, sample.negative)
    anchors = ops.take(ops.convert_to_tensor(anchors), sample.index, axis=0)
    target = anchor_targets(match, anchors, boxes, labels, BoxCoder())
    classes, deltas = (
        gather_rows(outputs[name], sample.index)
        for name in ("rpn_classes", "rpn_boxes")
    )
    positive, share = sample_shares(match)
    return {
        "rpn_classes": (positive[..., None], classes, share),
        "rpn_boxes": (target["deltas"], deltas, positive * share),
    }


def sample_shares(match: Match):
    """The positives of a sample as float32, and each row's share of the whole sample.

    Returns:
        ((B, S) float32 1 where positive, (B, S) float32: 1 over the size of the batch's
        sample, 0 for rows that are neither positive nor negative).
    """
    positive = ops.cast(match.positive, "float32")
    drawn = positive + ops.cast(match.negative, "float32")
    return positive, drawn / ops.maximum(ops.sum(drawn), 1.0)
