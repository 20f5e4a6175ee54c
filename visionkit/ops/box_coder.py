"""Boxes as a network predicts them: deltas from anchors, or distances from points."""

from __future__ import annotations

import dataclasses
import math

import keras
from keras import ops

from visionkit.ops.options import Options

_LARGEST_LOG = math.log(1000 / 16)  # Faster R-CNN's limit before exp
_SMALLEST_SIDE = 1e-3  # pixels; the log of a side of 0 must be finite


@keras.saving.register_keras_serializable(package="visionkit")
@dataclasses.dataclass(frozen=True)
class BoxCoder(Options):
    """Deltas (dx, dy, dw, dh) from anchors (Girshick et al. 2014, appendix C).

    dx = weight * (centre of the box - centre of the anchor) / width of the anchor,
    dw = weight * log(width of the box / width of the anchor).

    Args:
        weights: Of the four deltas; one over SSD's "variances". (1, 1, 1, 1) for
            RetinaNet and RPN, (10, 10, 5, 5) for SSD and the box head of Faster R-CNN.
    """

    weights: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0)

    def __post_init__(self):
        weights = tuple(float(weight) for weight in self.weights)
        if len(weights) != 4 or not all(0 < x < math.inf for x in weights):
            raise ValueError(
                "`weights` must be four positive numbers, for dx, dy, dw, dh. "
                f"Received: weights={self.weights}"
            )
        object.__setattr__(self, "weights", weights)

    def encode(self, boxes, anchors):
        """Deltas (..., 4) float32 that turn `anchors` into `boxes`, both (..., 4) xyxy.

        Finite for boxes and anchors without area, too.
        """
        cx, cy, width, height = _centres(boxes)
        anchor_cx, anchor_cy, anchor_width, anchor_height = _centres(anchors)
        deltas = (
            (cx - anchor_cx) / anchor_width,
            (cy - anchor_cy) / anchor_height,
            ops.log(width / anchor_width),
            ops.log(height / anchor_height),
        )
        pairs = zip(deltas, self.weights, strict=True)
        return ops.stack([delta * weight for delta, weight in pairs], axis=-1)

    def decode(self, deltas, anchors):
        """Boxes (..., 4) float32 xyxy, not clipped to the image.

        A box is at most 62.5 times as wide and as high as its anchor: the first steps
        of a training would otherwise overflow.
        """
        deltas = ops.cast(deltas, "float32")
        dx, dy, dw, dh = (deltas[..., i] / self.weights[i] for i in range(4))
        anchor_cx, anchor_cy, anchor_width, anchor_height = _centres(anchors)
        cx, cy = anchor_cx + dx * anchor_width, anchor_cy + dy * anchor_height
        half_w = ops.exp(ops.minimum(dw, _LARGEST_LOG)) * anchor_width / 2
        half_h = ops.exp(ops.minimum(dh, _LARGEST_LOG)) * anchor_height / 2
        edges = (cx - half_w, cy - half_h, cx + half_w, cy + half_h)
        return ops.stack(edges, axis=-1)


def boxes_to_distances(points, boxes):
    """How far the edges of boxes are from points inside them.

    Args:
        points: (..., 2) xy.
        boxes: (..., 4) xyxy.

    Returns:
        (..., 4) float32: to the left, top, right and bottom edge; negative for an edge
        on the wrong side of its point.
    """
    points, boxes = ops.cast(points, "float32"), ops.cast(boxes, "float32")
    first, last = points - boxes[..., :2], boxes[..., 2:] - points
    return ops.concatenate((first, last), axis=-1)


def distances_to_boxes(points, distances):
    """Boxes (..., 4) float32 xyxy from the distances of `boxes_to_distances`."""
    points, distances = ops.cast(points, "float32"), ops.cast(distances, "float32")
    first, last = points - distances[..., :2], points + distances[..., 2:]
    return ops.concatenate((first, last), axis=-1)


def _centres(boxes):
    """Centre x, centre y, width, height, the last two at least a thousandth."""
    boxes = ops.cast(boxes, "float32")
    x1, y1, x2, y2 = (boxes[..., i] for i in range(4))
    width = ops.maximum(x2 - x1, _SMALLEST_SIDE)
    height = ops.maximum(y2 - y1, _SMALLEST_SIDE)
    return (x1 + x2) / 2, (y1 + y2) / 2, width, height
