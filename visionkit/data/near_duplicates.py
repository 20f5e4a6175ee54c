"""Images that look the same though their bytes differ."""

from __future__ import annotations

import io
import os

import numpy as np

from visionkit.data.fingerprints import parallel_map
from visionkit.data.headers import inspect_image
from visionkit.data.image_header import BadImage
from visionkit.data.sources.base import Source

SIDE = 16
"""A fingerprint has `SIDE` * `SIDE` bits."""

MARGIN = 2
"""Grey levels between neighbours that count as a step: noise does not."""

MIN_STEPS = 16
"""Steps of a fingerprint that can be told from others: blank images have none."""

MAX_DISTANCE = 10
"""Bits by which fingerprints of one picture differ, saved anew or at another size."""

_ROWS = 512


def fingerprints(source: Source, workers: int | None = None) -> np.ndarray:
    """A fingerprint of what each image shows.

    The image is reduced to `SIDE` rows of `SIDE` + 1 grey pixels; a bit says whether
    a pixel is darker than its right neighbour (a difference hash).

    Returns:
        (len, 4) uint64; 0 where the image cannot be read or is blank.
    """
    bits = parallel_map(lambda i: _bits(source, i), range(len(source)), workers)
    packed = np.packbits(np.array(bits, bool).reshape(-1, SIDE * SIDE), axis=1)
    return packed.view(np.uint64)


def near_pairs(left: np.ndarray, right: np.ndarray) -> list[tuple[int, int]]:
    """Pairs (i, j) of like images, for each j the nearest i, in the order of j.

    Args:
        left: (N, 4) uint64, fingerprints.
        right: (M, 4) uint64.
    """
    if not len(left):
        return []
    told = np.bitwise_count(left).sum(axis=1) >= MIN_STEPS
    pairs = []
    for start in range(0, len(right), _ROWS):
        rows = right[start : start + _ROWS]
        distance = np.zeros((len(rows), len(left)), np.uint16)
        for word in range(left.shape[1]):
            distance += np.bitwise_count(rows[:, None, word] ^ left[None, :, word])
        distance[:, ~told] = np.iinfo(np.uint16).max
        nearest = distance.argmin(axis=1)
        close = distance[np.arange(len(rows)), nearest] <= MAX_DISTANCE
        pairs += [(int(nearest[j]), start + int(j)) for j in np.flatnonzero(close)]
    return pairs


def _bits(source: Source, index: int) -> np.ndarray:
    """(SIDE, SIDE) bool."""
    from PIL import Image

    try:
        record = source.record(index)
        encoded = record.get("encoded")
        content = os.fsdecode(record["path"]) if encoded is None else encoded
        inspect_image(content)  # before a decoder sees it: limits, pipes, bombs
        file = content if encoded is None else io.BytesIO(encoded)
        with Image.open(file) as image:
            image.draft("L", (4 * SIDE, 4 * SIDE))  # JPEG is decoded smaller
            small = image.convert("L").resize((SIDE + 1, SIDE), Image.Resampling.BOX)
    except (BadImage, OSError, ValueError, SyntaxError):
        return np.zeros((SIDE, SIDE), bool)
    grey = np.asarray(small).astype(int)
    return grey[:, 1:] > grey[:, :-1] + MARGIN
