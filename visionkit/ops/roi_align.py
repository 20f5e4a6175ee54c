"""RoIAlign: features of fixed size from boxes of any size, on one map or a pyramid.

He et al., "Mask R-CNN", ICCV 2017, section 3: each box is divided into bins, each bin
is the mean of features sampled bilinearly at regular points, and nothing is rounded.
A map's cell i has its centre at (i + 0.5) * stride pixels. (The first implementations
took i * stride, which shifts everything by half a cell; later ones call this
"aligned".) Points more than one cell outside of the centres count as 0, nearer ones
read the border.
"""

from __future__ import annotations

import itertools

import numpy as np
from keras import ops

CANONICAL_LEVEL = 4
"""Level of a box of `CANONICAL_SIZE` (Lin et al. 2017, "Feature Pyramid Networks",
equation 1)."""

CANONICAL_SIZE = 224.0
"""Pixels: the image size of ImageNet, on which the backbones were trained."""


def roi_align(features, boxes, stride, output_size, sampling_ratio: int = 2):
    """Features of each box, from one map.

    Args:
        features: (B, H, W, C), float.
        boxes: (B, N, 4), xyxy pixels of the input. A constant: the gradient goes to
            the features alone.
        stride: Input pixels per cell of the map.
        output_size: Bins per side, or (rows, columns).
        sampling_ratio: Points per bin and side.

    Returns:
        (B, N, rows, columns, C), of the features' type. A box without area reads one
        point or line over and over.
    """
    height, width, channels = ops.shape(features)[1:]
    maps = ops.reshape(features, (-1, channels))
    tables = [[value] for value in (0, height, width, stride)]
    level = ops.zeros(boxes.shape[1:2], "int32")
    size = height * width
    return _align(maps, size, tables, level, boxes, output_size, sampling_ratio)


def multilevel_roi_align(pyramid, boxes, output_size, sampling_ratio: int = 2):
    """Features of each box, from the level of a pyramid that suits its size.

    All levels lie in one table, so that each box reads its own level alone.

    Args:
        pyramid: Level -> (B, h, w, C), float: consecutive levels such as "P2" to "P5",
            "Pn" of stride 2**n, C the same in all.
        boxes: As for `roi_align`.
        output_size: Bins per side, or (rows, columns).
        sampling_ratio: Points per bin and side.

    Returns:
        (B, N, rows, columns, C), of the features' type.
    """
    names = sorted(pyramid, key=lambda name: int(name[1:]))
    numbers = [int(name[1:]) for name in names]
    sizes = [ops.shape(pyramid[name])[1:3] for name in names]
    heights, widths = zip(*sizes, strict=True)
    areas = [height * width for height, width in zip(heights, widths, strict=True)]
    *first, size = itertools.accumulate(areas, initial=0)
    channels = pyramid[names[0]].shape[-1]
    rows = [
        ops.reshape(pyramid[name], (-1, area, channels))
        for name, area in zip(names, areas, strict=True)
    ]
    maps = ops.reshape(ops.concatenate(rows, axis=1), (-1, channels))
    tables = [first, heights, widths, [2**number for number in numbers]]
    level = level_of_boxes(boxes, numbers[0], numbers[-1]) - numbers[0]
    return _align(maps, size, tables, level, boxes, output_size, sampling_ratio)


def level_of_boxes(boxes, lowest: int, highest: int):
    """(..., N) int32, the pyramid level of each box by its area.

    floor(4 + log2(sqrt(area) / 224)), within `lowest` and `highest`; equation 1 of
    Lin et al. 2017.

    Args:
        boxes: (..., N, 4), xyxy pixels.
        lowest: The finest level there is, 2 for "P2".
        highest: The coarsest.
    """
    boxes = ops.cast(boxes, "float32")
    sides = ops.maximum(boxes[..., 2:] - boxes[..., :2], 0.0)
    # Steps are counted by comparison: a logarithm is not exact at powers of two.
    areas = sides[..., 0] * sides[..., 1]
    steps = np.arange(lowest + 1, highest + 1)
    smallest = (CANONICAL_SIZE * 2.0 ** (steps - CANONICAL_LEVEL)) ** 2
    above = areas[..., None] >= smallest.astype("float32")
    return lowest + ops.sum(ops.cast(above, "int32"), axis=-1)


def _align(maps, size: int, tables, level, boxes, output_size, sampling_ratio: int):
    """The sum over bilinear terms: sampling_ratio * 2 rows by as many columns.

    Args:
        maps: (B * size, C): for each image its maps, one after the other.
        size: Cells of all maps of an image.
        tables: Of each map: first cell, height, width, stride; integers, or scalar
            tensors.
        level: Index of the map of each box, broadcasting with (B, N).
        boxes: (B, N, 4).
        output_size: int or (rows, columns).
        sampling_ratio: Points per bin and side.
    """
    rows, columns = np.broadcast_to(output_size, (2,)).tolist()
    boxes = ops.stop_gradient(ops.cast(boxes, "float32"))
    first, height, width = (
        ops.take(ops.stack([ops.cast(x, "int32") for x in table]), level)
        for table in tables[:3]
    )
    stride = ops.take(ops.convert_to_tensor(tables[3], "float32"), level)
    boxes = boxes / stride[..., None] - 0.5
    images = ops.arange(ops.shape(boxes)[0], dtype="int32")[:, None]
    first = images * size + first  # (B, N)
    y_terms = _terms(boxes[..., 1], boxes[..., 3], height, rows, sampling_ratio)
    x_terms = _terms(boxes[..., 0], boxes[..., 2], width, columns, sampling_ratio)

    # One gather per term keeps the peak at the size of the output.
    output = 0.0
    for y, y_weight in y_terms:
        start = first[..., None] + y * width[..., None]  # (B, N, rows)
        for x, x_weight in x_terms:
            cells = start[..., :, None] + x[..., None, :]  # (B, N, rows, columns)
            weight = y_weight[..., :, None] * x_weight[..., None, :]
            values = ops.cast(ops.take(maps, cells, axis=0), "float32")
            output = output + values * weight[..., None]
    return ops.cast(output, maps.dtype)


def _terms(low, high, size, bins: int, ratio: int) -> list:
    """Cells along one axis, and their shares in each bin.

    Args:
        low: (B, N) where the box begins, in cells, 0 the centre of the first.
        high: (B, N) where it ends.
        size: (B, N) int32, cells of the map.
        bins: Number of bins.
        ratio: Points per bin.

    Returns:
        2 * `ratio` pairs of (B, N, bins): int32 cells and float32 weights.
    """
    # (bins, ratio): where each point lies between the ends of the box
    points = ((np.arange(bins * ratio) + 0.5) / (bins * ratio)).reshape(bins, ratio)
    terms = []
    last = (size - 1)[..., None]
    for share in points.T.astype("float32"):
        position = low[..., None] + share * (high - low)[..., None]
        inside = (position >= -1.0) & (position <= ops.cast(last + 1, "float32"))
        position = ops.clip(position, 0.0, ops.cast(last, "float32"))
        # Clipped as integers too: of NaN, any integer may come.
        cell = ops.clip(ops.cast(ops.floor(position), "int32"), 0, last)
        fraction = position - ops.cast(cell, "float32")
        inside = ops.cast(inside, "float32") / ratio
        terms.append((cell, (1.0 - fraction) * inside))
        terms.append((ops.minimum(cell + 1, last), fraction * inside))
    return terms
