"""Instance masks as few label maps, for libraries that move pixels; NumPy alone.

Objects that do not overlap share a layer, each with a number of its own: hundreds of
cells of a picture are one map or two, not a stack of hundreds.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from visionkit.data.rle import check_runs, decode_runs, encode_runs

MAX_LAYERS = 16
"""Objects that may lie over one another in a pixel; further ones are left out."""

NUMBERS = 254
"""Objects of a layer: 0 is none, and so is 255, which borders may be filled with."""


def to_layers(
    regions: Sequence[bytes], size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Label maps of masks.

    Args:
        regions: N RLE strings.
        size: (height, width) of the masks.

    Returns:
        (L, height, width) uint8, at least one layer and at most `MAX_LAYERS`, and
        (N,) int64, where each mask is, as `from_layers` wants it; -1 where there was
        no room for it.

    Raises:
        ValueError: As `rle.decode_rle`.
    """
    height, width = size
    layers = [np.zeros(height * width, np.uint8)]
    used = [0]
    places = np.full(len(regions), -1)
    for index, counts in enumerate(regions):
        runs = decode_runs(counts)
        check_runs(runs, size)
        pixels = _pixels(runs)
        layer = _first_free(layers, used, pixels)
        if layer is not None:
            used[layer] += 1
            layers[layer][pixels] = used[layer]
            places[index] = layer * NUMBERS + used[layer] - 1
    return np.stack(layers).reshape(-1, width, height).transpose(0, 2, 1), places


def from_layers(
    layers: np.ndarray, places: np.ndarray
) -> tuple[list[bytes], np.ndarray]:
    """The masks in label maps.

    Args:
        layers: (L, height, width) uint8.
        places: (N,) int64, of `to_layers`.

    Returns:
        N RLE strings, empty where nothing is left of a mask, and their tight boxes
        (N, 4) float32 xyxy pixels.
    """
    found: dict[int, tuple[bytes, list[int]]] = {}
    for number, layer in enumerate(layers):
        found |= {number * NUMBERS + key - 1: x for key, x in _objects(layer)}
    none = b"", [0, 0, 0, 0]
    rows = [found.get(place, none) for place in places.tolist()]
    boxes = np.array([box for _, box in rows], np.float32).reshape(-1, 4)
    return [counts for counts, _ in rows], boxes


def _pixels(runs: np.ndarray) -> np.ndarray:
    """The places of ones, column by column."""
    lengths = runs[1::2]
    starts = np.cumsum(runs)[1::2] - lengths
    before = np.cumsum(lengths) - lengths
    return np.arange(lengths.sum()) + np.repeat(starts - before, lengths)


def _first_free(layers: list, used: list, pixels: np.ndarray) -> int | None:
    """The first layer with nothing in these pixels, perhaps a new one."""
    for index, layer in enumerate(layers):
        if used[index] < NUMBERS and not layer[pixels].any():
            return index
    if len(layers) == MAX_LAYERS:
        return None
    layers.append(np.zeros_like(layers[0]))
    used.append(0)
    return len(layers) - 1


def _objects(layer: np.ndarray):
    """(number, (RLE string, tight box)) of each object of a label map."""
    height = len(layer)
    flat = layer.T.reshape(-1)
    starts = np.flatnonzero(np.diff(flat, prepend=flat[:1] ^ 1))
    ends = np.append(starts[1:], flat.size)
    order = np.argsort(flat[starts], kind="stable")
    numbers, first = np.unique(flat[starts[order]], return_index=True)
    groups = np.split(order, first[1:])
    for number, group in zip(numbers.tolist(), groups, strict=True):
        if not 1 <= number <= NUMBERS:
            continue
        low, high = starts[group], ends[group]
        edges = np.stack([low, high], axis=1).ravel()
        runs = np.diff(edges, prepend=0, append=flat.size)
        left, right = low // height, (high - 1) // height
        one = left == right  # column; a longer run goes on at the top of the next
        top = np.where(one, low % height, 0).min()
        bottom = np.where(one, (high - 1) % height, height - 1).max()
        box = [left.min(), top, right.max() + 1, bottom + 1]
        yield number, (encode_runs(runs if runs[-1] else runs[:-1]), box)
