"""Masks of instances from several looks at one image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from visionkit.data.instance_masks import InstanceMasks, encode_crop
from visionkit.inference.views import View, merge_views
from visionkit.paste import paste_mask


def merge_instances(views: Sequence[View], answers: Sequence[dict], image_size) -> dict:
    """The answers of all views as one, in pixels of the original image.

    Objects and boxes are those of `merge_views`, but what two views must agree on is
    the mask. In the mask of an object each pixel is decided by the surest of the views
    that found the object and show the pixel: so what a seam has cut is united, and
    where views see the same the surest one's mask stands. It ends where the object's
    box does.

    Args:
        views: V views.
        answers: V dicts as for `merge_views`, with "masks" (N, h, w) framed by their
            boxes.
        image_size: (height, width).

    Returns:
        As `merge_views`, and "masks", an `InstanceMasks`.
    """
    parts = [
        part
        for view, answer in zip(views, answers, strict=True)
        for part in _parts(view, answer, image_size)
    ]
    merged = merge_views(
        views, answers, image_size, lambda i, j: _agreement(parts[i], parts[j])
    )
    counts = [
        _unite([parts[row] for row in rows], box, image_size)
        for rows, box in zip(merged["members"], merged["boxes"], strict=True)
    ]
    return {**merged, "masks": InstanceMasks(counts, image_size)}


def _parts(view: View, answer: dict, image_size):
    """(pasted mask, window) of each object of a view, in pixels of the image."""
    masks = answer["masks"][..., ::-1] if view.flip else answer["masks"]
    boxes = view.boxes_to_original(answer["boxes"])
    for mask, box in zip(masks, boxes, strict=True):
        yield paste_mask(mask, box, image_size), view.window


def _within(pasted, window):
    """Of a pasted mask (crop, top, left) what lies in a window, in the same form."""
    crop, top, left = pasted
    x1, y1, x2, y2 = window
    rows = slice(max(y1 - top, 0), max(y2 - top, 0))
    columns = slice(max(x1 - left, 0), max(x2 - left, 0))
    return crop[rows, columns], top + rows.start, left + columns.start


def _agreement(one, other) -> float:
    """IoU of two masks within what both of their windows show."""
    both = [
        *np.maximum(one[1][:2], other[1][:2]),
        *np.minimum(one[1][2:], other[1][2:]),
    ]
    (a, *_), (b, *_) = masks = [_within(pasted, both) for pasted, _ in (one, other)]
    starts = np.array([(left, top) for _, top, left in masks])
    ends = starts + [crop.shape[::-1] for crop in (a, b)]
    low, high = starts.max(axis=0), ends.min(axis=0)
    if (high <= low).any():
        return 0.0
    a_there, b_there = (_within(mask, (*low, *high))[0] for mask in masks)
    shared = (a_there & b_there).sum()
    return float(shared / max(a.sum() + b.sum() - shared, 1))


def _unite(parts, box, image_size) -> bytes:
    """The RLE string of one object, whose parts are given, the surest first."""
    # The pixels whose centres lie in the box.
    left, top = np.ceil(box[:2] - 0.5).astype(int)
    right, bottom = np.floor(box[2:] + 0.5).astype(int)
    united = np.zeros((max(bottom - top, 0), max(right - left, 0)), bool)
    undecided = np.ones_like(united)
    for pasted, (x1, y1, x2, y2) in parts:
        crop, y, x = _within(pasted, (left, top, right, bottom))
        if crop.size:
            y, x = y - top, x - left
            place = slice(y, y + crop.shape[0]), slice(x, x + crop.shape[1])
            united[place] |= crop & undecided[place]
        # All that the window shows is decided.
        rows = slice(max(y1 - top, 0), max(y2 - top, 0))
        undecided[rows, max(x1 - left, 0) : max(x2 - left, 0)] = False
    return encode_crop(united, int(top), int(left), image_size)
