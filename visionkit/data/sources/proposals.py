"""Proposals of another model, in the format of COCO's results."""

from __future__ import annotations

import os
from collections.abc import Hashable, Sequence
from pathlib import Path

import numpy as np

from visionkit.data.sources.coco_json import CocoError, Section, lookup, read_json


def read_proposals(
    path: str | os.PathLike, ids: Sequence[Hashable], names: Sequence[str] = ()
) -> dict[str, np.ndarray]:
    """The columns `proposals` and `proposal_splits` of records.

    Args:
        path: A JSON list of {"image_id", "bbox": [x, y, width, height] in pixels,
            "score"}; without scores their order counts. Where each has "file_name",
            that tells the image, and not the id. Other keys are not read.
        ids: What `image_id` says of each record.
        names: The file of each record; its folder and suffix do not matter.

    Returns:
        "proposals" (P, 4) float32 xyxy, each record's best first, and
        "proposal_splits" (len(ids) + 1,) int64.

    Raises:
        FileNotFoundError: No such file.
        CocoError: No such list, or none of its images is here.
    """
    path = Path(path)
    section = Section(path, {"proposals": read_json(path)}, "proposals")
    boxes = section.numbers("bbox", "four numbers [x, y, width, height]", 4)
    scores = section.numbers("score", "a number", default=1.0)
    if names and all("file_name" in item for item in section.items):
        ids = [Path(name).stem for name in names]
        found = section.values("file_name", str, "the name of an image")
        found = [Path(name).stem for name in found]
    else:
        found = section.values("image_id", (int, str), "the id of an image")
    owners = lookup(found, {identity: index for index, identity in enumerate(ids)})
    with np.errstate(over="ignore", invalid="ignore"):
        ends = boxes[:, :2] + boxes[:, 2:]
    corners = np.concatenate([boxes[:, :2], ends], axis=1)
    finite = (np.abs(corners) <= np.finfo(np.float32).max).all(axis=1)
    keep = (owners >= 0) & finite & np.isfinite(scores)
    if len(section) and not keep.any():
        raise CocoError(
            f"{path} has no proposal for any of the {len(ids)} images. It speaks of "
            f"images such as {found[0]!r}; the data have {ids[0]!r}."
        )
    corners, scores, owners = corners[keep], scores[keep], owners[keep]
    order = np.lexsort((-scores, owners))  # stable
    counts = np.bincount(owners, minlength=len(ids))
    return {
        "proposals": corners[order].astype(np.float32),
        "proposal_splits": np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
    }
