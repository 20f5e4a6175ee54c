"""How many pixels of each class the masks of a source have."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from visionkit.data.fingerprints import parallel_map
from visionkit.data.image_header import BadImage
from visionkit.data.progress import progress_bar
from visionkit.types import VOID_CLASS


def count_masks(source, indices: Sequence[int] | None = None) -> np.ndarray:
    """The pixels of each class in each mask.

    Args:
        source: Of semantic masks.
        indices: The records to read; default all.

    Returns:
        (N, num_classes + 1) int64, the void ones last; zeros where the mask cannot be
        read.
    """
    indices = range(len(source)) if indices is None else indices
    classes = source.info.num_classes

    def count(index: int) -> np.ndarray:
        advance()
        try:
            return count_pixels(source.mask(index), classes)
        except BadImage:  # the pipeline and the doctor report it
            return np.zeros(classes + 1, np.int64)

    with progress_bar("Counting pixels", len(indices)) as advance:
        rows = parallel_map(count, indices)
    return np.array(rows, np.int64).reshape(-1, classes + 1)


def count_pixels(mask: np.ndarray, num_classes: int) -> np.ndarray:
    """(num_classes + 1,) int64 of a mask (H, W) uint8, the void ones last."""
    counts = np.bincount(mask.reshape(-1), minlength=VOID_CLASS + 1)
    return np.append(counts[:num_classes], counts[VOID_CLASS])
