"""What the dataset doctor looks for in the masks of instances."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from visionkit.data.check_boxes import MAX_DROPPED, finding_of, pair_iou
from visionkit.data.check_report import Finding, extremes
from visionkit.data.mask_runs import measure

MAX_READ = 2000
"""Images whose masks are read, spread evenly, unless the check is a deep one."""

TINY = 9
"""Pixels; a mask of fewer is hardly a shape."""

MIN_IOU = 0.5
"""IoU of an object's box and the one around its mask, at least."""

ROOM = (2, 0.1)
"""Pixels, and share of the box's side, by which mask and box may differ: tools round,
and boxes of outlines are finer than pixels."""


@dataclasses.dataclass(frozen=True)
class InstanceScan:
    """The masks of some or all images, in the order of `scan.boxes`.

    Attributes:
        read: (N,) bool, the objects whose masks were read.
        boxes: (N, 4) float64, tight around the masks; 0 where there are none.
        area: (N,) int64, pixels.
        total: (N,) int64, pixels of the image that each was made for, -1 if damaged.
        frame: (N,) int64, pixels of the image as its annotations tell, or as it is.
        shared: Record -> pixels in more than one of its masks, where there are any.
    """

    read: np.ndarray
    boxes: np.ndarray
    area: np.ndarray
    total: np.ndarray
    frame: np.ndarray
    shared: dict[int, int]

    @classmethod
    def of(cls, scan) -> InstanceScan:
        """The masks of a `Scan`."""
        found, count = scan.boxes, len(scan.headers)
        images = np.arange(count)
        if not scan.deep and count > MAX_READ:
            images = np.linspace(0, count - 1, MAX_READ).astype(int)
        # Masks are drawn in the frame that annotations tell, where they tell one.
        sizes, declared = scan.sizes, scan.source.image_sizes()
        if declared is not None:
            sizes = np.where((declared > 0).all(axis=1)[:, None], declared, sizes)
        splits = np.searchsorted(found.images, np.arange(count + 1))
        read = np.isin(found.images, images)
        boxes, area = np.zeros((len(found), 4)), np.zeros(len(found), np.int64)
        total, shared = np.full(len(found), -1, np.int64), {}
        for image in images.tolist():
            rows = slice(*splits[image : image + 2])
            extents = measure(found.masks[rows], int(sizes[image, 0]))
            boxes[rows], area[rows] = extents.boxes, extents.area
            total[rows] = extents.total
            if extents.shared:
                shared[image] = extents.shared
        frame = sizes.prod(axis=1)[found.images]
        return cls(read, boxes, area, total, frame, shared)

    @property
    def sound(self) -> np.ndarray:
        """(N,) bool, masks that were read, and show something of their image."""
        return self.read & (self.area > 0) & (self.total == self.frame)


def _unusable(scan) -> Iterator[Finding]:
    """Damaged masks, masks of other images, and masks of nothing."""
    masks = scan.instances
    damaged = masks.read & (masks.total < 0)
    message = "masks are damaged: no RLE strings as COCO writes them"
    yield from finding_of(scan, "error", "mask.rle", damaged, message)
    pixels = scan.boxes.sizes.prod(axis=1)
    other = masks.read & ~damaged & (masks.total != pixels)
    message = (
        "masks have another number of pixels than their images: were those resized? "
        "Their records cannot be used"
    )
    yield from finding_of(scan, "error", "mask.size", other, message)
    empty = masks.read & ~damaged & (masks.area == 0)
    many = empty.sum() > MAX_DROPPED * masks.read.sum()
    yield from finding_of(
        scan,
        "error" if many else "warning",
        "mask.empty",
        empty,
        "masks have no pixel: outlines without area, or outside of their images",
    )


def _frames(scan) -> Iterator[Finding]:
    """Masks that are elsewhere than their boxes, or stick out of them."""
    masks, boxes = scan.instances, scan.boxes.boxes
    side = np.maximum(boxes[:, 2:] - boxes[:, :2], 0)
    room = np.tile(np.maximum(ROOM[0], ROOM[1] * side), 2)
    usual = masks.sound & ~scan.boxes.crowd & side.all(axis=1)
    away = usual & (np.abs(masks.boxes - boxes) > room).any(axis=1)
    wrong = away & (pair_iou(masks.boxes, boxes) < MIN_IOU)
    many = wrong.sum() > MAX_DROPPED * usual.sum()
    yield from finding_of(
        scan,
        "error" if many else "warning",
        "mask.box",
        wrong,
        "masks do not lie where their boxes are: annotations of another object, or of "
        "the image at another size",
    )
    outside = (masks.boxes[:, :2] < boxes[:, :2] - room[:, :2]).any(axis=1)
    outside |= (masks.boxes[:, 2:] > boxes[:, 2:] + room[:, 2:]).any(axis=1)
    message = "masks stick out of their boxes; what is outside teaches nothing"
    rows = away & ~wrong & outside
    yield from finding_of(scan, "warning", "mask.outside_box", rows, message)


def _small(scan) -> Iterator[Finding]:
    tiny = scan.instances.sound & (scan.instances.area < TINY)
    message = f"masks have fewer than {TINY} pixels"
    yield from finding_of(scan, "note", "mask.tiny", tiny, message)


def _overlaps(scan) -> Iterator[Finding]:
    shared = scan.instances.shared
    if shared:
        records = sorted(shared, key=lambda image: -shared[image])
        names = tuple(f"{scan.name(i)}: {shared[i]} pixels" for i in records)
        message = (
            f"{len(records)} images have masks that overlap; that is well, unless "
            "each pixel should have one owner"
        )
        yield Finding("note", "mask.overlap", names, message, tuple(records))


def count_instances(scan) -> dict:
    """The plain numbers of a `CheckReport` about masks of instances."""
    masks = scan.instances
    counts = {"masks_read": int(masks.read.sum())}
    area = masks.area[masks.sound]
    if len(area):
        counts["mask_area"] = extremes(area)
    return counts


INSTANCE_RULES = (_unusable, _frames, _small, _overlaps)
"""Rules of instance segmentation, beside those of boxes."""
