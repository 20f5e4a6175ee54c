"""Columns with any number of rows per record, and the splits between the records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

OBJECT_COLUMNS = (
    "boxes",
    "box_labels",
    "is_crowd",
    "is_difficult",
    "area",
    "instance_masks",
)
"""Columns with one row per object."""

RLE_COLUMNS = ("instance_masks", "regions")
"""Columns of RLE strings; a record has them as a list."""

RAGGED_COLUMNS = {
    **dict.fromkeys(OBJECT_COLUMNS, "row_splits"),
    "proposals": "proposal_splits",
    **dict.fromkeys(("regions", "region_labels"), "region_splits"),
}
"""Column with any number of rows per record -> the column that splits them."""


def join_rows(records: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """The ragged columns of records, as in `Source.columns`."""
    columns: dict[str, np.ndarray] = {}
    for key, splits in RAGGED_COLUMNS.items():
        if not records or key not in records[0]:
            continue
        rows = [record[key] for record in records]
        columns[splits] = np.cumsum([0, *map(len, rows)]).astype(np.int64)
        if key in RLE_COLUMNS:
            columns[key] = np.array([mask for row in rows for mask in row], object)
        else:
            columns[key] = np.concatenate(rows)
    return columns


def select_rows(
    columns: dict[str, np.ndarray], indices: np.ndarray
) -> dict[str, np.ndarray]:
    """The ragged columns of the records at `indices`, in that order."""
    out: dict[str, np.ndarray] = {}
    for key, splits in RAGGED_COLUMNS.items():
        if key not in columns:
            continue
        starts, counts = columns[splits][indices], np.diff(columns[splits])[indices]
        out[splits] = np.cumsum([0, *counts]).astype(np.int64)
        rows = np.repeat(starts - out[splits][:-1], counts) + np.arange(counts.sum())
        out[key] = columns[key][rows]
    return out


def group_rows(
    owners: np.ndarray,
    count: int,
    columns: dict[str, np.ndarray],
    splits: str = "row_splits",
) -> dict[str, np.ndarray]:
    """The rows of objects in any order, as the ragged columns of `count` records.

    Args:
        owners: (N,) int, the record of each object.
        count: Number of records.
        columns: Columns of N rows; their order within a record is kept.
        splits: What `RAGGED_COLUMNS` calls the splits of these columns.
    """
    order = np.argsort(owners, kind="stable")
    counts = np.bincount(owners, minlength=count)
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return {splits: starts, **{k: v[order] for k, v in columns.items()}}
