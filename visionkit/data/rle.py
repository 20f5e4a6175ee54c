"""Instance masks as compressed COCO RLE strings, in NumPy.

A mask is read column by column; the lengths of its runs, beginning with a run of
zeros, are differenced (each against the last but one, from the fourth on) and written
as groups of five bits, low bits first, as characters from "0" on. The format is that
of the COCO API (`rleToString` in its `maskApi.c`).
"""

from __future__ import annotations

import numpy as np

GROUPS = 7
"""Groups of five bits that hold any difference of two int32 lengths."""


def encode_rle(mask: np.ndarray) -> bytes:
    """The RLE string of a (H, W) mask, bool or 0 / 1."""
    flat = np.asarray(mask, bool).T.reshape(-1)
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    runs = np.diff(np.concatenate([[0], edges, [flat.size]]))
    if flat.size and flat[0]:
        runs = np.concatenate([[0], runs])
    return encode_runs(runs)


def encode_runs(runs: np.ndarray) -> bytes:
    """The RLE string of (R,) int lengths, those of zeros and ones in turn."""
    runs = np.asarray(runs, np.int64)
    deltas = runs.copy()
    deltas[3:] -= runs[1:-2]

    shifted = deltas[:, None] >> (5 * np.arange(GROUPS + 1))  # (R, groups + 1)
    groups, rest = shifted[:, :-1] & 31, shifted[:, 1:]
    # A group is the last when what is left is only its own sign, bit 4.
    last = rest == np.where(groups & 16, -1, 0)
    lengths = last.argmax(axis=1)[:, None]
    position = np.arange(GROUPS)
    codes = groups + np.where(position < lengths, 32, 0) + 48
    return codes[position <= lengths].astype(np.uint8).tobytes()


def decode_rle(counts: bytes, size: tuple[int, int]) -> np.ndarray:
    """The mask of an RLE string.

    Args:
        counts: What `encode_rle` made, or `counts` of a COCO annotation.
        size: (height, width) of the mask.

    Returns:
        (H, W) bool.

    Raises:
        ValueError: The string is damaged, or its runs do not fill `size`.
    """
    runs = decode_runs(counts)
    check_runs(runs, size)
    flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return flat.reshape(size[::-1]).T


def paint_regions(regions, labels, size: tuple[int, int]) -> np.ndarray:
    """(H, W) uint8 class ids: `labels` of RLE strings, each painted over the last.

    What no region covers is 0. Errors are those of `decode_rle`.
    """
    mask = np.zeros(size, np.uint8)
    for counts, label in zip(regions, labels, strict=True):
        mask[decode_rle(counts, size)] = label
    return mask


def decode_runs(counts: bytes) -> np.ndarray:
    """(R,) int64, the lengths in an RLE string.

    Raises:
        ValueError: The string is damaged.
    """
    codes = np.frombuffer(counts, np.uint8).astype(np.int64) - 48
    ends = np.flatnonzero(codes & 32 == 0)
    damaged = codes.size and (codes.min() < 0 or codes.max() > 63 or codes[-1] & 32)
    starts = np.concatenate([[0], ends[:-1] + 1])
    widths = ends - starts[: len(ends)] + 1
    if damaged or not len(ends) or widths.max() > GROUPS:
        raise ValueError(f"Not a compressed COCO RLE string: {counts[:40]!r}")
    position = np.arange(len(codes)) - np.repeat(starts, widths)
    runs = np.add.reduceat((codes & 31) << (5 * position), starts)
    runs -= np.where(codes[ends] & 16, np.int64(1) << (5 * widths), 0)
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    return runs


def check_runs(runs: np.ndarray, size: tuple[int, int]) -> None:
    """Refuses lengths that do not fill a mask of (height, width) `size`."""
    height, width = size
    if runs.min() < 0 or runs.sum() != height * width:
        raise ValueError(
            f"The runs of an RLE mask must be >= 0 and sum to height * width = "
            f"{height} * {width} = {height * width}. Received: sum {runs.sum()}, "
            f"smallest {runs.min()}"
        )
