"""Boxes in a table: a row per object, columns found by their names."""

from __future__ import annotations

import dataclasses
import os

import numpy as np

from visionkit.data.fingerprints import parallel_map
from visionkit.data.headers import inspect_image
from visionkit.data.image_header import BadImage
from visionkit.data.sources.base import Skip
from visionkit.data.sources.classes import sort_key
from visionkit.data.sources.csv_table import Table, bad_cell
from visionkit.data.sources.objects import keep_finite
from visionkit.data.sources.paths import ImagePaths, PathError

CORNERS = (
    ("xmin", "x_min", "x1", "left", "bbox_x1", "bbox_xmin"),
    ("ymin", "y_min", "y1", "top", "bbox_y1", "bbox_ymin"),
    ("xmax", "x_max", "x2", "right", "bbox_x2", "bbox_xmax"),
    ("ymax", "y_max", "y2", "bottom", "bbox_y2", "bbox_ymax"),
)
SIDES = (
    ("w", "width", "bbox_w", "bbox_width"),
    ("h", "height", "bbox_h", "bbox_height"),
)
CORNER_AND_SIZE = (
    ("x", "bbox_x", "left", "xmin"),
    ("y", "bbox_y", "top", "ymin"),
    *SIDES,
)
CENTRE_AND_SIZE = (
    ("cx", "x_center", "xcenter", "center_x", "x_centre"),
    ("cy", "y_center", "ycenter", "center_y", "y_centre"),
    *SIDES,
)
LAYOUTS = {"xyxy": CORNERS, "xywh": CORNER_AND_SIZE, "cxcywh": CENTRE_AND_SIZE}
"""Format -> the names of its four columns, in any case."""


@dataclasses.dataclass(frozen=True)
class BoxColumns:
    """Where the boxes are in a table.

    Attributes:
        format: Key of `LAYOUTS`.
        columns: Of the four numbers.
        sizes: Columns of the image's (height, width), None where there are none.
        label: Column of the classes; None where all objects are of one.
    """

    format: str
    columns: tuple[int, ...]
    sizes: tuple[int, int] | None
    label: int | None


def find_boxes(table: Table) -> BoxColumns | None:
    """The box columns of a table, None where it has none."""
    header = [name.lower() for name in table.header]
    layouts = {kind: _find(header, names) for kind, names in LAYOUTS.items()}
    kind = next((kind for kind, found in layouts.items() if found), None)
    if kind is None:
        return None
    found = layouts[kind]
    sizes = None
    if kind == "xyxy" and {"height", "width"} <= set(header):
        sizes = (header.index("height"), header.index("width"))
    label = table.label
    if label is None:  # whatever it is called, if it is the only one left
        known = {*found, *(sizes or ()), table.image, table.split}
        rest = [column for column in range(len(header)) if column not in known]
        label = rest[0] if len(rest) == 1 else None
    return BoxColumns(kind, found, sizes, label)


def _find(header: list[str], names) -> tuple[int, ...] | None:
    """The four columns called by `names`, None where one is missing."""
    found = [next((header.index(n) for n in o if n in header), None) for o in names]
    return None if None in found else tuple(found)


def class_names(table: Table, layout: BoxColumns) -> tuple[str, ...]:
    """All classes of a table, numbers by value and before names."""
    if layout.label is None:
        return ("object",)
    values = {table.cell(row, layout.label).value for row in range(len(table))}
    return tuple(sorted(values - {""}, key=sort_key))


class BoxRows:
    """The boxes of some rows of a table.

    Args:
        table: The table.
        layout: Where its boxes are.
        rows: The rows to read.
        names: Class names in label order; a cell holds one, or a position.
        paths: Finds the images.
        normalised: Whether coordinates are shares of the image's sides; None finds out:
            none is above 1.

    Attributes:
        paths: The images, each once.
        owners: (N,) int64, the image of each object.
        columns: "boxes" (N, 4) float32 xyxy pixels, "box_labels" (N,) int32.
        sizes: (len(paths), 2) int32 (height, width) that the table gives; or None.
        skipped, remarks: As of `Source`.

    Raises:
        ValueError: Naming file, line, column and value.
    """

    def __init__(
        self,
        table: Table,
        layout: BoxColumns,
        rows: list[int],
        names: tuple[str, ...],
        paths: ImagePaths,
        normalised: bool | None = None,
    ):
        self.table, self.layout = table, layout
        self.skipped: list[Skip] = []
        self.remarks: list[Skip] = []
        rows, images = self._find_images(rows, paths)
        index = {path: i for i, path in enumerate(dict.fromkeys(images))}
        self.paths = list(index)
        owners = np.array([index[path] for path in images], np.int64)
        self.sizes = self._declared(rows, owners)

        full = [i for i, row in enumerate(rows) if self._has_box(row)]
        rows, owners = [rows[i] for i in full], owners[full]
        labels = self._labels(rows, names)
        numbers = np.array([self._numbers(row) for row in rows]).reshape(-1, 4)
        boxes = _to_corners(numbers, layout.format)
        keep = keep_finite(
            boxes, lambda i: table.cell(rows[i], table.image).place, self.remarks
        )
        if normalised is None:
            normalised = bool(keep.any() and np.abs(boxes[keep]).max() <= 1)
        if normalised:
            detail = "boxes are shares of the image's sides, multiplied by them"
            self.remarks.append(Skip(str(table.path), "box.shares", detail))
            boxes = boxes * self._measure()[owners][:, [1, 0, 1, 0]]
        self.owners = owners[keep]
        self.columns = {
            "boxes": boxes[keep].astype(np.float32),
            "box_labels": labels[keep],
        }

    def _find_images(self, rows, paths: ImagePaths) -> tuple[list[int], list[bytes]]:
        """(the rows whose image is there, their images)."""
        found: dict[str, bytes | None] = {}
        here, images = [], []
        for row in rows:
            cell = self.table.cell(row, self.table.image)
            if cell.value not in found:
                try:
                    found[cell.value] = paths.find(cell.value)
                except PathError as error:
                    raise bad_cell(cell, error.found, error.expected) from None
                if found[cell.value] is None:
                    self.skipped.append(paths.skip(cell.value, cell.place))
            path = found[cell.value]
            if path is not None:
                here.append(row)
                images.append(path)
        return here, images

    def _declared(self, rows, owners) -> np.ndarray | None:
        if self.layout.sizes is None:
            return None
        sizes = np.zeros((len(self.paths), 2), np.int32)
        for row, owner in zip(rows, owners, strict=True):
            cells = [self.table.cell(row, column) for column in self.layout.sizes]
            if all(cell.value for cell in cells):
                sizes[owner] = [_side(cell) for cell in cells]
        return sizes

    def _measure(self) -> np.ndarray:
        """(len(paths), 2) float64 (height, width), of the files where need be."""
        if self.sizes is not None and self.sizes.min(initial=1) > 0:
            return self.sizes.astype(np.float64)
        return np.array(parallel_map(_upright_size, self.paths), np.float64)

    def _has_box(self, row: int) -> bool:
        """False for a row that only lists an image, with every number empty."""
        return any(self.table.cell(row, column).value for column in self.layout.columns)

    def _numbers(self, row: int) -> list[float]:
        cells = [self.table.cell(row, column) for column in self.layout.columns]
        return [_number(cell, "a number, with a point for decimals") for cell in cells]

    def _labels(self, rows, names: tuple[str, ...]) -> np.ndarray:
        if self.layout.label is None:
            return np.zeros(len(rows), np.int32)
        numbers = {str(i): i for i in range(len(names))}
        numbers |= {name: i for i, name in enumerate(names)}
        labels = []
        for row in rows:
            cell = self.table.cell(row, self.layout.label)
            if cell.value not in numbers:
                raise bad_cell(cell, "no known class", f"one of {', '.join(names)}")
            labels.append(numbers[cell.value])
        return np.array(labels, np.int32)


def _number(cell, expected: str) -> float:
    try:
        return float(cell.value)
    except ValueError:
        raise bad_cell(cell, "no number", expected) from None


def _side(cell) -> int:
    """The height or width of an image."""
    value = _number(cell, "a number of pixels")
    if not 0 <= value < 2**31:  # nan is not
        raise bad_cell(cell, "no side of an image", "a number of pixels")
    return int(value)


def _to_corners(numbers: np.ndarray, kind: str) -> np.ndarray:
    first, second = numbers[:, :2], numbers[:, 2:]
    if kind == "xyxy":
        return numbers
    if kind == "cxcywh":
        first = first - second / 2
    return np.concatenate([first, first + second], axis=1)


def _upright_size(path: bytes) -> tuple[int, int]:
    """(height, width), 0 where the image cannot be used; the pipeline reports it."""
    try:
        return inspect_image(os.fsdecode(path)).upright_size
    except BadImage:
        return 0, 0
