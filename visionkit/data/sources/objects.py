"""Image files with boxes in them, held as columns."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

import numpy as np

from visionkit.data.sources.base import Record, Skip, Source, SourceInfo
from visionkit.data.sources.ragged import RAGGED_COLUMNS, group_rows

BOX_TASKS = ("detection", "instance_segmentation")


class ObjectSource(Source):
    """Base of the sources whose images are files and whose truth is boxes.

    A subclass reads its files in the constructor and calls `_fill`. Boxes are told as
    the files have them, also those outside the image or without area: the pipeline
    clips and drops for training, `check` reports. Only coordinates that are no numbers
    are left out, and remarked.
    """

    def _fill(
        self,
        info: SourceInfo,
        paths: Sequence[bytes],
        owners: np.ndarray,
        columns: dict[str, np.ndarray],
        sizes: np.ndarray | None = None,
    ) -> None:
        """Takes what was read.

        Args:
            info: Of the source.
            paths: The images.
            owners: (N,) int, the image of each object, in any order.
            columns: Object columns of N rows.
            sizes: As `image_sizes` returns them.
        """
        self.info = info
        self._paths = list(paths)
        self._rows = group_rows(owners, len(self._paths), columns)
        self._sizes = sizes

    def _take_proposals(self, path: str | os.PathLike, ids: Iterable) -> None:
        """Reads proposals; see `proposals.read_proposals`."""
        from visionkit.data.sources.proposals import read_proposals

        names = [os.fsdecode(image) for image in self._paths]
        self._rows |= read_proposals(path, list(ids), names)

    def record(self, index: int) -> Record:
        """The path and the objects of image `index`."""
        record: Record = {"path": self._paths[index]}
        for key, splits in RAGGED_COLUMNS.items():
            if key in self._rows:
                start, stop = self._rows[splits][index : index + 2]
                rows = self._rows[key][start:stop]
                record[key] = rows.tolist() if key == "instance_masks" else rows.copy()
        return record

    def record_name(self, index: int) -> str:
        """The path of the image."""
        return os.fsdecode(self._paths[index])

    def columns(self) -> dict[str, np.ndarray]:
        """All paths and objects, without a dict per image."""
        return {"path": np.array(self._paths, object), **self._rows}

    def objects(self) -> dict[str, np.ndarray]:
        """All objects, as they are held."""
        return dict(self._rows)

    def image_sizes(self) -> np.ndarray | None:
        """(len, 2) int32 (height, width) as the annotations say, or None."""
        return None if self._sizes is None else self._sizes.copy()


def check_box_task(source: str, task: str) -> None:
    """Refuses a task that boxes do not serve.

    Raises:
        ValueError: Naming the legal ones.
    """
    if task not in BOX_TASKS:
        raise ValueError(
            f"The source {source!r} is for {' and '.join(BOX_TASKS)}. "
            f"Received: task={task!r}"
        )


def keep_finite(
    boxes: np.ndarray, name_of, remarks: list[Skip], keep: np.ndarray | None = None
) -> np.ndarray:
    """(N,) bool, the boxes to use; those that are no numbers are remarked.

    Args:
        boxes: (N, 4).
        name_of: Object index -> its name for a person.
        remarks: Is told of each box that is not finite.
        keep: (N,) bool, those of interest; default all.
    """
    finite = np.isfinite(boxes).all(axis=1)
    keep = np.ones(len(boxes), bool) if keep is None else keep
    for index in np.flatnonzero(keep & ~finite).tolist():
        values = ", ".join(f"{value:g}" for value in boxes[index])
        remarks.append(Skip(name_of(index), "box.nonfinite", f"left out: {values}"))
    return keep & finite


def raise_no_images(where: str, images: str, skipped: Sequence[Skip]) -> None:
    """The error of a set of which no image is there."""
    first = f" First: {skipped[0]}." if skipped else ""
    raise ValueError(
        f"{where} lists no image that exists in {images!r}. Pass `images`, the folder "
        f"that the names begin at.{first}"
    )
