"""A table of images and labels: CSV, TSV or semicolons."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from visionkit._spelling import check_name
from visionkit.data.sources.base import Record, Skip, SourceInfo, multi_hot
from visionkit.data.sources.classes import read_classes, sort_key
from visionkit.data.sources.csv_boxes import BoxRows, class_names, find_boxes
from visionkit.data.sources.csv_table import (
    LABEL_NAMES,
    Cell,
    Table,
    bad_cell,
    read_table,
)
from visionkit.data.sources.objects import ObjectSource, raise_no_images
from visionkit.data.sources.paths import ImagePaths, PathError
from visionkit.data.sources.splits import SPLIT_NAMES, check_split

SEPARATOR = "|"
"""Between the labels of one image."""


class Csv(ObjectSource):
    """Images and labels, or boxes, listed in a table.

        image,label          image,cat,dog         filename,class,xmin,ymin,xmax,ymax
        a/1.jpg,cat          a/1.jpg,1,1           a/1.jpg,cat,10,20,64,80
        a/2.jpg,dog|cat      a/2.jpg,0,0           a/2.jpg,,,,,

    The first column called `image`, `path`, `filename`... holds the files, the first
    called `label`, `class`... the labels; a table of two columns needs no header. More
    than one label in a cell, or a column of 0 and 1 for each class in place of
    `label`, make it multi-label. A column `split` is optional. Commas, semicolons and
    tabs are told apart, and so are a byte order mark and Windows' line ends.

    Boxes have a row each, in columns called `xmin`, `ymin`, `xmax`, `ymax` (or `x1`,
    `left`...), or `x`, `y`, `w`, `h`, or `cx`, `cy`, `w`, `h`, in any order; a row
    without numbers lists an image without objects. Where no column is called like a
    label, the only one left is it. Six columns need no header: file, x1, y1, x2, y2,
    class. Coordinates that are all at most 1 are shares of the image's sides; `check`
    says how they were read.

    Classes are `classes`, or the columns in their order, or else all labels of the
    table (of every split): numbers by value, names by code point.

    Args:
        annotations: The table, beginning at `root` where it is relative.
        images: Folder that the paths in the table begin at, itself beginning at
            `root`; default the table's folder. No path may lead out of it.
        root: Where `annotations` and `images` begin; default the working directory.
        split: "train", "validation" or "test" where there is a column `split` (default
            "train"); "all" for all rows; None where there is none.
        classes: Names in label order, or a text file with one on each line, beginning
            at `root`. A label is then a name or, where none is called so, a position.
        multi_label: Whether an image may have any number of labels; default whether
            one has. With False, of the columns of 0 and 1 exactly one must be 1.
        task: "classification" or "detection"; default what the columns are for.
        normalised: Whether coordinates are shares; default whether all are at most 1.

    Raises:
        FileNotFoundError: No such table, or no such folder.
        ValueError: Naming file, line, column and value; or fewer than two classes to
            tell apart.
    """

    def __init__(
        self,
        annotations: str | os.PathLike,
        images: str | os.PathLike | None = None,
        root: str | os.PathLike | None = None,
        split: str | None = None,
        classes: list[str] | str | os.PathLike | None = None,
        multi_label: bool | None = None,
        task: str | None = None,
        normalised: bool | None = None,
    ):
        base = Path(root or "")
        table = read_table(base / annotations)
        paths = ImagePaths(table.path.parent if images is None else base / images)
        self.skipped: list[Skip] = []
        self._labels: np.ndarray | None = None
        names = read_classes(classes, base)
        rows, split = _rows_of(table, split)
        layout = find_boxes(table)
        task = task or ("classification" if layout is None else "detection")
        check_name("task of a table", task, ("classification", "detection"))
        if task == "detection":
            if layout is None:
                raise ValueError(
                    f"{table.path} has no columns of boxes, such as xmin, ymin, xmax, "
                    f"ymax. Found: {', '.join(table.header)}."
                )
            names = names or class_names(table, layout)
            read = BoxRows(table, layout, rows, names, paths, normalised)
            self.skipped, self.remarks = read.skipped, read.remarks
            self.box_format = layout.format
            content = (read.owners, read.columns, read.sizes)
            found = read.paths
        else:
            labels, names = _labels(table, names, multi_label)
            if len(names) < 2:
                raise ValueError(
                    f"{table.path} must name at least two classes. Found: {list(names)}"
                )
            found, self._labels = self._images(table, rows, labels, paths)
            content = (np.zeros(0, np.int64), {})
        if not found:
            where = os.fsdecode(paths.root)
            raise_no_images(f"{table.path} (split {split!r})", where, self.skipped)
        many = self._labels is not None and self._labels.ndim == 2
        info = SourceInfo(task, names, len(found), split, "csv", multi_label=many)
        self._fill(info, found, *content)

    def record(self, index: int) -> Record:
        """The path of image `index`, and its label or objects."""
        if self._labels is None:
            return super().record(index)
        label = self._labels[index]
        label = label.copy() if self.info.multi_label else int(label)
        return {"path": self._paths[index], "label": label}

    def labels(self) -> np.ndarray | None:
        """(len,) int32, or (len, num_classes) float32 where `multi_label`."""
        return None if self._labels is None else self._labels.copy()

    def columns(self) -> dict[str, np.ndarray]:
        """All paths, and labels or objects, without a dict per image."""
        if self._labels is None:
            return super().columns()
        return {"path": np.array(self._paths, object), "label": self._labels.copy()}

    def objects(self) -> dict[str, np.ndarray]:
        """All objects; none for classification."""
        return super().objects() if self._labels is None else {}

    def _images(self, table: Table, rows, labels, paths: ImagePaths):
        """(the images, each once; their labels)."""
        found: dict[bytes, tuple[Cell, int | np.ndarray]] = {}
        for row in rows:
            cell = table.cell(row, table.image)
            try:
                path = paths.find(cell.value)
            except PathError as error:
                raise bad_cell(cell, error.found, error.expected) from None
            if path is None:
                self.skipped.append(paths.skip(cell.value, cell.place))
            elif path not in found:
                found[path] = cell, labels[row]
            elif not np.array_equal(found[path][1], labels[row]):
                raise bad_cell(
                    cell,
                    f"line {found[path][0].line} gives the same image another label",
                    f"one line per image, several labels as a{SEPARATOR}b",
                )
        dtype = np.float32 if labels.ndim == 2 else np.int32
        return list(found), np.array([label for _, label in found.values()], dtype)


def _rows_of(table: Table, split: str | None) -> tuple[list[int], str]:
    """The rows of a split, and its name."""
    split = check_split(split)
    everything = list(range(len(table)))
    if table.split is None:
        if split in (None, "all"):
            return everything, "all"
        raise ValueError(
            f"{table.path} has no column `split`, so there is no {split!r} split. Name "
            "another table, or hold back a fraction for validation."
        )
    found = []
    for row in everything:
        cell = table.cell(row, table.split)
        if cell.value.lower() not in SPLIT_NAMES:
            raise bad_cell(cell, "no known split", f"one of {', '.join(SPLIT_NAMES)}")
        found.append(SPLIT_NAMES[cell.value.lower()])
    if split == "all":
        return everything, "all"
    split = split or "train"
    if split not in found:
        raise ValueError(
            f"{table.path} has no row of the split {split!r}. "
            f"Found: {', '.join(sorted(set(found)))}."
        )
    return [row for row in everything if found[row] == split], split


def _labels(
    table: Table, names: tuple[str, ...] | None, many: bool | None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """(labels of all rows as from `Source.labels`, class names)."""
    if table.label is None:
        return _columns_of_classes(table, names, many)
    cells = [table.cell(row, table.label) for row in range(len(table))]
    parts = [
        [part.strip() for part in cell.value.split(SEPARATOR) if part.strip()]
        for cell in cells
    ]
    if many is None:
        many = any(SEPARATOR in cell.value for cell in cells)
    for cell, labels in zip(cells, parts, strict=True):
        if not many and len(labels) != 1:
            found = f"{len(labels)} labels" if labels else "no label"
            raise bad_cell(cell, found, "exactly one, or `multi_label: true`")
    if names is None:
        names = tuple(
            sorted({part for labels in parts for part in labels}, key=sort_key)
        )
    numbers = {str(i): i for i in range(len(names))} | {
        n: i for i, n in enumerate(names)
    }
    rows = []
    for cell, labels in zip(cells, parts, strict=True):
        for label in labels:
            if label not in numbers:
                raise bad_cell(cell, "no known class", f"one of {', '.join(names)}")
        rows.append([numbers[label] for label in labels])
    if many:
        return np.array([multi_hot(row, len(names)) for row in rows]), names
    return np.array([row[0] for row in rows], np.int32), names


def _columns_of_classes(table, names, many) -> tuple[np.ndarray, tuple[str, ...]]:
    """As `_labels`, of one column of 0 and 1 for each class."""
    columns = {table.header[column]: column for column in table.rest}
    missing = sorted(set(names or ()) - set(columns))
    if missing or len(columns) < 2:
        raise ValueError(
            f"{table.path} has no column of labels ({', '.join(LABEL_NAMES)}) and "
            f"{f'no column for {missing}' if missing else 'no columns of classes'}. "
            f"Found: {', '.join(table.header)}."
        )
    names = names or tuple(columns)
    labels = np.zeros((len(table), len(names)), np.float32)
    for row in range(len(table)):
        for number, name in enumerate(names):
            cell = table.cell(row, columns[name])
            if cell.value not in ("0", "1"):
                raise bad_cell(cell, "no mark of a class", "0 or 1")
            labels[row, number] = int(cell.value)
        if many is False and labels[row].sum() != 1:
            found = f"{int(labels[row].sum())} classes are 1"
            raise bad_cell(table.cell(row, table.image), found, "exactly one")
    if many is False:
        return labels.argmax(axis=1).astype(np.int32), names
    return labels, names
