"""Masks that are framed by boxes, as other boxes see them."""

from __future__ import annotations

import numpy as np
from keras import ops

from visionkit.ops.gather import gather_rows

# A cell that is covered by exactly one half is common where a region is the box itself;
# so it counts on every backend, whatever the last digits of a matrix product are.
HALF = 0.499


def masks_in_regions(masks, boxes, index, regions, size: int):
    """The truth of masks in the frames of regions.

    Each region is divided into `size` x `size` cells; a cell belongs to the mask if the
    mask covers at least half of its area. Outside of its own box a mask is empty.

    Args:
        masks: (B, M, h, w) 0 or 1, any number type: each framed by its box, which is
            divided into h x w equal cells.
        boxes: (B, M, 4) xyxy; one without area, or that is no number, has no mask.
        index: (B, P) integers, the row of `masks` that a region is for.
        regions: (B, P, 4) xyxy; of one without area nothing is covered.
        size: Cells per side.

    Returns:
        (B, P, size, size) float32, 0 or 1.
    """
    height, width = masks.shape[2:]
    boxes = gather_rows(ops.cast(boxes, "float32"), index)
    regions = ops.cast(regions, "float32")
    # Gathered as they come, a byte per cell.
    masks = ops.cast(gather_rows(masks, index), "float32")
    rows = _shares(regions[..., 1::2], boxes[..., 1::2], size, height)
    columns = _shares(regions[..., 0::2], boxes[..., 0::2], size, width)
    covered = ops.matmul(ops.matmul(rows, masks), ops.swapaxes(columns, -1, -2))
    return ops.cast(covered >= HALF, "float32")


def _shares(region, box, size: int, cells: int):
    """(..., size, cells): the share of each cell of a region in each of a box.

    Args:
        region: (..., 2) where it begins and ends along one axis.
        box: (..., 2) the same.
        size: Cells of the region.
        cells: Cells of the box.
    """
    extent = box[..., 1:] - box[..., :1]
    extent = ops.where(extent > 0, extent, np.inf)
    steps = (np.arange(size + 1) / size).astype("float32")
    edges = region[..., :1] + steps * (region[..., 1:] - region[..., :1])
    edges = (edges - box[..., :1]) / extent * cells  # in cells of the box
    # How much of each cell of the box lies before each edge.
    before = edges[..., None] - np.arange(cells, dtype="float32")
    before = ops.clip(before, 0.0, 1.0)
    length = edges[..., 1:, None] - edges[..., :-1, None]
    overlap = before[..., 1:, :] - before[..., :-1, :]
    return overlap / ops.where(length > 0, length, np.inf)
