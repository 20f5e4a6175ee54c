"""What the dataset doctor looks for.

A rule is a function from a `Scan` to findings. `RULES` says which rules a task has; a
new task adds its own.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
from collections.abc import Iterator

import numpy as np

from visionkit.data.check_boxes import BOX_RULES, BoxScan
from visionkit.data.check_instances import (
    INSTANCE_RULES,
    InstanceScan,
    count_instances,
)
from visionkit.data.check_masks import MASK_RULES, MaskScan, count_masks_of
from visionkit.data.check_report import Finding, extremes
from visionkit.data.headers import BadImage, ImageHeader
from visionkit.data.report import MAX_BAD
from visionkit.data.sources.base import Skip, Source, count_classes
from visionkit.data.sources.paths import fold_name
from visionkit.types import BOX_TASKS

MAX_IMBALANCE = 10
"""Images of the largest class per image of the smallest before a warning."""

_ADVICE = {
    "image.16bit": "used, reduced to 8 bits",
    "image.alpha": "used, the alpha channel is dropped",
    "image.animated": "only the first picture is used",
    "image.cmyk": "used, converted to RGB with approximate colors",
    "image.exif_rotated": "turned upright, unless `exif: ignore`",
    "image.extension": "used; the content is of another format than the suffix says",
    "image.grey": "used, the grey channel is repeated where RGB is asked for",
}


@dataclasses.dataclass(frozen=True)
class Scan:
    """What was read of a source, for the rules to look at.

    Attributes:
        source: The source.
        headers: Per record its header, or why it cannot be used.
        contents: (N,) int64; records of one number hold the same bytes.
        deep: Whether all pixels are looked at.
    """

    source: Source
    headers: list[ImageHeader | BadImage]
    contents: np.ndarray
    deep: bool = False

    @functools.cached_property
    def used(self) -> np.ndarray:
        """(N,) bool, the records that can be used."""
        return np.array([isinstance(h, ImageHeader) for h in self.headers], bool)

    @functools.cached_property
    def skips(self) -> list[Skip]:
        """What is not used: left out by the listing, or unreadable."""
        bad = np.flatnonzero(~self.used).tolist()
        return self.source.skipped + [
            Skip(self.name(i), self.headers[i].rule, self.headers[i].detail)
            for i in bad
        ]

    @functools.cached_property
    def notes(self) -> dict[str, list[int]]:
        """Note -> the records it holds for."""
        notes = collections.defaultdict(list)
        for index in np.flatnonzero(self.used).tolist():
            path = self.source.record(index).get("path")
            for note in self.headers[index].notes(path):
                notes[note].append(index)
        return dict(sorted(notes.items()))

    @functools.cached_property
    def sizes(self) -> np.ndarray:
        """(N, 2) int, upright (height, width); 0 where the image cannot be used."""
        sizes = [
            h.upright_size if u else (0, 0)
            for h, u in zip(self.headers, self.used, strict=True)
        ]
        return np.array(sizes, int).reshape(-1, 2)

    @functools.cached_property
    def boxes(self) -> BoxScan:
        """The boxes of the images that can be used (tasks with boxes)."""
        return BoxScan.of(self)

    @functools.cached_property
    def masks(self) -> MaskScan:
        """The masks of the images that can be used (semantic segmentation)."""
        return MaskScan.of(self)

    @functools.cached_property
    def instances(self) -> InstanceScan:
        """The masks of the boxes (instance segmentation)."""
        return InstanceScan.of(self)

    @property
    def has_masks(self) -> bool:
        """Whether the task is one with semantic masks."""
        return self.source.info.task == "semantic_segmentation"

    @property
    def has_boxes(self) -> bool:
        """Whether the task is one with boxes."""
        return self.source.info.task in BOX_TASKS

    @functools.cached_property
    def class_counts(self) -> np.ndarray:
        """(num_classes,) int64, used images, or boxes in them, of each class."""
        classes = self.source.info.num_classes
        if not self.has_boxes:
            return count_classes(self.source.labels()[self.used], classes)
        labels = self.boxes.labels
        return count_classes(labels[(labels >= 0) & (labels < classes)], classes)

    def name(self, index: int) -> str:
        """What a message calls the record."""
        return self.source.record_name(index)


def _bad_images(scan: Scan) -> Iterator[Finding]:
    """A finding per rule by which images are skipped."""
    total = len(scan.headers) + len(scan.source.skipped)
    level = "error" if len(scan.skips) > MAX_BAD * total else "warning"
    by_rule = collections.defaultdict(list)
    for skip in scan.skips:
        by_rule[skip.rule].append(f"{skip.name}: {skip.detail}")
    for rule, names in sorted(by_rule.items()):
        message = f"{len(names)} of {total} images cannot be used; mend or remove them"
        yield Finding(level, rule, tuple(names), message)


def _notes(scan: Scan) -> Iterator[Finding]:
    for note, indices in scan.notes.items():
        names = tuple(scan.name(index) for index in indices)
        message = f"{len(names)} images: {_ADVICE[note]}"
        yield Finding("note", note, names, message, tuple(indices))


def _duplicates(scan: Scan) -> Iterator[Finding]:
    groups = _equal_groups(scan)
    copies = sum(len(group) - 1 for group in groups)
    if copies:
        names = tuple(" = ".join(map(scan.name, group)) for group in groups)
        message = f"{copies} images are copies of others, byte for byte"
        records = tuple(index for group in groups for index in group)
        yield Finding("warning", "duplicate.exact", names, message, records)


def _name_twins(scan: Scan) -> Iterator[Finding]:
    groups = collections.defaultdict(list)
    for index in np.flatnonzero(scan.used).tolist():
        path = scan.source.record(index).get("path")
        if path is None:
            return
        groups[fold_name(path)].append(index)
    twins = [group for group in groups.values() if len(group) > 1]
    if twins:
        names = tuple(" = ".join(map(scan.name, group)) for group in twins)
        message = (
            f"{len(names)} names are there in several spellings, by capitals or by "
            "their accents; macOS and Windows would take them for one file"
        )
        records = tuple(index for group in twins for index in group)
        yield Finding("warning", "image.name_twins", names, message, records)


def _label_conflicts(scan: Scan) -> Iterator[Finding]:
    labels, classes = scan.source.labels(), scan.source.info.class_names

    def told(index):
        present = np.flatnonzero(labels[index]) if labels.ndim == 2 else [labels[index]]
        return f"{scan.name(index)} ({'|'.join(classes[i] for i in present)})"

    names = tuple(
        " = ".join(map(told, group))
        for group in _equal_groups(scan)
        if len(np.unique(labels[group], axis=0)) > 1
    )
    if names:
        message = f"{len(names)} images have more than one label; keep one of each"
        yield Finding("error", "label.conflict", names, message)


def _class_balance(scan: Scan) -> Iterator[Finding]:
    names = np.array(scan.source.info.class_names, object)
    counts = scan.class_counts
    unit = "boxes" if scan.has_boxes else "images"
    empty = tuple(names[counts == 0].tolist())
    if empty:
        message = f"{len(empty)} of {len(names)} classes have none of the usable {unit}"
        yield Finding("warning", "class.empty", empty, message)
    ratio = _imbalance(counts)
    if ratio > MAX_IMBALANCE:
        ends = [counts.argmax(), np.where(counts, counts, counts.max() + 1).argmin()]
        most, fewest = (f"{names[i]!r} ({counts[i]})" for i in ends)
        message = (
            f"{most} has {ratio:.1f} times the {unit} of {fewest}; look at the "
            "score of each class, and collect more of the rare ones"
        )
        yield Finding("warning", "class.imbalance", (), message)


def _imbalance(counts: np.ndarray) -> float:
    """Largest over smallest class, of those with images."""
    present = counts[counts > 0]
    return float(present.max() / present.min()) if len(present) else 1.0


def _equal_groups(scan: Scan) -> list[list[int]]:
    """Groups of two and more usable records of the same bytes."""
    indices = np.flatnonzero(scan.used)
    indices = indices[np.argsort(scan.contents[indices], kind="stable")]
    edges = np.flatnonzero(np.diff(scan.contents[indices])) + 1
    return [group.tolist() for group in np.split(indices, edges) if len(group) > 1]


def count(scan: Scan) -> dict:
    """The plain numbers of a `CheckReport`."""
    headers = [header for header in scan.headers if isinstance(header, ImageHeader)]
    counts = {
        "read": len(scan.headers) + len(scan.source.skipped),
        "used": len(headers),
        "skipped": dict(collections.Counter(skip.rule for skip in scan.skips)),
        "notes": {note: len(indices) for note, indices in scan.notes.items()},
        "formats": dict(collections.Counter(header.format for header in headers)),
    }
    if headers:
        sizes = np.array([header.upright_size for header in headers])
        low, middle, high = sizes.min(0), np.median(sizes, 0), sizes.max(0)
        for axis, side in enumerate(("height", "width")):
            counts[side] = {
                "min": int(low[axis]),
                "median": float(middle[axis]),
                "max": int(high[axis]),
            }
    if scan.source.info.task == "classification" or scan.has_boxes:
        names = scan.source.info.class_names
        counts["classes"] = dict(zip(names, scan.class_counts.tolist(), strict=True))
        counts["imbalance"] = round(_imbalance(scan.class_counts), 2)
    if scan.has_boxes:
        counts |= _count_boxes(scan)
    if scan.source.info.task == "instance_segmentation":
        counts |= count_instances(scan)
    if scan.has_masks:
        counts |= count_masks_of(scan)
    return counts


def _count_boxes(scan: Scan) -> dict:
    found = scan.boxes
    per_image = np.bincount(found.images, minlength=len(scan.headers))[scan.used]
    area = np.maximum(found.boxes[:, 2:] - found.boxes[:, :2], 0).prod(axis=1)
    counts = {"boxes": len(found)}
    for key, values in (("boxes_per_image", per_image), ("box_side", np.sqrt(area))):
        if len(values):
            counts[key] = extremes(values)
    return counts


COMMON_RULES = (_bad_images, _notes, _duplicates, _name_twins)
"""Rules of every task."""

RULES = {
    "classification": (_label_conflicts, _class_balance),
    "detection": (*BOX_RULES, _class_balance),
    "instance_segmentation": (*BOX_RULES, *INSTANCE_RULES, _class_balance),
    "semantic_segmentation": MASK_RULES,
}
"""Task -> its own rules."""
