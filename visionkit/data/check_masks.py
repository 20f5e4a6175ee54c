"""What the dataset doctor looks for in semantic masks."""

from __future__ import annotations

import collections
import dataclasses
import os
from collections.abc import Iterator

import numpy as np

from visionkit.data.check_report import Finding
from visionkit.data.fingerprints import parallel_map
from visionkit.data.headers import BadImage
from visionkit.data.mask_codes import inspect_mask
from visionkit.data.sources.mask_counts import count_masks

MAX_READ = 1000
"""Masks that are decoded, spread evenly, unless the check is a deep one."""

_REMARKS = {
    "mask.no_image": "masks have no image of their name, and are not used",
    "mask.polygon": "outlines are no polygons; their objects are left out",
    "mask.rle": "masks are damaged; their objects are left out",
}


@dataclasses.dataclass(frozen=True)
class MaskScan:
    """The masks of the usable images.

    Attributes:
        bad: Record -> (rule, detail), for masks that cannot be used.
        read: (R,) int, the records whose masks were decoded, the bad ones left out.
        counts: (R, num_classes + 1) int64, their pixels of each class, void last.
    """

    bad: dict[int, tuple[str, str]]
    read: np.ndarray
    counts: np.ndarray

    @classmethod
    def of(cls, scan) -> MaskScan:
        """The masks of a `Scan`: all headers, and the pixels of some or all."""
        source, usable = scan.source, np.flatnonzero(scan.used).tolist()
        details = parallel_map(lambda index: _examine(scan, index), usable)
        found = zip(usable, details, strict=True)
        bad = {index: detail for index, detail in found if detail is not None}
        if scan.deep or len(source) <= MAX_READ:
            read, counts = np.arange(len(source)), source.mask_counts()
        else:
            read = np.linspace(0, len(source) - 1, MAX_READ).astype(int)
            counts = count_masks(source, read.tolist())
        sound = scan.used[read] & ~np.isin(read, list(bad))
        for index in read[sound & (counts.sum(axis=1) == 0)].tolist():
            try:
                source.mask(index)
            except BadImage as error:
                bad[index] = (error.rule, _told(scan, index, error.detail))
        sound &= counts.sum(axis=1) > 0
        return cls(dict(sorted(bad.items())), read[sound], counts[sound])


def _examine(scan, index: int) -> tuple[str, str] | None:
    """Why the header of a mask says that it cannot be used."""
    record = scan.source.record(index)
    mask = record.get("mask_encoded")
    if "mask_path" in record:
        mask = os.fsdecode(record["mask_path"])
    if mask is None:  # painted
        size = tuple(scan.source.image_sizes()[index].tolist())
    else:
        try:
            header = inspect_mask(mask)
        except BadImage as error:
            return error.rule, _told(scan, index, error.detail)
        size = (header.height, header.width)
    image = scan.headers[index]
    upright, stored = image.upright_size, (image.height, image.width)
    if size == upright:
        return None
    detail = f"the mask is {_text(size)}, its image {_text(upright)}"
    if size == stored:
        detail += " once it is turned by EXIF: set `data.exif: ignore`"
    return "mask.size", _told(scan, index, detail)


def _told(scan, index: int, detail: str) -> str:
    record = scan.source.record(index)
    where = os.fsdecode(record["mask_path"]) if "mask_path" in record else ""
    return f"{where}: {detail}" if where else detail


def _text(size) -> str:
    return f"{size[1]}x{size[0]}"


def _bad_masks(scan) -> Iterator[Finding]:
    by_rule = collections.defaultdict(list)
    for index, (rule, _) in scan.masks.bad.items():
        by_rule[rule].append(index)
    for rule, indices in sorted(by_rule.items()):
        details = [scan.masks.bad[index][1] for index in indices]
        names = tuple(
            f"{scan.name(i)}: {d}" for i, d in zip(indices, details, strict=True)
        )
        message = f"{len(indices)} masks cannot be used; mend or remove them"
        yield Finding("error", rule, names, message, tuple(indices))


def _remarks(scan) -> Iterator[Finding]:
    by_rule = collections.defaultdict(list)
    for remark in scan.source.remarks:
        by_rule[remark.rule].append(f"{remark.name}: {remark.detail}")
    for rule, names in sorted(by_rule.items()):
        text = _REMARKS.get(rule, "masks are not used")
        yield Finding("warning", rule, tuple(names), f"{len(names)} {text}")


def _void_masks(scan) -> Iterator[Finding]:
    masks = scan.masks
    void = masks.read[masks.counts[:, :-1].sum(axis=1) == 0].tolist()
    if void:
        names = tuple(map(scan.name, void))
        message = f"{len(void)} masks are void all over and teach nothing"
        yield Finding("warning", "mask.void", names, message, tuple(void))


def _empty_classes(scan) -> Iterator[Finding]:
    counts = scan.masks.counts[:, :-1].sum(axis=0)
    names = np.array(scan.source.info.class_names, object)
    empty = tuple(names[counts == 0].tolist())
    if empty and len(scan.masks.read):
        message = (
            f"{len(empty)} of {len(names)} classes have no pixel in the "
            f"{len(scan.masks.read)} masks that were read"
        )
        yield Finding("warning", "class.empty", empty, message)


def count_masks_of(scan) -> dict:
    """The plain numbers of a `CheckReport` about masks."""
    counts = scan.masks.counts.sum(axis=0)
    pixels = int(counts.sum())
    names = scan.source.info.class_names
    return {
        "masks_read": len(scan.masks.read),
        "pixels": pixels,
        "void": f"{counts[-1] / max(pixels, 1):.2%}",
        "classes": dict(zip(names, counts[:-1].tolist(), strict=True)),
    }


MASK_RULES = (_bad_masks, _remarks, _void_masks, _empty_classes)
"""Rules of semantic segmentation."""
