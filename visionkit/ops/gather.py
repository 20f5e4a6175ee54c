"""Picking rows of every example of a batch."""

from __future__ import annotations

from keras import ops


def gather_rows(values, index):
    """Rows of every example.

    Args:
        values: (B, M, ...), static but for B.
        index: (B, N) integers in 0..M - 1.

    Returns:
        (B, N, ...).
    """
    # One `take` on the flat tensor: `take_along_axis` spells out every coordinate.
    batch, rows = ops.shape(values)[:2]
    flat = ops.reshape(values, (-1, *values.shape[2:]))
    first = ops.arange(batch, dtype="int32")[:, None] * rows
    return ops.take(flat, first + ops.cast(index, "int32"), axis=0)
