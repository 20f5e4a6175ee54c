"""Non-maximum suppression: of boxes that overlap too much, the best one stays.

There are two ways to the same answer. Outside XLA on the TensorFlow backend the greedy
loop is TensorFlow's own C++ op. Under XLA and on other backends, where that op does not
exist, the greedy answer is found as the fixed point of static tensors.
"""

from __future__ import annotations

import dataclasses
import math

import keras
from keras import ops

from visionkit.ops.boxes import iou, iou_matrix
from visionkit.ops.gather import gather_rows
from visionkit.ops.native import outside_xla
from visionkit.ops.options import Options


@keras.saving.register_keras_serializable(package="visionkit")
@dataclasses.dataclass(frozen=True)
class NMS(Options):
    """Detections out of many scored boxes, class by class.

    Equal scores are taken in the order of the boxes, then of the classes.

    Args:
        score_threshold: Only scores above it count.
        iou_threshold: A box that overlaps a better one by more is dropped.
        max_detections: Rows of the answer, D.
        pre_nms: Only so many of the best pairs of box and class take part.
        class_agnostic: Boxes suppress those of other classes too.
        soft_sigma: Above 0, Soft-NMS (Bodla et al. 2017, who use 0.5): an overlap
            lowers the score by exp(-iou^2 / soft_sigma); `iou_threshold` is not used.
        multi_label: A box may be detected as several classes; otherwise as its best.
    """

    score_threshold: float = 0.05
    iou_threshold: float = 0.5
    max_detections: int = 100
    pre_nms: int = 1000
    class_agnostic: bool = False
    soft_sigma: float = 0.0
    multi_label: bool = True

    def __post_init__(self):
        if not 0 <= self.iou_threshold <= 1:
            raise ValueError(
                "`iou_threshold` must be in 0..1. "
                f"Received: iou_threshold={self.iou_threshold}"
            )
        if not 0 <= self.score_threshold < 1:
            raise ValueError(
                "`score_threshold` must be in [0, 1). "
                f"Received: score_threshold={self.score_threshold}"
            )
        if not 0 < self.max_detections <= self.pre_nms:
            raise ValueError(
                "There must be 0 < max_detections <= pre_nms. Received: "
                f"max_detections={self.max_detections}, pre_nms={self.pre_nms}"
            )
        if not 0 <= self.soft_sigma < math.inf:
            raise ValueError(
                "`soft_sigma` must be at least 0. "
                f"Received: soft_sigma={self.soft_sigma}"
            )

    def __call__(self, boxes, scores) -> dict:
        """Detections, best first.

        Args:
            boxes: (B, N, 4) xyxy, or (B, N, K, 4) for a box per class. Finite.
            scores: (B, N, K).

        Returns:
            {"boxes": (B, D, 4) float32, "scores": (B, D) float32,
            "labels": (B, D) int32, "num_detections": (B,) int32}; in rows that are not
            needed box 0, score 0, label -1.
        """
        boxes, scores, labels = self._candidates(boxes, scores)
        present = scores > self.score_threshold
        # What is absent shall not stretch the distance that keeps the classes apart.
        boxes = ops.where(present[..., None], boxes, 0.0)
        apart = boxes if self.class_agnostic else separate(boxes, labels)
        limit = self.max_detections
        if self.soft_sigma:
            index, best = _soften(
                apart, scores, self.score_threshold, self.soft_sigma, limit
            )
            valid = best > self.score_threshold
        else:
            index, valid = _suppress_sorted(apart, present, self.iou_threshold, limit)
            best = gather_rows(scores, index)
        return {
            "boxes": ops.where(valid[..., None], gather_rows(boxes, index), 0.0),
            "scores": ops.where(valid, best, 0.0),
            "labels": ops.where(valid, gather_rows(labels, index), -1),
            "num_detections": ops.sum(ops.cast(valid, "int32"), axis=1),
        }

    def _candidates(self, boxes, scores):
        """The best pairs, sorted: (B, P, 4) boxes, (B, P) scores, (B, P) classes."""
        boxes, scores = _constants(boxes, scores)
        num_boxes, num_classes = scores.shape[1:]
        rows = None
        if num_boxes > self.pre_nms:
            # The best pairs lie among the boxes with the best class: two small sorts
            # instead of one of all pairs.
            rows = top_rows(ops.max(scores, axis=2), self.pre_nms)
            scores = gather_rows(scores, rows)
        if self.multi_label:
            pairs = ops.reshape(scores, (-1, scores.shape[1] * num_classes))
            best, pairs = _sort(pairs, self.pre_nms)
            places, labels = pairs // num_classes, pairs % num_classes
        else:
            best, places = _sort(ops.max(scores, axis=2), self.pre_nms)
            labels = ops.cast(ops.argmax(scores, axis=2), "int32")
            labels = gather_rows(labels, places)
        rows = places if rows is None else gather_rows(rows, places)
        if len(boxes.shape) == 4:
            boxes = ops.reshape(boxes, (-1, num_boxes * num_classes, 4))
            rows = rows * num_classes + labels
        return gather_rows(boxes, rows), best, labels


def suppress(boxes, scores, iou_threshold: float, max_output: int):
    """The boxes that are left, best first, without classes: for proposals.

    Args:
        boxes: (B, N, 4) xyxy, finite.
        scores: (B, N), any numbers; -inf for a box that does not exist.
        iou_threshold: A box that overlaps a better one by more is dropped.
        max_output: Most boxes to keep.

    Returns:
        ((B, max_output) int32 rows of `boxes`, (B, max_output) bool whether there was
        one more; the row is 0 where not).
    """
    boxes, scores = _constants(boxes, scores)
    scores, order = _sort(scores, scores.shape[1])
    present = scores > -math.inf
    boxes = gather_rows(boxes, order)
    index, valid = _suppress_sorted(boxes, present, iou_threshold, max_output)
    return ops.where(valid, gather_rows(order, index), 0), valid


def separate(boxes, groups):
    """Boxes moved so that those of different groups do not meet.

    The groups lie on a square grid: in a row the last of 80 classes would be so far out
    that float32 rounds to 1/64 pixel; here it is 1/1000. Group 0 stays where it is.

    Args:
        boxes: (B, N, 4) float32 xyxy, finite.
        groups: (B, N) integers of at least 0.

    Returns:
        (B, N, 4) float32.
    """
    lowest = ops.min(boxes, axis=(1, 2), keepdims=True)
    pitch = ops.max(boxes, axis=(1, 2), keepdims=True) - lowest + 1.0
    columns = ops.max(groups, axis=1, keepdims=True) + 1
    columns = ops.ceil(ops.sqrt(ops.cast(columns, "float32")))
    groups = ops.cast(groups, "float32")
    row = ops.floor((groups + 0.5) / columns)
    column = groups - row * columns
    return boxes + pitch * ops.stack((column, row, column, row), axis=-1)


def top_rows(scores, limit: int):
    """The rows of the largest scores, ascending: of (B, N) scores (B, limit) int32.

    In the order of the rows and not of the scores, so that a later sort still takes
    equal scores in the order of the rows. N is static, or at least `limit`.
    """
    return ops.sort(_sort(scores, limit)[1], axis=1)


def _sort(scores, limit):
    """The best scores and their rows, best first; of equal ones the first row first."""
    scores, rows = ops.top_k(scores, min(limit, scores.shape[1] or limit))
    return scores, ops.cast(rows, "int32")


def _constants(*tensors):
    return (ops.stop_gradient(ops.cast(tensor, "float32")) for tensor in tensors)


def _suppress_sorted(boxes, present, iou_threshold, max_output):
    """`suppress` for boxes in the order of their scores; absent ones come last."""
    if outside_xla():
        index, valid = _suppress_greedily(boxes, present, iou_threshold, max_output)
    else:
        index, valid = _suppress_statically(boxes, present, iou_threshold, max_output)
    return ops.where(valid, index, 0), valid


def _suppress_greedily(boxes, present, iou_threshold, max_output):
    import tensorflow as tf

    # The op returns boxes and scores, not rows. Only the order of the scores counts: so
    # the rank is the score, exact in float32, and says the row.
    num_boxes = boxes.shape[1]
    rank = tf.range(num_boxes, 0, -1, dtype=tf.float32)
    kept = tf.image.combined_non_max_suppression(
        boxes[:, :, None],
        tf.where(present, rank, 0.0)[..., None],
        max_output_size_per_class=max_output,
        max_total_size=max_output,
        iou_threshold=iou_threshold,
        score_threshold=0.0,
        clip_boxes=False,
    ).nmsed_scores
    return num_boxes - tf.cast(kept, tf.int32), kept > 0


def _suppress_statically(boxes, present, iou_threshold, max_output):
    """Greedy suppression as a fixed point.

    A box stays if no box that stays, and is better, overlaps it. Starting from all, the
    first n are right after n rounds, and when a round changes nothing all are: after as
    many rounds as the longest chain of suppressions, most often less than ten.
    """
    num_boxes = boxes.shape[1]
    rank = ops.arange(num_boxes)
    overlap = ops.logical_and(
        iou_matrix(boxes, boxes) > iou_threshold, rank[:, None] < rank[None, :]
    )

    def one_round(keep, _):
        dropped = ops.any(ops.logical_and(overlap, keep[:, :, None]), axis=1)
        after = ops.logical_and(present, ops.logical_not(dropped))
        return after, ops.any(after != keep)

    keep, _ = ops.while_loop(
        lambda keep, changed: changed, one_round, (present, ops.any(present))
    )
    rank = ops.where(keep, num_boxes - rank, 0)
    rank = ops.top_k(rank, min(max_output, num_boxes))[0]
    rank = ops.pad(rank, ((0, 0), (0, max(0, max_output - num_boxes))))
    return ops.cast(num_boxes - rank, "int32"), rank > 0


def _soften(boxes, scores, score_threshold, sigma, max_output):
    """Soft-NMS of sorted boxes: (B, max_output) rows and lowered scores, best first."""
    ranks = ops.arange(boxes.shape[1])
    places = ops.arange(max_output)

    def pick(place, left, index, kept):
        best = ops.cast(ops.argmax(left, axis=1), "int32")[:, None]
        overlap = iou(boxes, gather_rows(boxes, best))
        here = places == place
        index = ops.where(here, best, index)
        kept = ops.where(here, gather_rows(left, best), kept)
        left = left * ops.exp(-ops.square(overlap) / sigma)
        return ops.where(ranks == best, 0.0, left), index, kept

    shape = (ops.shape(scores)[0], max_output)
    index, kept = ops.zeros(shape, "int32"), ops.zeros(shape, "float32")
    left = ops.where(scores > score_threshold, scores, 0.0)
    _, index, kept = ops.fori_loop(
        0, max_output, lambda place, state: pick(place, *state), (left, index, kept)
    )
    return index, kept
