"""The three splits, and the names that people give them."""

from __future__ import annotations

import re

SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing"),
}
"""Split -> the names of folders, files and table cells that stand for it."""

SPLIT_NAMES = {name: split for split, names in SPLITS.items() for name in names}
"""Name, in lower case -> split."""


def split_in(name: str) -> str | None:
    """The split that the name of a file or folder speaks of, as `val2017` does."""
    words = re.findall(r"[a-z]+", name.lower())
    return next((SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES), None)


def check_split(split: str | None) -> str | None:
    """The split under its own name, where `split` is one of its names or None.

    Raises:
        ValueError: It is none.
    """
    if split in (None, "all"):
        return split
    if split not in SPLIT_NAMES:
        raise ValueError(
            f"`split` must be one of {', '.join(SPLITS)}, all. Received: "
            f"split={split!r}"
        )
    return SPLIT_NAMES[split]
