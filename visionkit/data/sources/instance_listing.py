"""Images and the files of their instances: one file each, or one per instance."""

from __future__ import annotations

import dataclasses
import itertools
import os
from pathlib import Path

from visionkit.data.sources.base import Skip
from visionkit.data.sources.listing import is_folder, list_images, suffix_of
from visionkit.data.sources.mask_listing import (
    Place,
    choose_places,
    folders_in,
    images_by_key,
    list_masks,
    listed_pairs,
)
from visionkit.data.sources.splits import SPLIT_NAMES, split_in

_PEEKED = 64
"""Entries of a folder that are looked at to tell what it is."""


@dataclasses.dataclass
class InstanceListing:
    """Images and their masks.

    Attributes:
        split: "train", "validation", "test" or "all".
        separate: Each file of a mask is one instance.
        images: One path per image.
        masks: The paths of each image's masks; one, unless `separate`.
        skipped: Images that cannot be used, or have no masks.
        remarks: Masks that have no image, or cannot be used.
    """

    split: str
    separate: bool
    images: list[bytes] = dataclasses.field(default_factory=list)
    masks: list[list[bytes]] = dataclasses.field(default_factory=list)
    skipped: list[Skip] = dataclasses.field(default_factory=list)
    remarks: list[Skip] = dataclasses.field(default_factory=list)


def list_instances(
    base: Path,
    images: str,
    masks: str,
    split: str | None = None,
    suffixes: tuple[str, str] = ("", ""),
) -> InstanceListing:
    """Images and the files of their instances; arguments as for `list_masks`.

    Raises:
        FileNotFoundError: No such folder, list or split.
        ValueError: No image has masks.
    """
    if not base.is_dir():
        raise FileNotFoundError(f"No such folder: {str(base)!r}.")
    tops = find_tops(base, images, masks)
    if tops:
        listing = _list_tops(tops, images, masks, split, base)
    elif has_mask_folders(base, images, masks):
        places, split = choose_places(base, images, masks, split)
        listing = InstanceListing(split, separate=True)
        for place in places:
            _list_place(place, base, listing)
    else:
        found = list_masks(base, images, masks, split, suffixes)
        pairs = [[mask] for mask in found.masks]
        rest = (found.images, pairs, found.skipped, found.remarks)
        listing = InstanceListing(found.split, False, *rest)
    if not listing.images:
        first = f" First: {listing.skipped[0]}." if listing.skipped else ""
        raise ValueError(f"No image in {str(base)!r} has masks.{first}")
    return listing


def find_tops(base: Path, images: str, masks: str) -> dict[str, Path]:
    """The folders that hold a folder with `images` and `masks` for each image.

    Returns:
        Split -> folder; {"": base} where there are none. Empty where no folder holds
        such.
    """
    if _holds_folders(base, images, masks):
        return {"": base}
    inner = folders_in(base)
    return {p.name: p for p in inner if _holds_folders(p, images, masks)}


def has_mask_folders(base: Path, images: str, masks: str) -> bool:
    """Whether there is a folder of masks for each image, as masks/a for images/a.png.

    Args:
        base: The root.
        images: Folder of the images.
        masks: Folder of the folders of the masks.
    """
    if not (base / masks).is_dir() and not any(base.glob(f"*/{masks}")):
        return False
    try:
        places, _ = choose_places(base, images, masks, "all")
    except (FileNotFoundError, ValueError):
        return False
    for place in places:
        paths = list_images(os.fsencode(place.images), [])
        if any(os.path.isdir(_folder_of(path, place)) for path in paths[:8]):
            return True
    return False


def first_folders(folder: Path) -> list[Path]:
    """Some folders in a folder, if any is among its first entries.

    However many files there are, it costs little.
    """
    with os.scandir(folder) as entries:
        some = itertools.islice(entries, _PEEKED)
        return [folder / entry.name for entry in some if is_folder(entry)]


def _holds_folders(folder: Path, images: str, masks: str) -> bool:
    """Whether one of its folders has both kinds, and is not a split itself."""
    for path in first_folders(folder):
        if (path / images).is_dir() and (path / masks).is_dir():
            return path.name.lower() not in SPLIT_NAMES
    return False


def _list_tops(tops, images: str, masks: str, split, base: Path) -> InstanceListing:
    if split in (None, "all") and (split == "all" or "" in tops):
        chosen, name = list(tops.values()), "all"
    else:
        wanted = split or "train"
        kind = SPLIT_NAMES.get(wanted.lower())
        names = [n for n in tops if n == wanted or (kind and split_in(n) == kind)]
        names = names or (list(tops) if split is None else [])
        if not names:
            found = ", ".join(filter(None, tops)) or "none"
            raise FileNotFoundError(
                f"{base} has no split {split!r}: no folder of that name that holds a "
                f"folder with {images} and {masks} for each image. Found: {found}."
            )
        chosen, name = [tops[names[0]]], split_in(names[0]) or "all"
    listing = InstanceListing(name, separate=True)
    for top in chosen:
        for folder in folders_in(top):
            _list_folder(folder, images, masks, listing)
    return listing


def _list_folder(folder: Path, images: str, masks: str, listing) -> None:
    """Adds the image of a folder of its own."""
    found = list_images(os.fsencode(folder / images), listing.skipped)
    if len(found) != 1:
        detail = f"{len(found)} images in {folder / images}. Expected one"
        listing.skipped.append(Skip(str(folder), "image.missing", detail))
        return
    _add(found[0], os.fsencode(folder / masks), listing)


def _list_place(place: Place, base: Path, listing: InstanceListing) -> None:
    """Adds the images of a split whose masks lie in a folder for each."""
    if place.names is None:
        for path in list_images(os.fsencode(place.images), listing.skipped):
            _add(path, _folder_of(path, place), listing)
        return
    images = images_by_key(place.images, "", listing.skipped, png=False)
    folders = {key: _folder_of(path, place) for key, path in images.items()}
    for path, folder in listed_pairs(place, base, images, folders, listing.skipped):
        _add(path, folder, listing)


def _folder_of(image: bytes, place: Place) -> bytes:
    """Where the masks of an image are, if they have a folder of their own."""
    key = os.path.splitext(os.path.relpath(image, os.fsencode(place.images)))[0]
    return os.path.join(os.fsencode(place.masks), key)


def _add(image: bytes, folder: bytes | None, listing: InstanceListing) -> None:
    """Adds an image and the PNGs in its folder; without them if it has no masks."""
    name = os.fsdecode(image)
    if folder is None or not os.path.isdir(folder):
        where = f": {os.fsdecode(folder)}" if folder else ""
        detail = f"no folder of masks{where}"
        listing.skipped.append(Skip(name, "mask.missing", detail))
        return
    refused: list[Skip] = []
    found = list_images(folder, refused)
    masks = [path for path in found if suffix_of(path) == b".png"]
    others = [path for path in found if suffix_of(path) != b".png"]
    expected = "masks of this type are not read. Expected PNG"
    dropped = [Skip(os.fsdecode(path), "mask.format", expected) for path in others]
    for skip in refused:
        rule = skip.rule.replace("image", "mask")
        detail = expected if rule == "mask.format" else skip.detail
        dropped.append(Skip(skip.name, rule, detail))
    listing.remarks += dropped
    if dropped and not masks:  # as an image without objects it would teach background
        detail = f"{len(dropped)} files in {os.fsdecode(folder)}, none a usable PNG"
        listing.skipped.append(Skip(name, dropped[0].rule, detail))
        return
    listing.images.append(image)
    listing.masks.append(masks)
