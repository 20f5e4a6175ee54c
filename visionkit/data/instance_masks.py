"""The masks of one image's instances, kept as RLE strings and read like an array."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from visionkit.data.rle import (
    check_runs,
    decode_rle,
    decode_runs,
    encode_rle,
    encode_runs,
)
from visionkit.paste import check_framed, paste_mask


class InstanceMasks:
    """N masks (H, W) of one image, each in its own pixels.

    `masks[i]` is (H, W) bool, `np.asarray(masks)` is (N, H, W) bool, and what else
    NumPy's indexing knows gives that part of it. Inside they are compressed COCO RLE: a
    hundred instances of a photograph are some ten kilobytes and no gigabyte.

    Args:
        counts: N RLE strings (bytes) of the whole image.
        image_size: (height, width).

    Attributes:
        counts: As received.
        image_size: As received.
        dtype: bool.
        ndim: 3.
    """

    dtype, ndim = np.dtype(bool), 3

    def __init__(self, counts: Sequence[bytes], image_size: tuple[int, int]):
        self.counts = tuple(counts)
        self.image_size = tuple(map(int, image_size))

    @classmethod
    def from_dense(cls, masks) -> InstanceMasks:
        """Of an (N, H, W) array, bool or 0 / 1.

        Raises:
            ValueError: Another shape.
        """
        if np.ndim(masks) != 3:
            raise ValueError(
                "Masks of instances must be (N, H, W), one of full size for each. "
                f"Received: shape {np.shape(masks)}"
            )
        return cls([encode_rle(mask) for mask in masks], np.shape(masks)[1:])

    @classmethod
    def from_boxes(cls, masks, boxes, image_size) -> InstanceMasks:
        """Of masks that are framed by boxes; see `visionkit.paste.paste_masks`."""
        check_framed(masks, boxes)
        pasted = (
            paste_mask(mask, box, image_size)
            for mask, box in zip(masks, boxes, strict=True)
        )
        return cls([encode_crop(*crop, image_size) for crop in pasted], image_size)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(N, H, W)."""
        return len(self.counts), *self.image_size

    def areas(self) -> np.ndarray:
        """(N,) int64, pixels of each mask."""
        areas = [decode_runs(counts)[1::2].sum() for counts in self.counts]
        return np.array(areas, np.int64)

    def crop(self, index: int) -> tuple[np.ndarray, int, int]:
        """One mask without the empty rows and columns around it.

        Returns:
            (rows, columns) bool, without any where the mask is empty, and the row and
            the column of the image that it begins at.
        """
        runs = decode_runs(self.counts[index])
        check_runs(runs, self.image_size)
        ends = np.cumsum(runs)
        if not runs[1::2].any():
            return np.zeros((0, 0), bool), 0, 0
        height = self.image_size[0]
        ones = np.flatnonzero(runs[1::2]) * 2 + 1
        left, right = ends[ones[0] - 1] // height, (ends[ones[-1]] - 1) // height
        # Only the columns that hold some of it become pixels.
        edges = np.clip(ends, left * height, (right + 1) * height)
        lengths = np.diff(edges, prepend=left * height)
        flat = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
        columns = flat.reshape(-1, height)
        rows = np.flatnonzero(columns.any(axis=0))
        return columns[:, rows[0] : rows[-1] + 1].T, int(rows[0]), int(left)

    def to_coco(self) -> list[dict]:
        """N dicts of "size" [height, width] and "counts", as COCO's "segmentation"."""
        size = list(self.image_size)
        return [{"size": size, "counts": c.decode("ascii")} for c in self.counts]

    def __len__(self) -> int:
        return len(self.counts)

    def __iter__(self) -> Iterator[np.ndarray]:
        return (decode_rle(counts, self.image_size) for counts in self.counts)

    def __getitem__(self, key):
        if isinstance(key, int | np.integer):
            return decode_rle(self.counts[key], self.image_size)
        first, *rest = key if isinstance(key, tuple) else (key,)
        if isinstance(first, int | np.integer):
            return self[first][tuple(rest)]
        if isinstance(first, slice):  # only these are decoded
            chosen = InstanceMasks(self.counts[first], self.image_size)
            return np.asarray(chosen)[(slice(None), *rest)]
        return np.asarray(self)[key]

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        if copy is False:
            raise ValueError("RLE masks become an array only by copying.")
        dense = np.zeros(self.shape, dtype or bool)
        for full, mask in zip(dense, self, strict=True):
            full[...] = mask
        return dense

    def __eq__(self, other) -> bool:
        if not isinstance(other, InstanceMasks):
            return NotImplemented
        return (self.counts, self.image_size) == (other.counts, other.image_size)

    __hash__ = None

    def __repr__(self) -> str:
        return f"InstanceMasks(shape={self.shape})"


def encode_crop(crop, top: int, left: int, image_size) -> bytes:
    """The RLE string of a mask of which a part alone is given; the rest is 0.

    Args:
        crop: (rows, columns) bool, inside of the image.
        top: Its first row in the image.
        left: Its first column.
        image_size: (height, width) of the image.
    """
    height, width = image_size
    edges = np.diff(np.pad(crop.T, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    column, row = np.nonzero(edges)
    # Begin and end of each run in turn, since each column has as many of both.
    places = (left + column) * height + top + row
    # A run that goes on in the next column is one.
    again = np.flatnonzero(places[1:-1:2] == places[2::2]) * 2 + 1
    places = np.delete(places, np.concatenate([again, again + 1]))
    runs = np.diff(places, prepend=0, append=height * width)
    return encode_runs(runs if runs[-1] or len(runs) == 1 else runs[:-1])
