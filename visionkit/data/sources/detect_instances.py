"""Finding folders of instance masks, and what their numbers mean."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

from visionkit.data.image_header import BadImage
from visionkit.data.sources import instance_listing
from visionkit.data.sources.detect_masks import IMAGE_FOLDERS, MASK_FOLDERS
from visionkit.data.sources.instance_files import read_numbered
from visionkit.data.sources.instance_listing import first_folders
from visionkit.data.sources.mask_listing import find_splits, folders_in, list_masks

CITYSCAPES = {
    "person": 24,
    "rider": 25,
    "car": 26,
    "truck": 27,
    "bus": 28,
    "train": 31,
    "motorcycle": 32,
    "bicycle": 33,
}
"""The classes of Cityscapes that have instances."""

# Folders that say by their names what they hold -> options of `InstanceFolder`.
_NAMED = (
    {
        "images": "leftImg8bit",
        "masks": "gtFine",
        "image_suffix": "_leftImg8bit",
        "mask_suffix": "_gtFine_instanceIds",
        "classes": CITYSCAPES,
        "divisor": 1000,
    },
    {
        "images": "PNGImages",
        "masks": "PedMasks",
        "mask_suffix": "_mask",
        "classes": ["pedestrian"],
    },
)

DIVISOR = 1000
"""What most sets multiply classes with."""

_PEEKED = 8  # masks, or folders of a level


def find_instances(
    root: Path, any_pairs: Callable[[], bool]
) -> tuple[dict, list[str]] | None:
    """Options of `InstanceFolder` beside `root` and `split`, and its splits' names.

    Args:
        root: Of the set.
        any_pairs: Whether to take images beside masks of one file each, which might as
            well be semantic ones; called where there are such folders.
    """
    for options in _NAMED:
        if (root / options["images"]).is_dir() and (root / options["masks"]).is_dir():
            splits = find_splits(root, options["images"], options["masks"])
            return dict(options), list(splits)
    names = _folder_names(root)
    for images, masks in itertools.product(IMAGE_FOLDERS, MASK_FOLDERS):
        if images not in names or masks not in names:
            continue
        folders = {"images": images, "masks": masks}
        options = {key: name for key, name in folders.items() if name != key}
        tops = instance_listing.find_tops(root, images, masks)
        if tops:
            return options, [name for name in tops if name]
        if instance_listing.has_mask_folders(root, images, masks):
            return options, list(find_splits(root, images, masks))
        if any_pairs():
            divisor = _divisor(root, images, masks)
            if divisor is not None:
                splits = find_splits(root, images, masks)
                return options | divisor, list(splits)
    return None


def _folder_names(root: Path) -> set[str]:
    """Names of the folders in the root, and of some down to the third level."""
    level, names = folders_in(root), set()
    for _ in range(2):
        names |= {path.name for path in level}
        chosen = level[:_PEEKED]
        level = [inner for path in chosen for inner in first_folders(path)]
    return names | {path.name for path in level}


def _divisor(root: Path, images: str, masks: str) -> dict | None:
    """`divisor` where the numbers are of classes too; None without pairs."""
    try:
        found = list_masks(root, images, masks, "all").masks
    except (FileNotFoundError, ValueError):
        return None
    ids = [0]
    for path in found[:: max(len(found) // _PEEKED, 1)]:
        try:
            ids.extend(read_numbered(path).ids.tolist())
        except BadImage:
            continue
    # Classes have 8 bits; numbers of very many instances fill what lies between.
    classes = [i if i < DIVISOR else i // DIVISOR for i in ids]
    return {"divisor": DIVISOR} if max(ids) >= DIVISOR and max(classes) < 256 else {}
