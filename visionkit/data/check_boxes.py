"""What the dataset doctor looks for in boxes."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterator

import numpy as np

from visionkit.data.check_formats import ORDERS, fits, guess_format
from visionkit.data.check_report import Finding
from visionkit.data.headers import ImageHeader

MAX_DROPPED = 0.05
"""Share of the objects that may be of no use before it is an error."""

NEAR = 0.9
"""IoU of two boxes of one class that are one object told twice."""

MANY_EMPTY = 0.5
"""Share of images without objects that is worth a warning."""

_REMARKS = {
    "box.nonfinite": "boxes are no numbers and left out",
    "box.shares": "tables give shares of the image's sides; they were multiplied",
    "box.zero_based": "annotations count pixels from 0, and are read as if from 1",
    "label.absent": "chosen classes are not in the file",
    "label.duplicate_id": "files give one id to two annotations; were they merged?",
    "label.missing": "images have no file of labels and count as showing nothing; "
    "label them, or remove them",
    "label.no_class": "regions have no class and are left out",
    "label.no_image": "annotations are of images that are not listed, and left out",
    "label.other_class": "sets have instances of classes that were not chosen",
    "mask.corrupt": "masks are damaged; their objects are left out",
    "mask.empty": "masks show nothing and are left out",
    "mask.format": "masks are no PNGs; their objects are left out",
    "mask.no_image": "masks have no image of their name, and are not used",
    "mask.polygon": "outlines are no polygons; their objects are left out",
    "mask.rle": "masks are damaged; their objects are left out",
    "mask.size": "masks have another size than others of their image, and are left out",
}
_NOTES = ("box.shares", "label.absent", "label.duplicate_id", "label.other_class")


@dataclasses.dataclass(frozen=True)
class BoxScan:
    """The boxes of the usable images, beside what their images are.

    Attributes:
        boxes: (N, 4) float64, xyxy pixels.
        labels: (N,) int.
        images: (N,) int, the record of each box.
        sizes: (N, 2) upright (height, width) of each box's image.
        crowd: (N,) bool.
        masks: (N,) object, RLE strings; None where the task has none.
    """

    boxes: np.ndarray
    labels: np.ndarray
    images: np.ndarray
    sizes: np.ndarray
    crowd: np.ndarray
    masks: np.ndarray | None = None

    @classmethod
    def of(cls, scan) -> BoxScan:
        """The boxes of a `Scan`."""
        objects = scan.source.objects()
        splits = objects.get("row_splits", np.zeros(len(scan.headers) + 1, np.int64))
        images = np.repeat(np.arange(len(scan.headers)), np.diff(splits))
        boxes = objects.get("boxes", np.zeros((0, 4))).astype(np.float64)
        keep = scan.used[images]
        crowd = objects.get("is_crowd", np.zeros(len(boxes), bool))
        labels = objects.get("box_labels", np.zeros(0, np.int32))
        images = images[keep]
        sizes = scan.sizes[images]
        masks = objects.get("instance_masks")
        masks = None if masks is None else masks[keep]
        return cls(boxes[keep], labels[keep], images, sizes, crowd[keep], masks)

    def __len__(self) -> int:
        return len(self.boxes)


def finding_of(scan, level, rule, which, message) -> Iterator[Finding]:
    """A finding about `which` (N,) bool of `scan.boxes`, if there are any."""
    rows = np.flatnonzero(which)
    if not len(rows):
        return
    found = scan.boxes
    records = tuple(dict.fromkeys(found.images[rows].tolist()))
    names = []
    for row in rows[:1000].tolist():
        numbers = ", ".join(f"{value:g}" for value in found.boxes[row])
        names.append(f"{scan.name(int(found.images[row]))}: {numbers}")
    yield Finding(level, rule, tuple(names), f"{len(rows)} {message}", records)


def _remarks(scan) -> Iterator[Finding]:
    """What the listing noticed."""
    by_rule = collections.defaultdict(list)
    for remark in scan.source.remarks:
        by_rule[remark.rule].append(f"{remark.name}: {remark.detail}")
    total = len(scan.boxes) + len(scan.source.remarks)
    for rule, names in sorted(by_rule.items()):
        level = "note" if rule in _NOTES else "warning"
        if level == "warning" and "left out" in _REMARKS.get(rule, ""):
            level = "error" if len(names) > MAX_DROPPED * total else level
        text = _REMARKS.get(rule, "files are not used")
        yield Finding(level, rule, tuple(names), f"{len(names)} {text}")


def _formats(scan) -> Iterator[Finding]:
    """Shares for pixels, swapped axes and wrong orders."""
    found = scan.boxes
    if not len(found):
        return
    shares = (np.abs(found.boxes) <= 1).all(axis=1) & found.boxes.any(axis=1)
    few = shares.sum() <= MAX_DROPPED * len(found)
    yield from finding_of(
        scan,
        "warning" if few else "error",
        "box.normalised",
        shares,
        "boxes have no number above 1: shares of the image where pixels are expected; "
        "multiply them by its width and height",
    )
    rest = ~shares
    guess = guess_format(found.boxes[rest], found.sizes[rest], scan.source.box_format)
    if guess is None:
        return
    name, before, after = guess
    rule = "box.swapped" if name == "yxyx" else "box.format"
    wrong = rest & ~fits(found.boxes, found.sizes)
    yield from finding_of(
        scan,
        "error" if before < 0.8 else "warning",
        rule,
        wrong,
        f"boxes do not fit their images as {ORDERS[scan.source.box_format]}; as "
        f"{ORDERS[name]} {after:.0%} of all would fit instead of {before:.0%}: mend "
        "the order of the numbers",
    )


def _geometry(scan) -> Iterator[Finding]:
    """Boxes without area, outside of their image, or sticking out of it."""
    found = scan.boxes
    low, high = found.boxes[:, :2], found.boxes[:, 2:]
    limit = found.sizes[:, ::-1]
    flat = (high <= low).any(axis=1)
    many = flat.sum() > MAX_DROPPED * len(found)
    yield from finding_of(
        scan,
        "error" if many else "warning",
        "box.degenerate",
        flat,
        "boxes have no area; training drops them, and nothing can find them",
    )
    tiny = ~flat & (high - low <= 1).any(axis=1) & (np.abs(high) > 1).any(axis=1)
    message = "boxes have a side of at most one pixel: clicks rather than boxes?"
    yield from finding_of(scan, "warning", "box.tiny", tiny, message)
    outside = ~flat & ((high <= 0) | (low >= limit)).any(axis=1)
    many = outside.sum() > MAX_DROPPED * len(found)
    yield from finding_of(
        scan,
        "error" if many else "warning",
        "box.outside",
        outside,
        "boxes lie outside of their images; mend or remove them",
    )
    over = ~flat & ~outside & ~fits(found.boxes, found.sizes)
    message = "boxes stick out of their images; they are clipped"
    yield from finding_of(scan, "warning", "box.clipped", over, message)


def _twins(scan) -> Iterator[Finding]:
    """Boxes of one class that are there twice, or nearly so."""
    found = scan.boxes
    order = np.lexsort((found.boxes.sum(axis=1), found.labels, found.images))
    boxes = found.boxes[order]
    same, near = np.zeros(len(found), bool), np.zeros(len(found), bool)
    for step in (1, 2, 3):  # twins are neighbours by the sum of their numbers
        a, b = order[:-step], order[step:]
        pair = (found.images[a] == found.images[b]) & (
            found.labels[a] == found.labels[b]
        )
        pair &= ~found.crowd[a] & ~found.crowd[b]
        equal = (boxes[:-step] == boxes[step:]).all(axis=1)
        same[b] |= pair & equal
        near[b] |= pair & ~equal & (pair_iou(boxes[:-step], boxes[step:]) >= NEAR)
    message = "boxes are there twice; remove the copies, or the score suffers"
    yield from finding_of(scan, "warning", "box.duplicate", same, message)
    message = f"boxes overlap another of their class by {NEAR:.0%}: one object twice?"
    yield from finding_of(scan, "warning", "box.near_duplicate", near & ~same, message)


def pair_iou(a, b):
    """(N,) IoU of boxes in pairs, 0 without area."""
    sides = np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])
    common = np.maximum(sides, 0).prod(axis=1)
    areas = [np.maximum(box[:, 2:] - box[:, :2], 0).prod(axis=1) for box in (a, b)]
    return common / np.maximum(areas[0] + areas[1] - common, 1e-9)


def _labels(scan) -> Iterator[Finding]:
    classes = scan.source.info.num_classes
    wrong = (scan.boxes.labels < 0) | (scan.boxes.labels >= classes)
    ids = np.unique(scan.boxes.labels[wrong]).tolist()
    message = f"boxes have labels outside of 0 to {classes - 1}: {ids}"
    yield from finding_of(scan, "error", "label.out_of_range", wrong, message)


def _empty_images(scan) -> Iterator[Finding]:
    full = np.zeros(len(scan.headers), bool)
    full[scan.boxes.images] = True
    empty = np.flatnonzero(scan.used & ~full)
    if not len(empty):
        return
    many = len(empty) > MANY_EMPTY * scan.used.sum()
    message = (
        f"{len(empty)} of {int(scan.used.sum())} images have no objects; they teach "
        "what is background, if nothing in them was forgotten"
    )
    names = tuple(scan.name(index) for index in empty.tolist())
    level = "warning" if many else "note"
    yield Finding(level, "image.no_objects", names, message, tuple(empty.tolist()))


def _sizes(scan) -> Iterator[Finding]:
    """Images of another size than their annotations say, and turned ones."""
    declared = scan.source.image_sizes()
    told = np.zeros((len(scan.headers), 2), int) if declared is None else declared
    stored = np.array([_stored_size(header) for header in scan.headers]).reshape(-1, 2)
    turned = scan.used & (stored != scan.sizes).any(axis=1)
    known = scan.used & (told > 0).all(axis=1)
    by_size = turned & known & (told == stored).all(axis=1)
    wrong = known & (told != scan.sizes).any(axis=1) & ~by_size
    if wrong.any():
        first = int(np.flatnonzero(wrong)[0])
        yield _images(
            scan,
            "error",
            "image.size",
            wrong,
            "images have another size than their annotations say, e.g. "
            f"{_text(scan.sizes[first])} and not {_text(told[first])}: were they "
            "resized? Then the boxes are wrong",
        )
    exif = by_size | _fit_only_stored(scan, turned, stored)
    if exif.any():
        yield _images(
            scan,
            "error",
            "image.exif_boxes",
            exif,
            "images are turned by EXIF, and their boxes are of the picture as it is "
            "stored: set `data.exif: ignore`",
        )


def _fit_only_stored(scan, turned, stored) -> np.ndarray:
    """(len,) bool, turned images with more boxes that fit as stored than upright."""
    found = scan.boxes
    here = turned[found.images]
    boxes, images = found.boxes[here], found.images[here]
    as_stored, upright = fits(boxes, stored[images]), fits(boxes, found.sizes[here])
    gain = np.zeros(len(turned), int)
    np.add.at(gain, images, as_stored.astype(int) - upright.astype(int))
    return gain > 0


def _images(scan, level, rule, which, message) -> Finding:
    records = tuple(np.flatnonzero(which).tolist())
    names = tuple(scan.name(index) for index in records)
    return Finding(level, rule, names, f"{len(records)} {message}", records)


def _stored_size(header) -> tuple[int, int]:
    return (header.height, header.width) if isinstance(header, ImageHeader) else (0, 0)


def _text(size) -> str:
    return f"{size[1]}x{size[0]}"


BOX_RULES = (_sizes, _remarks, _formats, _geometry, _labels, _twins, _empty_images)
"""Rules of the tasks with boxes, beside the balance of the classes."""
