"""Which records of a source the pictures of a run show."""

from __future__ import annotations

import numpy as np


def choose_examples(worst: list[int], count: int, limit: int) -> list[int]:
    """Record indices: up to half of `limit` with mistakes, then evenly spread ones.

    Args:
        worst: Indices of records with mistakes, the worst first.
        count: Records of the source.
        limit: Indices at most.
    """
    chosen = worst[: limit // 2] + spread(count, limit)
    return list(dict.fromkeys(chosen))[:limit]


def spread(count: int, limit: int) -> list[int]:
    """Up to `limit` indices from all over `count` records."""
    return np.linspace(0, count - 1, min(limit, count)).astype(int).tolist()
