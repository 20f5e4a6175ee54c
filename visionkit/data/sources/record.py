"""One image of a data set, before anything is decoded."""

from __future__ import annotations

from typing import TypedDict

import numpy as np


class Record(TypedDict, total=False):
    """One light record: where the image is, and its annotations.

    Exactly one of `path` and `encoded` is present. Sizes and boxes are in pixels of
    the upright image.
    """

    path: bytes  # the image file, as `os.fsencode` spells it
    encoded: bytes  # the encoded image (JPEG, PNG)
    label: int | np.ndarray  # (K,) float32 of 0 and 1 where `multi_label`
    boxes: np.ndarray  # (N, 4) float32, xyxy pixels
    box_labels: np.ndarray  # (N,) int32
    is_crowd: np.ndarray  # (N,) bool
    is_difficult: np.ndarray  # (N,) bool
    area: np.ndarray  # (N,) float32
    mask_path: bytes  # PNG as large as the upright image; `Source.mask_code`
    mask_encoded: bytes
    regions: list[bytes]  # in place of a mask: R RLE strings, painted in this order
    region_labels: np.ndarray  # (R,) int32 class ids, 255 = void; unpainted is class 0
    instance_masks: list[bytes]  # N compressed COCO RLE strings
    proposals: np.ndarray  # (P, 4) float32, xyxy pixels, best first


SCALAR_COLUMNS = ("path", "encoded", "label", "mask_path", "mask_encoded")
"""Columns with one value per record."""
