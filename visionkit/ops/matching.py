"""Which anchor answers for which object."""

from __future__ import annotations

from typing import NamedTuple

from keras import ops

from visionkit.ops.boxes import iou_matrix
from visionkit.ops.native import first_largest


class Match(NamedTuple):
    """What every anchor is matched with; an anchor that is neither is ignored.

    Attributes:
        index: (B, A) int32 row of the truth, meaningful where positive.
        positive: (B, A) bool, never for a padded row of the truth.
        negative: (B, A) bool.
    """

    index: object
    positive: object
    negative: object


def match_by_iou(
    anchors, boxes, labels, *, positive: float, negative: float, force_best: bool
) -> Match:
    """Matches anchors with the object they overlap most.

    Positive are anchors whose best IoU is at least `positive`; negative those whose
    best IoU is less than `negative`; images without any object are all negative.

    `force_best` gives every object that overlaps any anchor its best anchor too (the
    first of equal ones), whatever the IoU and whatever else the anchor overlaps. Where
    several objects share their best anchor, it goes to the one that overlaps it most.
    SSD and RPN are published with it; RetinaNet's paper has no such rule, but the
    implementations behind the usual figures (Detectron2, torchvision) do have it.

    Published (positive, negative): SSD (0.5, 0.5), RetinaNet (0.5, 0.4), RPN
    (0.7, 0.3), and without `force_best` the second stage of Faster R-CNN (0.5, 0.5).

    Args:
        anchors: (A, 4), or (B, A, 4) to match proposals; xyxy.
        boxes: (B, M, 4) xyxy, M at least 1.
        labels: (B, M) integers, -1 for padding, whose boxes may hold anything.
        positive: Least IoU of a positive anchor, above 0.
        negative: IoU below which an anchor is negative, at most `positive`.
        force_best: See above.

    Raises:
        ValueError: If not 0 < positive <= 1 and 0 <= negative <= positive.
    """
    if not (0 < positive <= 1 and 0 <= negative <= positive):
        raise ValueError(
            "Thresholds must be 0 <= negative <= positive <= 1 with positive above 0. "
            f"Received: positive={positive}, negative={negative}"
        )
    valid = labels >= 0
    # Without area a padded row has IoU 0 with everything: no (B, A, M) mask is needed.
    boxes = ops.where(valid[..., None], ops.cast(boxes, "float32"), 0.0)
    anchors = ops.convert_to_tensor(anchors, "float32")
    if len(anchors.shape) == 2:
        anchors = anchors[None]
    overlap = iou_matrix(anchors, boxes)
    best = ops.max(overlap, axis=2)
    index = first_largest(overlap)
    is_positive = best >= positive
    if force_best:
        forced = _best_anchors(overlap, valid)
        index = ops.where(forced >= 0, forced, index)
        is_positive = ops.logical_or(is_positive, forced >= 0)
    is_negative = ops.logical_and(best < negative, ops.logical_not(is_positive))
    return Match(*map(ops.stop_gradient, (index, is_positive, is_negative)))


def _best_anchors(overlap, valid):
    """(B, A) int32: the object an anchor is the best one of, -1 for most."""
    batch, num_anchors, num_boxes = ops.shape(overlap)
    best = ops.max(overlap, axis=1)
    # By index: where the compiler computes an IoU twice, the two may differ in a bit.
    anchor = first_largest(overlap, axis=1)
    candidate = ops.logical_and(valid, best > 0)
    rows = ops.arange(num_boxes)
    rival = ops.logical_and(
        anchor[:, :, None] == anchor[:, None, :], candidate[:, :, None]
    )
    equal_but_first = ops.logical_and(
        best[:, :, None] == best[:, None, :], rows[:, None] < rows[None, :]
    )
    better = ops.logical_or(best[:, :, None] > best[:, None, :], equal_but_first)
    beaten = ops.any(ops.logical_and(rival, better), axis=1)
    winner = ops.logical_and(candidate, ops.logical_not(beaten))
    # At most one winner per anchor, so that adding is setting.
    flat = anchor + ops.arange(batch, dtype="int32")[:, None] * num_anchors
    values = ops.where(winner, ops.cast(rows, "int32") + 1, 0)
    forced = ops.scatter(
        ops.reshape(flat, (-1, 1)), ops.reshape(values, (-1,)), (batch * num_anchors,)
    )
    return ops.reshape(forced, (batch, num_anchors)) - 1
