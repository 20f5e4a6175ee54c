"""What a head should have said, from what its anchors were matched with."""

from __future__ import annotations

from keras import ops

from visionkit.ops.gather import gather_rows


def anchor_targets(match, anchors, boxes, labels, coder) -> dict:
    """Class and deltas of every anchor.

    Args:
        match: A `visionkit.ops.matching.Match` of these anchors and boxes.
        anchors: (A, 4) or (B, A, 4) xyxy.
        boxes: (B, M, 4) xyxy; rows of padding may hold anything.
        labels: (B, M) integers, -1 for padding.
        coder: A `visionkit.ops.box_coder.BoxCoder`.

    Returns:
        {"labels": (B, A) int32, -1 where the anchor is not positive,
        "deltas": (B, A, 4) float32, 0 where the anchor is not positive}.
    """
    anchors = ops.convert_to_tensor(anchors, "float32")
    boxes = ops.cast(boxes, "float32")
    labels = ops.cast(labels, "int32")
    matched = gather_rows(boxes, match.index)
    # An anchor stands for itself where nothing is to be encoded: no NaN, deltas of 0.
    matched = ops.where(match.positive[..., None], matched, anchors)
    return {
        "labels": ops.where(match.positive, gather_rows(labels, match.index), -1),
        "deltas": coder.encode(matched, anchors),
    }
