"""Reading COCO's JSON into columns; what is wrong is said with its place."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from visionkit.data.sources.files import check_file, not_utf8, repeated

MAX_BYTES = 2 * 2**30
"""Largest file that is read: COCO's own have some 450 MiB, and take ten times that in
memory."""

_REQUIRED = object()


class CocoError(ValueError):
    """An annotation file that does not follow the format."""


def read_json(path: str | os.PathLike, drop: str | None = None) -> Any:
    """The content of a JSON file.

    Args:
        path: The file; a byte order mark is allowed.
        drop: A key that is not needed. It is forgotten while reading, which for the
            polygons of COCO saves most of the memory.

    Raises:
        FileNotFoundError: No such file.
        ValueError: No regular file, or larger than `MAX_BYTES`.
        CocoError: No JSON, or a key that stands twice in one object; says where.
    """
    path = Path(path)
    check_file(path, MAX_BYTES, "annotation file")

    def to_dict(pairs: list) -> dict:
        found = dict(pairs)
        if len(found) < len(pairs):
            keys = repeated(key for key, _ in pairs)
            raise CocoError(
                f"{path} has an object with the keys {keys} twice, of which one would "
                f"be lost: {found!r:.80}. Give each key once."
            )
        found.pop(drop, None)
        return found

    content = path.read_bytes()
    try:
        return json.loads(content, object_pairs_hook=to_dict)
    except json.JSONDecodeError as error:
        before = error.doc[: error.pos]
        place = len(before.encode(json.detect_encoding(content), "surrogatepass"))
        raise CocoError(
            f"{path} is no JSON, or cut off: line {error.lineno}, column "
            f"{error.colno}, byte {place} of {len(content)}: {error.msg}."
        ) from None
    except UnicodeDecodeError as error:
        raise not_utf8(path, error) from None
    except RecursionError:
        raise CocoError(f"{path} is nested too deeply to be an annotation file.") from (
            None
        )
    except CocoError:
        raise
    except ValueError as error:  # a number of thousands of digits
        raise CocoError(f"{path} cannot be read: {error}.") from None


class Section:
    """One list of an annotation file, read key by key.

    Args:
        path: The file, for messages.
        content: The whole file.
        name: "images", "annotations" or "categories".

    Raises:
        CocoError: The file has no such list of objects.
    """

    def __init__(self, path: Path, content: Any, name: str):
        self.path, self.name = path, name
        if not isinstance(content, dict) or not isinstance(content.get(name), list):
            found = list(content) if isinstance(content, dict) else type(content)
            raise CocoError(
                f"{path} has no list `{name}`. Expected an object with the lists "
                f"images, annotations and categories. Found: {found}"
            )
        self.items: list[dict] = content[name]
        for index, item in enumerate(self.items):
            if not isinstance(item, dict):
                raise CocoError(f"{path}: {name}[{index}] is {item!r}, not an object.")

    def __len__(self) -> int:
        return len(self.items)

    def place(self, index: int, key: str) -> str:
        """A value, for a message."""
        identity = self.items[index].get("id")
        return f"{self.path}: {self.name}[{index}].{key} (id {identity!r})"

    def error(self, index: int, key: str, expected: str) -> CocoError:
        """The error to raise about a value."""
        found = self.items[index].get(key, "missing")
        text = "missing" if found == "missing" else repr(found)[:80]
        return CocoError(f"{self.place(index, key)} is {text}. Expected {expected}.")

    def values(self, key: str, kinds: type | tuple, expected: str) -> list:
        """The value of `key` in each item, all of the types `kinds`."""
        values = [item.get(key) for item in self.items]
        for index, value in enumerate(values):
            if not isinstance(value, kinds) or isinstance(value, bool):
                raise self.error(index, key, expected)
        return values

    def numbers(
        self, key: str, expected: str, width: int | None = None, default=_REQUIRED
    ) -> np.ndarray:
        """The number, or the `width` numbers, of `key` in each item.

        Args:
            key: The key.
            expected: What to say where it is something else.
            width: Length of the lists of numbers; None for a number each.
            default: Stands for a number that is missing or null.

        Returns:
            (N,) or (N, width) float64.
        """
        values = [item.get(key) for item in self.items]
        if default is not _REQUIRED:
            values = [default if value is None else value for value in values]
        shape = (len(values),) if width is None else (len(values), width)
        try:
            array = np.array(values)
        except ValueError:  # lists of different lengths
            array = np.array(None)
        if array.shape == shape and array.dtype.kind in "iufb":
            return array.astype(np.float64)
        check = _is_number if width is None else _is_list_of(width)
        for index, value in enumerate(values):
            if not check(value):
                raise self.error(index, key, expected)
        return np.array(values, np.float64).reshape(shape)


def _is_number(value) -> bool:
    # An int may have more digits than any float.
    return isinstance(value, float) or (isinstance(value, int) and abs(value) < 2**1023)


def _is_list_of(width: int) -> Callable[[Any], bool]:
    return lambda value: (
        isinstance(value, list) and len(value) == width and all(map(_is_number, value))
    )


def positions(section: Section, ids: list) -> dict:
    """Id -> position, for ids that have to be different.

    Raises:
        CocoError: One is there twice.
    """
    where = {identity: index for index, identity in enumerate(ids)}
    if len(where) < len(ids):
        index = next(i for i, identity in enumerate(ids) if where[identity] != i)
        raise section.error(index, "id", "an id that no other has")
    return where


def lookup(ids: list, where: dict) -> np.ndarray:
    """(N,) int64, the position of each id, -1 where there is none."""
    return np.fromiter((where.get(i, -1) for i in ids), np.int64, len(ids))
