"""Images and the files of their masks: pairs by name, and their splits."""

from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path

from visionkit.data.sources.base import Skip
from visionkit.data.sources.files import read_text
from visionkit.data.sources.listing import IMAGE_SUFFIXES, list_images, suffix_of
from visionkit.data.sources.paths import ImagePaths, PathError
from visionkit.data.sources.splits import SPLIT_NAMES, split_in

LIST_FOLDERS = ("ImageSets/Segmentation", "ImageSets", "splits", "lists", "")
"""Where lists of a split's images lie, below the root; the first that has some."""


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a split is.

    Attributes:
        images: Folder of the images.
        masks: Folder of the masks.
        names: The list of its images; None for all in the folder.
    """

    images: Path
    masks: Path
    names: Path | None = None


@dataclasses.dataclass
class MaskListing:
    """Pairs of files.

    Attributes:
        split: "train", "validation", "test" or "all".
        images: One path per pair.
        masks: One path per pair.
        skipped: Images that cannot be used, or have no mask.
        remarks: Masks that have no image.
    """

    split: str
    images: list[bytes] = dataclasses.field(default_factory=list)
    masks: list[bytes] = dataclasses.field(default_factory=list)
    skipped: list[Skip] = dataclasses.field(default_factory=list)
    remarks: list[Skip] = dataclasses.field(default_factory=list)


def find_splits(base: Path, images: str, masks: str) -> dict[str, Place]:
    """The splits by name: of lists, or else of folders that hold both kinds."""
    inner = Place(base / images, base / masks)
    for folder in LIST_FOLDERS:
        names = sorted((base / folder).glob("*.txt"))
        if folder != LIST_FOLDERS[0]:  # which has nothing but lists
            names = [path for path in names if split_in(path.stem)]
        if names and inner.images.is_dir():
            return {path.stem: Place(*_folders(inner), path) for path in names}
    found = {}
    for path in folders_in(inner.images):
        if split_in(path.name) and (inner.masks / path.name).is_dir():
            found[path.name] = Place(path, inner.masks / path.name)
    for path in folders_in(base):
        place = Place(path / images, path / masks)
        if split_in(path.name) and all(map(Path.is_dir, _folders(place))):
            found[path.name] = place
    return found


def list_masks(
    base: Path,
    images: str,
    masks: str,
    split: str | None = None,
    suffixes: tuple[str, str] = ("", ""),
) -> MaskListing:
    """Images and their masks: files of one name but for the type and `suffixes`.

    Args:
        base: The root.
        images: Folder of the images below it.
        masks: Folder of the masks; it may be the same.
        split: Name of a list or folder, or one of its aliases; default "train" where
            there are splits. "all" for everything.
        suffixes: What the names of images and masks have after what they share.

    Raises:
        FileNotFoundError: No such folder, list or split.
        ValueError: No image has a mask, or a list leads out of the folder.
    """
    if not base.is_dir():
        raise FileNotFoundError(f"No such folder: {str(base)!r}.")
    places, split = choose_places(base, images, masks, split)
    listing = MaskListing(split)
    for place in places:
        for folder, option in zip(_folders(place), ("images", "masks"), strict=True):
            if not folder.is_dir():
                raise FileNotFoundError(
                    f"No such folder of {option}: {str(folder)!r} (see `{option}`)."
                )
        _pair(place, base, suffixes, listing)
    if not listing.images:
        first = f" First: {listing.skipped[0]}." if listing.skipped else ""
        raise ValueError(
            f"No image in {str(places[0].images)!r} has a mask in "
            f"{str(places[0].masks)!r}: they must have the same names but for the "
            f"type, `image_suffix` and `mask_suffix`.{first}"
        )
    return listing


def choose_places(
    base: Path, images: str, masks: str, split: str | None
) -> tuple[list[Place], str]:
    """The places of a split, and its name; arguments as for `list_masks`.

    Raises:
        FileNotFoundError: No such split.
    """
    splits = find_splits(base, images, masks)
    whole = Place(base / images, base / masks)
    if split == "all" or (split is None and not splits):
        below = whole.images.is_dir() and whole.masks.is_dir()
        return ([whole] if below or not splits else list(splits.values())), "all"
    wanted = split or "train"
    kind = SPLIT_NAMES.get(wanted.lower())
    names = [n for n in splits if n == wanted or (kind and split_in(n) == kind)]
    if split is None:
        names = names or list(splits)
    if not names:
        raise FileNotFoundError(
            f"{base} has no split {split!r}. Found: {', '.join(splits) or 'none'}. "
            f"Expected a list {split}.txt in {', '.join(LIST_FOLDERS[:-1])} or the "
            f"folder itself, or folders such as {images}/{split} and {masks}/{split}."
        )
    # Its own name, or else an alias, is better than one that only speaks of it.
    usual = [n for n in names if n.lower() in SPLIT_NAMES] or names
    name = wanted if wanted in splits else usual[0]
    return [splits[name]], split_in(name) or "all"


def _pair(place: Place, base: Path, suffixes, listing: MaskListing) -> None:
    """Adds the pairs of a split to the listing."""
    unusable: list[Skip] = []
    images = images_by_key(place.images, suffixes[0], listing.skipped, png=False)
    masks = images_by_key(place.masks, suffixes[1], unusable, png=True)
    if os.path.realpath(place.images) == os.path.realpath(place.masks):
        images, masks = _part(images, masks, suffixes[1])
    else:
        rules = [(skip, skip.rule.replace("image", "mask")) for skip in unusable]
        listing.remarks += [Skip(s.name, rule, s.detail) for s, rule in rules]
    for key in sorted(masks.keys() - images.keys()):
        name = os.fsdecode(masks[key])
        detail = f"no image of its name in {place.images}"
        listing.remarks.append(Skip(name, "mask.no_image", detail))
    if place.names is None:
        pairs = [(images[key], masks.get(key)) for key in sorted(images)]
    else:
        pairs = list(listed_pairs(place, base, images, masks, listing.skipped))
    for image, mask in pairs:
        if mask is None:
            detail = f"no mask of its name in {place.masks}"
            listing.skipped.append(Skip(os.fsdecode(image), "mask.missing", detail))
            continue
        listing.images.append(image)
        listing.masks.append(mask)


def images_by_key(folder: Path, suffix: str, skipped: list[Skip], png: bool):
    """Path below the folder, without the type and the suffix -> the file.

    Of several files of a name a PNG is preferred, or any other.
    """
    found: dict[str, bytes] = {}
    start = os.fsencode(folder)
    for path in list_images(start, skipped):
        stem = os.fsdecode(os.path.splitext(os.path.relpath(path, start))[0])
        if not stem.endswith(suffix):
            continue
        key = stem.removesuffix(suffix)
        if key not in found or (suffix_of(path) == b".png") == png:
            found[key] = path
    return found


def _part(images, masks, mask_suffix: str):
    """Images and masks that lie in one folder, told apart by suffix or by type."""
    masks = {key: path for key, path in masks.items() if suffix_of(path) == b".png"}
    taken = set(masks.values())
    images = {key: path for key, path in images.items() if path not in taken}
    if not mask_suffix and not images:
        raise ValueError(
            "Images and masks are in one folder and have the same names and type. "
            "Give `mask_suffix`, such as '_mask', or `masks`."
        )
    return images, masks


def listed_pairs(place: Place, base: Path, images, masks, skipped: list[Skip]):
    """(image, mask or None) of each line of a list."""
    files = ImagePaths(base)
    text = read_text(place.names, errors="surrogateescape")
    for line in dict.fromkeys(map(str.strip, text.splitlines())):
        if not line:
            continue
        # Some lists give each name a mark: 1, -1 or 0.
        key = _key_of(re.sub(r"\s+-?[01]$", "", line), place.images, base)
        parts = line.split()
        if key in images:
            yield images[key], masks.get(key)
            continue
        try:
            image = files.find(parts[0].lstrip("/"))
            mask = files.find(parts[1].lstrip("/"), "folder") if parts[1:] else None
        except PathError as error:
            raise ValueError(f"{place.names}: {line!r}, {error}") from None
        if len(parts) > 1 and image is not None:
            yield image, mask
        else:
            name = os.path.join(str(place.images), parts[0])
            skipped.append(Skip(name, "image.missing", f"listed in {place.names}"))


def _key_of(name: str, images: Path, base: Path) -> str:
    """The key of a name in a list: a stem, or a path from the root or the folder."""
    stem, suffix = os.path.splitext(name.lstrip("/"))
    stem = stem if os.fsencode(suffix).lower() in IMAGE_SUFFIXES else name.lstrip("/")
    return stem.removeprefix(os.path.relpath(images, base) + "/")


def _folders(place: Place) -> tuple[Path, Path]:
    return place.images, place.masks


def folders_in(folder: Path) -> list[Path]:
    """The folders in a folder, by name; none where it is not there."""
    return sorted(p for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []
