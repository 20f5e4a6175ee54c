"""Boxes: formats, areas, and how far two of them are the same.

Inside the package a box is (x1, y1, x2, y2) in pixels, edges continuous: a box around
one pixel is 1 wide. Everything computes in float32, whatever comes in.
"""

from __future__ import annotations

import math

from keras import ops

BOX_FORMATS = ("xyxy", "yxyx", "xywh", "cxcywh")
IOU_KINDS = ("iou", "giou", "diou", "ciou")

_SMALLEST_AREA = 1e-12  # less than that of any box, also of relative ones
_SMALLEST_SIDE = 1e-3  # pixels; keeps the gradient of an aspect ratio bounded


def convert_boxes(boxes, source: str, target: str, image_size=None):
    """Boxes in another format.

    Args:
        boxes: (..., 4).
        source: "xyxy" "yxyx" "xywh" (left, top, width, height) or "cxcywh" (centre),
            each also as "rel_...", in shares of the image's width and height.
        target: The format to convert to.
        image_size: (height, width), needed when one of both is relative.

    Returns:
        (..., 4) float32.

    Raises:
        ValueError: For an unknown format, or a missing `image_size`.
    """
    boxes = ops.cast(boxes, "float32")
    if source == target:
        _check_format(source)
        return boxes
    x1, y1, x2, y2 = _edges(boxes, _check_format(source))
    relative = source.startswith("rel_"), target.startswith("rel_")
    if relative[0] != relative[1]:
        if image_size is None:
            raise ValueError(
                "`image_size=(height, width)` is needed between relative and absolute "
                f"boxes. Received: source={source!r}, target={target!r}"
            )
        height, width = (ops.cast(side, "float32") for side in image_size)
        if relative[1]:
            height, width = 1 / height, 1 / width
        x1, y1, x2, y2 = x1 * width, y1 * height, x2 * width, y2 * height
    target = _check_format(target)
    if target == "yxyx":
        parts = (y1, x1, y2, x2)
    elif target == "xywh":
        parts = (x1, y1, x2 - x1, y2 - y1)
    elif target == "cxcywh":
        parts = ((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1)
    else:
        parts = (x1, y1, x2, y2)
    return ops.stack(parts, axis=-1)


def box_area(boxes):
    """(...,) float32 areas of (..., 4) xyxy; 0 for a box that is inside out."""
    x1, y1, x2, y2 = _coordinates(boxes)
    return ops.relu(x2 - x1) * ops.relu(y2 - y1)


def clip_boxes(boxes, image_size):
    """(..., 4) float32 xyxy, cut off at an image of (height, width)."""
    x1, y1, x2, y2 = _coordinates(boxes)
    height, width = (ops.cast(side, "float32") for side in image_size)
    x1, x2 = (ops.minimum(ops.maximum(x, 0.0), width) for x in (x1, x2))
    y1, y2 = (ops.minimum(ops.maximum(y, 0.0), height) for y in (y1, y2))
    return ops.stack((x1, y1, x2, y2), axis=-1)


def iou_matrix(a, b):
    """Intersection over union of every box in `a` with every box in `b`.

    Args:
        a: (..., N, 4) xyxy.
        b: (..., M, 4) xyxy.

    Returns:
        (..., N, M) float32 in 0..1; 0 where a box has no area.
    """
    inter = _intersection_matrix(a, b)
    union = box_area(a)[..., :, None] + box_area(b)[..., None, :] - inter
    # No mask: an (..., N, M) tensor may be large, and `inter` is 0 where the union is.
    return inter / ops.maximum(union, _SMALLEST_AREA)


def ioa_matrix(a, b):
    """Intersections as shares of the boxes in `a`; otherwise like `iou_matrix`."""
    area = ops.maximum(box_area(a)[..., :, None], _SMALLEST_AREA)
    return _intersection_matrix(a, b) / area


def iou(a, b, kind: str = "iou"):
    """Overlap of pairs of boxes, with finite gradients for all that is finite.

    Args:
        a: (..., 4) xyxy.
        b: (..., 4) xyxy, broadcast against `a`.
        kind: "iou", 0..1; "giou" (Rezatofighi et al. 2019) less the empty share of the
            box around both, -1..1; "diou" and "ciou" (Zheng et al. 2020) less the
            distance of the centres, and less the difference of the aspect ratios too.

    Returns:
        (...,) float32.

    Raises:
        ValueError: For an unknown kind.
    """
    if kind not in IOU_KINDS:
        raise ValueError(f"`kind` must be one of {IOU_KINDS}. Received: kind={kind!r}")
    ax1, ay1, ax2, ay2 = _coordinates(a)
    bx1, by1, bx2, by2 = _coordinates(b)
    width = ops.relu(ops.minimum(ax2, bx2) - ops.maximum(ax1, bx1))
    height = ops.relu(ops.minimum(ay2, by2) - ops.maximum(ay1, by1))
    inter = width * height
    union = box_area(a) + box_area(b) - inter
    overlap = _divide(inter, union)
    if kind == "iou":
        return overlap
    around_w = ops.maximum(ax2, bx2) - ops.minimum(ax1, bx1)
    around_h = ops.maximum(ay2, by2) - ops.minimum(ay1, by1)
    if kind == "giou":
        around = around_w * around_h
        return overlap - _divide(around - union, around)
    distance = ops.square(ax1 + ax2 - bx1 - bx2) + ops.square(ay1 + ay2 - by1 - by2)
    diagonal = ops.square(around_w) + ops.square(around_h)
    overlap_less_distance = overlap - _divide(distance / 4, diagonal)
    if kind == "diou":
        return overlap_less_distance
    angle = _angle(ax2 - ax1, ay2 - ay1) - _angle(bx2 - bx1, by2 - by1)
    shape = (4 / math.pi**2) * ops.square(angle)
    share = ops.stop_gradient(_divide(shape, 1 - overlap + shape))
    return overlap_less_distance - share * shape


def _coordinates(boxes):
    boxes = ops.cast(boxes, "float32")
    return tuple(boxes[..., i] for i in range(4))


def _edges(boxes, box_format: str):
    first, second, third, fourth = _coordinates(boxes)
    if box_format == "yxyx":
        return second, first, fourth, third
    if box_format == "xywh":
        return first, second, first + third, second + fourth
    if box_format == "cxcywh":
        half_w, half_h = third / 2, fourth / 2
        return first - half_w, second - half_h, first + half_w, second + half_h
    return first, second, third, fourth


def _check_format(name: str) -> str:
    short = name.removeprefix("rel_")
    if short not in BOX_FORMATS:
        raise ValueError(
            f"A box format is one of {BOX_FORMATS}, or one of them after 'rel_'. "
            f"Received: {name!r}"
        )
    return short


def _intersection_matrix(a, b):
    # Coordinate by coordinate: no (..., N, M, 2) tensor.
    ax1, ay1, ax2, ay2 = (x[..., :, None] for x in _coordinates(a))
    bx1, by1, bx2, by2 = (x[..., None, :] for x in _coordinates(b))
    width = ops.relu(ops.minimum(ax2, bx2) - ops.maximum(ax1, bx1))
    height = ops.relu(ops.minimum(ay2, by2) - ops.maximum(ay1, by1))
    return width * height


def _divide(numerator, denominator):
    """0 where the denominator is not positive, there with a gradient that is finite."""
    positive = denominator > 0
    safe = ops.where(positive, denominator, 1.0)
    return ops.where(positive, numerator / safe, 0.0)


def _angle(width, height):
    width, height = (ops.maximum(side, _SMALLEST_SIDE) for side in (width, height))
    return ops.arctan(width / height)
