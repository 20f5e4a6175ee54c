"""Image files with boxes in them, or with masks, held as columns."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Sequence

import numpy as np

from visionkit.data.mask_codes import MaskCode
from visionkit.data.rle import encode_runs, paint_regions
from visionkit.data.sources.base import Record, Skip, Source, SourceInfo
from visionkit.data.sources.ragged import RAGGED_COLUMNS, RLE_COLUMNS, group_rows
from visionkit.types import BOX_TASKS, VOID_CLASS


class ObjectSource(Source):
    """Base of the sources whose images are files and whose truth is boxes or masks.

    A subclass reads its files in the constructor and calls `_fill`, or `_fill_masks`
    where each image has a file with its mask. Boxes are told as
    the files have them, also those outside the image or without area: the pipeline
    clips and drops for training, `check` reports. Only coordinates that are no numbers
    are left out, and remarked.
    """

    _mask_paths: list[bytes] | None = None
    _mask_code: MaskCode | None = None

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

    def _fill_masks(
        self,
        info: SourceInfo,
        paths: Sequence[bytes],
        masks: Sequence[bytes],
        mask_code: MaskCode,
    ) -> None:
        """Takes images and the files of their masks, one for each."""
        self._fill(info, paths, np.zeros(0, np.int64), {})
        self._mask_paths, self._mask_code = list(masks), mask_code

    def _fill_regions(
        self,
        info: SourceInfo,
        paths: Sequence[bytes],
        owners: np.ndarray,
        columns: dict[str, np.ndarray],
        sizes: np.ndarray,
        background: bool,
    ) -> None:
        """Takes objects with masks as regions of their classes.

        Large objects are painted first, so that small ones stay on top of them, and
        crowds as void before all others.

        Args:
            info: Of the source; its classes are those of the objects.
            paths: The images.
            owners: (N,) int, the image of each object.
            columns: "boxes", "box_labels", "instance_masks" and perhaps "area" and
                "is_crowd".
            sizes: (len(paths), 2) (height, width) of the images, all above 0.
            background: What is no object is class 0, and other labels are one higher;
                else it is void.
        """
        labels, regions = columns["box_labels"] + background, columns["instance_masks"]
        crowd = columns.get("is_crowd", np.zeros(len(labels), bool))
        labels = np.where(crowd, VOID_CLASS, labels)
        boxes = columns["boxes"]
        area = columns.get("area", (boxes[:, 2:] - boxes[:, :2]).prod(axis=1))
        order = np.lexsort((-area, ~crowd))
        labels, regions, owners = labels[order], regions[order], owners[order]
        if background:
            names = ("background", *info.class_names)
            info = dataclasses.replace(info, class_names=names)
        else:
            every = [encode_runs(np.array([0, size])) for size in sizes.prod(axis=1)]
            void = np.full(len(paths), VOID_CLASS)
            labels = np.concatenate([void, labels])
            regions = np.concatenate([np.array(every, object), regions])
            owners = np.concatenate([np.arange(len(paths)), owners])
        self._fill(info, paths, np.zeros(0, np.int64), {}, sizes)
        columns = {"regions": regions, "region_labels": labels.astype(np.int32)}
        self._rows |= group_rows(owners, len(paths), columns, "region_splits")

    def mask(self, index: int) -> np.ndarray:
        """As `Source.mask`."""
        if "regions" not in self._rows:
            return super().mask(index)
        record, size = self.record(index), tuple(self._sizes[index].tolist())
        return paint_regions(record["regions"], record["region_labels"], size)

    @property
    def mask_code(self) -> MaskCode:
        """What the values in the files of the masks mean."""
        return self._mask_code or super().mask_code

    def _take_proposals(self, path: str | os.PathLike, ids: Iterable) -> None:
        """Reads proposals; see `proposals.read_proposals`."""
        from visionkit.data.sources.proposals import read_proposals

        names = [os.fsdecode(image) for image in self._paths]
        self._rows |= read_proposals(path, list(ids), names)

    def record(self, index: int) -> Record:
        """The path and the objects of image `index`."""
        record: Record = {"path": self._paths[index]}
        if self._mask_paths is not None:
            record["mask_path"] = self._mask_paths[index]
        for key, splits in RAGGED_COLUMNS.items():
            if key in self._rows:
                start, stop = self._rows[splits][index : index + 2]
                rows = self._rows[key][start:stop]
                record[key] = rows.tolist() if key in RLE_COLUMNS else rows.copy()
        return record

    def record_name(self, index: int) -> str:
        """The path of the image."""
        return os.fsdecode(self._paths[index])

    def columns(self) -> dict[str, np.ndarray]:
        """All paths and objects, without a dict per image."""
        columns = {"path": np.array(self._paths, object), **self._rows}
        if self._mask_paths is not None:
            columns["mask_path"] = np.array(self._mask_paths, object)
        return columns

    def objects(self) -> dict[str, np.ndarray]:
        """All objects, as they are held."""
        return dict(self._rows)

    def image_sizes(self) -> np.ndarray | None:
        """(len, 2) int32 (height, width) as the annotations say, or None."""
        return None if self._sizes is None else self._sizes.copy()


def check_box_task(source: str, task: str, tasks: Sequence[str] = BOX_TASKS) -> None:
    """Refuses a task that a source does not serve; others than `tasks`.

    Raises:
        ValueError: Naming the legal ones.
    """
    if task not in tasks:
        raise ValueError(
            f"The source {source!r} is for {' and '.join(tasks)}. "
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
    # Larger numbers become infinite in the float32 of a record.
    finite = (np.abs(boxes) <= np.finfo(np.float32).max).all(axis=1)  # nan: no
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
