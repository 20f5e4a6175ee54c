"""Segmentations of COCO's three kinds, and polygons, as compressed RLE strings."""

from __future__ import annotations

import numpy as np

from visionkit.data.rle import check_runs, decode_runs, encode_runs


class BadSegmentation(ValueError):
    """A segmentation that is no mask.

    Attributes:
        rule: "mask.rle" or "mask.polygon".
    """

    def __init__(self, rule: str, message: str):
        super().__init__(message)
        self.rule = rule


def to_rle(segmentation, size: tuple[int, int]) -> bytes:
    """The RLE string of a segmentation.

    Args:
        segmentation: Polygons [[x1, y1, x2, y2, ...], ...] in pixels, the parts of one
            object; or {"size": [height, width], "counts": ...} with counts a string
            (compressed) or a list of lengths.
        size: (height, width) of the image.

    Raises:
        BadSegmentation: It is none of these.
        ValueError: An RLE of another size than the image.
    """
    if isinstance(segmentation, dict):
        return _from_rle(segmentation, size)
    return polygons_to_rle(segmentation, size)


def polygons_to_rle(polygons, size: tuple[int, int]) -> bytes:
    """The RLE string of the union of polygons [[x1, y1, x2, y2, ...], ...] in pixels.

    A part of less than three points has no area, and is passed over beside others.

    Raises:
        BadSegmentation: No polygon of three points, or one that is no list of points.
    """
    from hotcoco import mask

    try:
        rings = [np.asarray(ring, np.float64) for ring in polygons]
    except (TypeError, ValueError, OverflowError):
        rings = []
    sound = [
        ring.ndim == 1 and len(ring) % 2 == 0 and np.isfinite(ring).all()
        for ring in rings
    ]
    rings = [ring for ring in rings if len(ring) >= 6] if all(sound) else []
    if not rings:
        raise BadSegmentation(
            "mask.polygon", f"no polygons of three points and more: {polygons!r:.60}"
        )
    parts = mask.frPyObjects([ring.tolist() for ring in rings], *size)
    counts = (mask.merge(parts) if len(parts) > 1 else parts[0])["counts"]
    return counts if isinstance(counts, bytes) else counts.encode("ascii")


def _from_rle(segmentation: dict, size: tuple[int, int]) -> bytes:
    found, counts = segmentation.get("size"), segmentation.get("counts")
    if not isinstance(found, list):
        raise BadSegmentation("mask.rle", f"an RLE of the size {found!r:.40}")
    if found != list(size):
        raise ValueError(
            f"mask.size: the mask is {found!r:.40}, the image {list(size)} (height, "
            "width)"
        )
    try:
        if isinstance(counts, list):
            runs = np.array(counts, np.int64)
            check_runs(runs, size)
            return encode_runs(runs)
        counts = counts.encode("ascii") if isinstance(counts, str) else counts
        check_runs(decode_runs(counts), size)
    except (TypeError, ValueError, OverflowError) as error:
        raise BadSegmentation("mask.rle", str(error)[:120]) from None
    return counts
