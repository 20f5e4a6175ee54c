"""Finding a folder of images beside a folder of masks, and what the masks hold."""

from __future__ import annotations

import itertools
from pathlib import Path

from visionkit.data.sources.mask_classes import (
    CLASS_FILES,
    binary_classes,
    values_in,
)
from visionkit.data.sources.mask_listing import find_splits, list_masks
from visionkit.types import VOID_CLASS

IMAGE_FOLDERS = ("images", "image", "imgs", "img")
MASK_FOLDERS = ("masks", "mask", "labels", "label", "annotations")

MAX_COLORS = 64
"""Colours of masks that are classes; more are the shades of pictures."""


def find_masks(root: Path) -> tuple[dict, list[str]] | None:
    """Options of `MaskFolder` beside `root` and `split`, and the names of its splits.

    Where nothing says what the masks mean, `classes` is made from their values, under
    names to be replaced. None without a folder of images beside one with PNGs.
    """
    for images, masks in itertools.product(IMAGE_FOLDERS, MASK_FOLDERS):
        splits = find_splits(root, images, masks)
        places = [place.masks for place in splits.values()] or [root / masks]
        if not splits and not (root / images).is_dir():
            continue
        if not any(any(place.rglob("*.png")) for place in places):
            continue
        folders = {"images": images, "masks": masks}
        options = {key: name for key, name in folders.items() if name != key}
        return options | _classes(root, folders), list(splits)
    return None


def _classes(root: Path, folders: dict[str, str]) -> dict:
    """`classes`, unless a file says what they are."""
    if any((root / name).is_file() for name in CLASS_FILES):
        return {}
    listing = list_masks(root, **folders, split="all")
    paths = listing.masks

    def record(index: int) -> dict:
        return {"mask_path": paths[index]}

    values = values_in(len(paths), record)
    if table := binary_classes(values):
        return {"classes": table}
    if values:
        return {"classes": {f"class {v}": v for v in sorted(values - {VOID_CLASS})}}
    colors = values_in(len(paths), record, colors=True)
    if len(colors) > MAX_COLORS:
        return {}
    named = {c: [c >> 16, c >> 8 & 255, c & 255] for c in sorted(colors)}
    return {"classes": {f"color {c:06x}": value for c, value in named.items()}}
