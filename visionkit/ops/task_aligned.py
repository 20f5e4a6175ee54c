"""Task-aligned assignment: which locations learn which object, and how surely.

Feng et al. 2021, "TOOD: Task-aligned One-stage Object Detection", section 3.2.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from keras import ops

# Objects looked at in one go: (B, 4, A) arrays stay in the processor's cache, where one
# (B, M, A) array per operation would be tens of megabytes.
_CHUNK = 4


class Assignment(NamedTuple):
    """What every location learns.

    Attributes:
        index: (B, A) int32, the row of its object; 0 where it has none.
        score: (B, A) float32 in [0, 1], what the object's class shall score there; 0
            where it has none.
    """

    index: Any
    score: Any


def assign_task_aligned(
    logits,
    boxes,
    points,
    true_boxes,
    labels,
    *,
    top_k: int = 10,
    alpha: float = 0.5,
    beta: float = 6.0,
) -> Assignment:
    """The locations that agree best with each object in class and place.

    How well location a and object m agree is score**alpha * overlap**beta, where score
    is the predicted probability of the object's class and overlap the CIoU of both
    boxes, at least 0. An object gets the `top_k` best of the locations inside of it; a
    location that several objects want goes to the one with the highest overlap, of
    equals the first. What it learns is agreement * (highest overlap / highest
    agreement) of all locations of its object. An object that holds no location, or
    none whose box overlaps it, gets none.

    The time it takes follows the last valid row of the batch, not M.

    Args:
        logits: (B, A, K) class logits.
        boxes: (B, A, 4) predicted boxes, xyxy pixels. No gradient passes.
        points: (A, 2) centres (x, y) of the locations, pixels.
        true_boxes: (B, M, 4) xyxy pixels.
        labels: (B, M) int, -1 in padded rows.
        top_k: Locations per object, at most.
        alpha: Exponent of the score.
        beta: Exponent of the overlap.
    """
    logits, boxes = (ops.stop_gradient(ops.cast(x, "float32")) for x in (logits, boxes))
    batch, count = ops.shape(labels)[0], ops.shape(labels)[1]
    steps = count // _CHUNK + 1
    missing = steps * _CHUNK - count
    labels = ops.cast(labels, "int32")
    labels = ops.pad(labels, [[0, 0], [0, missing]], constant_values=-1)
    true_boxes = ops.cast(true_boxes, "float32")
    true_boxes = ops.pad(true_boxes, [[0, 0], [0, missing], [0, 0]])
    locations = ops.shape(boxes)[1]
    top_k = min(top_k, boxes.shape[1] or top_k)

    predicted = [x[:, None, :] for x in _measures(boxes)]  # each (B, 1, A)
    x, y = (ops.convert_to_tensor(points[:, i], "float32") for i in (0, 1))
    # One row for each image and class, so that a row is copied as a whole.
    rows = ops.reshape(ops.swapaxes(logits, 1, 2), (-1, locations))
    first_row = ops.arange(batch, dtype="int32")[:, None] * ops.shape(logits)[2]
    labels = ops.reshape(labels, (batch, steps, _CHUNK))
    true_boxes = ops.reshape(true_boxes, (batch, steps, _CHUNK, 4))
    used = ops.any(labels >= 0, axis=(0, 2))
    used = ops.max(ops.where(used, ops.arange(1, steps + 1, dtype="int32"), 0))

    def body(step, *claims):
        label = ops.take(labels, step, axis=1)
        true = _measures(ops.take(true_boxes, step, axis=1)[:, :, None, :])
        overlap = _ciou(predicted, true)
        x1, y1, x2, y2, *_ = true
        inside = (x > x1) & (x < x2) & (y > y1) & (y < y2)
        inside = inside & (label >= 0)[:, :, None]
        logit = ops.take(rows, first_row + ops.maximum(label, 0), axis=0)
        # The root of order beta keeps the order, needs no power for every pair, and
        # stays within float32's range.
        agreement = overlap * ops.exp(alpha / beta * ops.log_sigmoid(logit))
        agreement, location = ops.top_k(ops.where(inside, agreement, 0.0), top_k)
        overlap = ops.take_along_axis(overlap, location, axis=-1)
        found = (agreement, overlap, ops.cast(location, "int32"))
        at = ops.reshape(step, (1, 1))
        updated = (
            ops.scatter_update(old, at, new[None])
            for old, new in zip(claims, found, strict=True)
        )
        return step + 1, *updated

    shape = (steps, batch, _CHUNK, top_k)
    state = [ops.zeros(shape, dtype) for dtype in ("float32", "float32", "int32")]
    _, *claims = ops.while_loop(lambda step, *_: step < used, body, (0, *state))
    shape = (batch, steps * _CHUNK, top_k)
    claims = (ops.reshape(ops.swapaxes(claim, 0, 1), shape) for claim in claims)
    return _resolve(*claims, locations=locations, beta=beta)


def _resolve(agreement, overlap, location, *, locations: int, beta: float):
    """An `Assignment` from what every object claims, (B, M, k) each."""
    batch, count, _ = ops.shape(location)
    image = ops.arange(batch, dtype="int32")[:, None, None]
    segment = location + image * locations
    num_segments = batch * locations

    def highest(values):
        """The highest value at every location, and again beside every claim."""
        best = ops.segment_max(
            ops.reshape(values, (-1,)), ops.reshape(segment, (-1,)), num_segments
        )
        return best, ops.take(best, segment)

    claimed = agreement > 0
    overlap = ops.where(claimed, overlap, 0.0)
    won = claimed & (overlap >= highest(overlap)[1])
    # Rows count down from M, so that the first of equal ones is the highest.
    row = count - ops.arange(count, dtype="int32")[:, None]
    row = ops.where(won, row, 0)
    best_row, won_row = highest(row)
    won = won & (row == won_row)

    agreement = ops.where(won, agreement, 0.0)
    overlap = ops.max(ops.where(won, overlap, 0.0), axis=-1, keepdims=True)
    most = ops.max(agreement, axis=-1, keepdims=True)
    relative = agreement / ops.where(most > 0, most, 1.0)
    score = ops.segment_sum(
        ops.reshape(overlap * relative**beta, (-1,)),
        ops.reshape(segment, (-1,)),
        num_segments,
    )
    index = ops.where(best_row > 0, count - best_row, 0)
    return Assignment(
        ops.stop_gradient(ops.reshape(index, (batch, locations))),
        ops.stop_gradient(ops.reshape(score, (batch, locations))),
    )


def _measures(boxes):
    """x1, y1, x2, y2, area, centre x and y, angle: what a CIoU reads of (..., 4)."""
    x1, y1, x2, y2 = (boxes[..., i] for i in range(4))
    width, height = x2 - x1, y2 - y1
    # On a scale where a quarter turn is 1.
    angle = ops.arctan2(width, height) * (2 / math.pi)
    return x1, y1, x2, y2, width * height, (x1 + x2) / 2, (y1 + y2) / 2, angle


def _ciou(a, b):
    """CIoU (Zheng et al. 2020) of measured boxes where it is positive, else 0.

    `ops.boxes.iou` in half the operations: no gradient, and what belongs to one box is
    computed once and not for every pair.
    """
    ax1, ay1, ax2, ay2, a_area, ax, ay, a_angle = a
    bx1, by1, bx2, by2, b_area, bx, by, b_angle = b
    width = ops.relu(ops.minimum(ax2, bx2) - ops.maximum(ax1, bx1))
    height = ops.relu(ops.minimum(ay2, by2) - ops.maximum(ay1, by1))
    inter = width * height
    iou = inter / (a_area + (b_area + 1e-12) - inter)
    around_w = ops.maximum(ax2, bx2) - ops.minimum(ax1, bx1)
    around_h = ops.maximum(ay2, by2) - ops.minimum(ay1, by1)
    distance = ops.square(ax - bx) + ops.square(ay - by)
    diagonal = ops.square(around_w) + ops.square(around_h)
    shape = ops.square(a_angle - b_angle)
    penalty = distance / (diagonal + 1e-12)
    penalty = penalty + ops.square(shape) / (shape - iou + (1 + 1e-7))
    return ops.relu(iou - penalty)
