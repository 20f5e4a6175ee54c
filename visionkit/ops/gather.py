"""Picking rows of every example of a batch."""

from __future__ import annotations

from keras import ops

from visionkit.types import PADDING_LABEL


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


def pack_rows(columns: dict, keep):
    """Rows of K images in M rows, those to keep first, in their order.

    Args:
        columns: Name -> (B, K, M, ...), static; "labels" among them.
        keep: (B, K, M) bool.

    Returns:
        Name -> (B, M, ...); other rows are zeros with the label -1. What finds no room
        is dropped.
    """
    batch, images, rows = keep.shape
    keep = ops.reshape(keep, (batch, images * rows))
    # Different numbers, so that their order is one and the same on every backend.
    rank = ops.arange(images * rows, dtype="int32")
    rank = ops.where(keep, rank, rank + images * rows)
    order = ops.argsort(rank, axis=1)[:, :rows]
    keep = ops.take_along_axis(keep, order, axis=1)
    out = {}
    for name, column in columns.items():
        rest = column.shape[3:]
        column = gather_rows(ops.reshape(column, (batch, -1, *rest)), order)
        kept = ops.reshape(keep, (batch, rows, *[1] * len(rest)))
        fill = PADDING_LABEL if name == "labels" else 0
        out[name] = ops.where(kept, column, ops.cast(fill, column.dtype))
    return out
