"""A table of images and labels: CSV, TSV or semicolons."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from visionkit.data.sources.base import Record, Skip, Source, SourceInfo, multi_hot
from visionkit.data.sources.csv_table import (
    LABEL_NAMES,
    Cell,
    Table,
    bad_cell,
    read_table,
)

SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    "test": "test",
}
"""What stands in a `split` column, in lower case -> split."""

SEPARATOR = "|"
"""Between the labels of one image."""


class Csv(Source):
    """Images and labels listed in a table.

        image,label            image,label             image,cat,dog,bird
        a/1.jpg,cat            a/1.jpg,cat|dog         a/1.jpg,1,1,0
        a/2.jpg,dog            a/2.jpg,                a/2.jpg,0,0,0

    The first column called `image`, `path`, `filename`... holds the files, the first
    called `label`, `class`... the labels; a table of two columns needs no header. More
    than one label in a cell, or a column of 0 and 1 for each class in place of
    `label`, make it multi-label. A column `split` is optional. Commas, semicolons and
    tabs are told apart, and so are a byte order mark and Windows' line ends.

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

    Raises:
        FileNotFoundError: No such table, or no such folder.
        ValueError: Naming file, line, column and value; or fewer than two classes.
    """

    def __init__(
        self,
        annotations: str | os.PathLike,
        images: str | os.PathLike | None = None,
        root: str | os.PathLike | None = None,
        split: str | None = None,
        classes: list[str] | str | os.PathLike | None = None,
        multi_label: bool | None = None,
    ):
        base = Path(root or "")
        table = read_table(base / annotations)
        self.root = _image_folder(
            table.path.parent if images is None else base / images
        )
        self.skipped: list[Skip] = []
        labels, names = _labels(table, _class_names(classes, base), multi_label)
        if len(names) < 2:
            raise ValueError(
                f"{table.path} must name at least two classes. Found: {list(names)}"
            )
        rows, split = _rows_of(table, split)
        paths = _Paths(self.root)
        found: dict[bytes, tuple[Cell, int | np.ndarray]] = {}
        for row in rows:
            cell = table.cell(row, table.image)
            path = paths.find(cell)
            if path is None:
                detail = f"no such file; {cell.place}"
                self.skipped.append(Skip(paths.join(cell), "image.missing", detail))
            elif path not in found:
                found[path] = cell, labels[row]
            elif not np.array_equal(found[path][1], labels[row]):
                raise bad_cell(
                    cell,
                    f"line {found[path][0].line} gives the same image another label",
                    f"one line per image, several labels as a{SEPARATOR}b",
                )
        if not found:
            example = f" First: {self.skipped[0]}." if self.skipped else ""
            raise ValueError(
                f"{table.path} lists no image that exists in "
                f"{os.fsdecode(self.root)!r} (split {split!r}). Pass `images`, "
                f"the folder that the paths begin at.{example}"
            )
        self._paths = list(found)
        many = labels.ndim == 2
        self._labels = np.array(
            [label for _, label in found.values()], np.float32 if many else np.int32
        )
        self.info = SourceInfo(
            "classification", names, len(found), split, "csv", multi_label=many
        )

    def record(self, index: int) -> Record:
        """The path and the label of image `index`."""
        label = self._labels[index]
        return {
            "path": self._paths[index],
            "label": label.copy() if self.info.multi_label else int(label),
        }

    def labels(self) -> np.ndarray:
        """(len,) int32, or (len, num_classes) float32 where `multi_label`."""
        return self._labels.copy()

    def columns(self) -> dict[str, np.ndarray]:
        """All paths and labels, without a dict per image."""
        return {"path": np.array(self._paths, object), "label": self._labels.copy()}


def _image_folder(folder: Path) -> bytes:
    if not folder.is_dir():
        raise FileNotFoundError(
            f"No such folder of images: {str(folder)!r} (seen from {os.getcwd()!r})."
        )
    return os.fsencode(folder)


def _class_names(classes, base: Path) -> tuple[str, ...] | None:
    """The names given, or None."""
    if classes is None:
        return None
    if isinstance(classes, str | os.PathLike):
        lines = (base / classes).read_text("utf-8-sig").splitlines()
        classes = [line.strip() for line in lines if line.strip()]
    names = tuple(str(name) for name in classes)
    if len(set(names)) != len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"`classes` must be different names. Twice: {twice}")
    return names


def _rows_of(table: Table, split: str | None) -> tuple[list[int], str]:
    """The rows of a split, and its name."""
    if split not in (None, "all", *SPLIT_NAMES.values()):
        known = ", ".join(dict.fromkeys(SPLIT_NAMES.values()))
        raise ValueError(
            f"`split` must be one of {known}, all. Received: split={split!r}"
        )
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
        names = tuple(sorted({part for labels in parts for part in labels}, key=_key))
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


def _key(name: str):
    """Numbers by value and before names."""
    number = name.isascii() and name.isdigit()
    return (not number, int(name) if number else 0, name)


class _Paths:
    """Paths of a table as files inside one folder."""

    def __init__(self, root: bytes):
        self.root = root
        self.real = os.path.join(os.path.realpath(root), b"")
        self.folders: dict[bytes, bool] = {}  # folder -> whether it is inside

    def join(self, cell: Cell) -> str:
        return os.path.join(os.fsdecode(self.root), cell.value)

    def find(self, cell: Cell) -> bytes | None:
        """The file, or None if it is not there.

        Raises:
            ValueError: It would be outside the folder, or is no path.
        """
        name = cell.value
        parts = name.replace("\\", "/").split("/")
        if not name:
            raise bad_cell(cell, "no path", "the path of an image")
        if "\0" in name:
            raise bad_cell(cell, "a NUL in a path", "a path without it")
        if os.path.isabs(name) or not parts[0] or parts[0][1:] == ":" or ".." in parts:
            raise bad_cell(
                cell,
                "an absolute path, or one with `..`",
                f"a path inside {os.fsdecode(self.root)!r} (see `images`)",
            )
        path = os.path.join(self.root, os.fsencode(name))
        if not self._inside(path):
            raise bad_cell(
                cell, "a link out of the folder of images", "a file inside it"
            )
        return path if os.path.exists(path) else None

    def _inside(self, path: bytes) -> bool:
        """Whether the path, all links followed, is in the folder."""
        folder = os.path.dirname(path)
        if folder not in self.folders:
            real = os.path.join(os.path.realpath(folder), b"")
            self.folders[folder] = real.startswith(self.real)
        if os.path.islink(path):
            return os.path.realpath(path).startswith(self.real)
        return self.folders[folder]
