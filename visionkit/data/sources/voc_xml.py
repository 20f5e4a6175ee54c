"""One annotation of Pascal VOC: an XML file that is not trusted."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

from visionkit.data.sources.files import check_file

MAX_BYTES = 10 * 2**20
"""Largest annotation that is read; a real one has some KiB."""

CORNERS = ("xmin", "ymin", "xmax", "ymax")


@dataclasses.dataclass(frozen=True)
class Annotation:
    """What an annotation says, as it says it.

    Attributes:
        path: The file.
        filename: Of the image, empty where it is not given.
        size: (height, width), 0 where they are not given.
        names: The class of each object.
        boxes: xmin, ymin, xmax, ymax of each object.
        difficult: Whether each object is marked as difficult.
    """

    path: Path
    filename: str
    size: tuple[int, int]
    names: list[str]
    boxes: list[tuple[float, ...]]
    difficult: list[bool]


def read_annotation(path: Path) -> Annotation:
    """The annotation in `path`.

    `<folder>` and `<path>` are not read: they are of the machine that wrote the file.

    Raises:
        ValueError: No annotation; names the file and the element.
    """
    root = _parse(path)
    objects = root.findall("object")
    names, boxes, difficult = [], [], []
    for index, item in enumerate(objects):
        place = f"{path}: object[{index}]"
        name = (item.findtext("name") or "").strip()
        if not name:
            raise ValueError(f"{place}/name is missing. Expected the object's class.")
        names.append(name)
        boxes.append(tuple(_number(item, f"bndbox/{c}", place) for c in CORNERS))
        difficult.append(_optional(item, "difficult") == 1)
    size = (_optional(root, "size/height"), _optional(root, "size/width"))
    filename = (root.findtext("filename") or "").strip()
    return Annotation(path, filename, size, names, boxes, difficult)


def _parse(path: Path):
    # Standard XML parsers expand entities, which a hostile file uses to fill the
    # memory; here a file with a document type is refused.
    from defusedxml import DefusedXmlException
    from defusedxml.ElementTree import ParseError, fromstring

    check_file(path, MAX_BYTES, "annotation")
    try:
        root = fromstring(path.read_bytes(), forbid_dtd=True)
    except ParseError as error:
        raise ValueError(f"{path} is no XML, or cut off: {error}.") from None
    except (DefusedXmlException, LookupError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path} is refused: {type(error).__name__}. An annotation has no document "
            "type and no entities."
        ) from None
    if root.tag != "annotation":
        raise ValueError(f"{path} is a <{root.tag}>. Expected an <annotation>.")
    return root


def _number(item, tag: str, place: str) -> float:
    text = (item.findtext(tag) or "").strip()
    try:
        return float(text)
    except ValueError:
        raise ValueError(
            f"{place}/{tag} is {text!r}. Expected a number of pixels."
        ) from None


def _optional(item, tag: str) -> int:
    """A whole number, 0 where it is missing or none."""
    try:
        value = float(item.findtext(tag) or 0)
    except ValueError:
        return 0
    return int(value) if math.isfinite(value) and abs(value) < 2**31 else 0
