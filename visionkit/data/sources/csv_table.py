"""Reading a CSV file with all its dialects, so that errors can name the cell."""

from __future__ import annotations

import csv
import dataclasses
import os
from pathlib import Path

from visionkit.data.sources.files import check_file, repeated

IMAGE_NAMES = ("image", "path", "filename", "file", "image_path", "file_name")
LABEL_NAMES = ("label", "labels", "class", "class_name", "category")
SPLIT_NAME = "split"
DELIMITERS = ",;\t"

# Columns of a table without a header, by their number.
_BARE = {2: ("image", "label"), 6: ("image", "x1", "y1", "x2", "y2", "label")}


@dataclasses.dataclass(frozen=True)
class Cell:
    """One value, without spaces around it, and where it stands."""

    path: Path
    line: int
    column: str
    value: str

    @property
    def place(self) -> str:
        """The cell, for a message."""
        return f"{self.path}, line {self.line}, column {self.column!r}"


def bad_cell(cell: Cell, found: str, expected: str) -> ValueError:
    """The error to raise about a cell."""
    return ValueError(f"{cell.place}: {cell.value!r} is {found}. Expected {expected}.")


@dataclasses.dataclass(frozen=True)
class Table:
    """The rows of a file.

    Attributes:
        path: The file.
        header: Name of each column.
        rows: The values of each row, as many as there are columns.
        lines: Number of the line on which each row ends, from 1.
        image: Column of the images.
        label: Column of the labels; None where there is none.
        split: Column of the splits; None where there is none.
    """

    path: Path
    header: list[str]
    rows: list[list[str]]
    lines: list[int]
    image: int
    label: int | None
    split: int | None

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def rest(self) -> list[int]:
        """The other columns."""
        known = (self.image, self.label, self.split)
        return [i for i in range(len(self.header)) if i not in known]

    def cell(self, row: int, column: int) -> Cell:
        """The cell in a row and a column, from 0."""
        value = self.rows[row][column].strip()
        return Cell(self.path, self.lines[row], self.header[column], value)


def read_table(path: Path) -> Table:
    """The table in `path`.

    Raises:
        FileNotFoundError: No such file.
        ValueError: Not a table with a column of images; a row of another length; wrong
            quotes. Names the file and the line.
    """
    check_file(path, kind="table")
    # Names of files that are not UTF-8 keep their bytes as surrogate escapes.
    with open(path, newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
        first = file.readline()
        file.seek(0)
        reader = csv.reader(file, delimiter=_delimiter(first), strict=True)
        try:
            numbered = [(reader.line_num, row) for row in reader if any(row)]
        except csv.Error as error:
            raise ValueError(f"{path}, line {reader.line_num}: {error}.") from None
    if not numbered:
        raise ValueError(f"{path} is empty. Expected columns of images and labels.")
    header, image = _header(path, [name.strip() for name in numbered[0][1]])
    if header is not None:
        numbered = numbered[1:]
    else:
        header, image = list(_BARE[len(numbered[0][1])]), 0
    lines, rows = [line for line, _ in numbered], [row for _, row in numbered]
    for line, row in numbered:
        if len(row) != len(header):
            raise ValueError(
                f"{path}, line {line}: {len(row)} values. Expected {len(header)}: "
                f"{', '.join(header)}. A value with a delimiter in it needs quotes."
            )
    label = _find(header, LABEL_NAMES)
    return Table(path, header, rows, lines, image, label, _find(header, (SPLIT_NAME,)))


def _delimiter(line: str) -> str:
    """The delimiter that makes the most columns of the first line."""

    def columns(delimiter):
        try:
            return len(next(csv.reader([line], delimiter=delimiter), []))
        except csv.Error:
            return 0

    return max(DELIMITERS, key=columns)  # the first of equals


def _header(path: Path, names: list[str]) -> tuple[list[str] | None, int]:
    """(the header, the column of images); (None, 0) for a known table without one."""
    image = _find(names, IMAGE_NAMES)
    if image is None:
        if len(names) in _BARE and os.path.splitext(names[0])[1]:
            return None, 0
        raise ValueError(
            f"{path}, line 1: no column of images. Expected one of "
            f"{', '.join(IMAGE_NAMES)}. Found: {', '.join(names)}."
        )
    twice = repeated(names)
    if twice:
        raise ValueError(f"{path}, line 1: columns of the same name: {twice}.")
    return names, image


def _find(header: list[str], names: tuple[str, ...]) -> int | None:
    """The first column with one of the names, in any case."""
    return next((i for i, n in enumerate(header) if n.lower() in names), None)
