"""The JSON files of the VGG Image Annotator (VIA), versions 1 to 3."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

CIRCLE_POINTS = 72
"""Corners of the polygon that stands for a circle or an ellipse."""

# The first number of a region of version 3 -> its shape, as versions 1 and 2 call it.
_SHAPES = {
    "1": "point",
    "2": "rect",
    "3": "circle",
    "4": "ellipse",
    "5": "line",
    "6": "polyline",
    "7": "polygon",
    "8": "extreme_rect",
    "9": "extreme_circle",
}


@dataclasses.dataclass(frozen=True)
class Region:
    """One object.

    Attributes:
        outline: (P, 2) float64 x and y in pixels; None where it has no area, or is
            damaged.
        shape: What it was drawn as.
        attributes: Name -> what was chosen; without those left empty.
        place: Where it is in the file, for a message.
    """

    outline: np.ndarray | None
    shape: str
    attributes: dict[str, str]
    place: str


@dataclasses.dataclass(frozen=True)
class Annotations:
    """What a file says.

    Attributes:
        images: (name of the file, its regions) of each image.
        options: Attribute -> the values that the project offers, in their order.
    """

    images: list[tuple[str, list[Region]]]
    options: dict[str, list[str]]


def parse_via(content: Any, path: Path) -> Annotations:
    """The regions in the content of a JSON file.

    Args:
        content: A project, or an export of annotations, of any version of VIA.
        path: The file, for messages.

    Raises:
        ValueError: It is neither.
    """
    if isinstance(content, dict):
        if all(isinstance(content.get(k), dict) for k in ("file", "view", "metadata")):
            return _parse_third(content, path)
        entries = content.get("_via_img_metadata", content)
        if isinstance(entries, dict | list) and entries:
            values = list(entries.values() if isinstance(entries, dict) else entries)
            if all(isinstance(v, dict) and "filename" in v for v in values):
                images = [_image(value, path) for value in values]
                return Annotations(images, _options(content))
    raise ValueError(
        f"{path} is no file of VIA. Expected a project (with `_via_img_metadata`, or "
        "with `file`, `view` and `metadata`), or exported annotations: an object with "
        "`filename` and `regions` for each image."
    )


def _image(entry: dict, path: Path) -> tuple[str, list[Region]]:
    name, regions = entry["filename"], entry.get("regions") or []
    if not isinstance(name, str) or not isinstance(regions, dict | list):
        raise ValueError(
            f"{path}: an image has the filename {name!r:.60} and regions of the type "
            f"{type(regions).__name__}. Expected a text, and a list or an object."
        )
    items = regions.items() if isinstance(regions, dict) else enumerate(regions)
    found = []
    for key, region in items:
        shape = _table(_table(region).get("shape_attributes"))
        attributes = {}
        for attribute, value in _table(_table(region).get("region_attributes")).items():
            text = _text(value)
            if text:
                attributes[str(attribute)] = text
        kind = str(shape.get("name", "unknown"))
        place = f"{path}: {name}, region {key}"
        found.append(Region(_outline(kind, shape), kind, attributes, place))
    return name, found


def _table(value: Any) -> dict:
    """An object, empty where it is missing or something else."""
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str:
    """What was chosen; of a checkbox the only one that is ticked."""
    if isinstance(value, dict):
        ticked = [str(key) for key, on in value.items() if on]
        return ticked[0].strip() if len(ticked) == 1 else ""
    return "" if value is None else str(value).strip()


def _options(content: dict) -> dict[str, list[str]]:
    regions = _table(_table(content.get("_via_attributes")).get("region"))
    return {
        str(name): [str(option) for option in attribute["options"]]
        for name, attribute in regions.items()
        if isinstance(attribute, dict) and isinstance(attribute.get("options"), dict)
    }


def _parse_third(content: dict, path: Path) -> Annotations:
    """A project of version 3: regions point at views, and views at files."""
    attributes = {k: _table(v) for k, v in _table(content.get("attribute")).items()}
    options = {
        key: {str(k): str(v).strip() for k, v in _table(value.get("options")).items()}
        for key, value in attributes.items()
    }
    names = {key: str(value.get("aname", key)) for key, value in attributes.items()}
    images: dict[str, tuple[str, list[Region]]] = {}
    for key, view in content["view"].items():
        files = _table(view).get("fid_list")
        files = [str(file) for file in files] if isinstance(files, list) else []
        if len(files) == 1 and files[0] in content["file"]:  # others compare images
            name = _table(content["file"][files[0]]).get("fname", "")
            images[key] = (str(name), [])
    for key, item in content["metadata"].items():
        item = _table(item)
        image = images.get(str(item.get("vid")))
        numbers = item.get("xy")
        if image is None or not isinstance(numbers, list) or not numbers:
            continue  # a note on the whole image, or on a time
        chosen = {}
        for attribute, value in _table(item.get("av")).items():
            text = options.get(attribute, {}).get(str(value)) or _text(value)
            if text:
                chosen[names.get(attribute, attribute)] = text
        kind = _SHAPES.get(_text(numbers[0]), "unknown")
        outline = _outline(kind, _named(kind, numbers[1:]))
        place = f"{path}: {image[0]}, metadata {key}"
        image[1].append(Region(outline, kind, chosen, place))
    told = {names[key]: list(table.values()) for key, table in options.items()}
    return Annotations(list(images.values()), told)


def _named(kind: str, numbers: list) -> dict:
    """The numbers of a shape of version 3 under the names of version 2."""
    keys = {
        "rect": ("x", "y", "width", "height"),
        "circle": ("cx", "cy", "r"),
        "ellipse": ("cx", "cy", "rx", "ry"),
    }
    if kind in keys:
        return dict(zip(keys[kind], numbers, strict=False))
    return {"all_points_x": numbers[::2], "all_points_y": numbers[1::2]}


def _outline(kind: str, shape: dict) -> np.ndarray | None:
    """The corners of a shape; None for a point, a line and what is damaged."""
    try:
        points = np.array(list(_corners(kind, shape)), np.float64)
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    sound = points.ndim == 2 and len(points) >= 3 and _in_range(points)
    return points if sound else None


def _in_range(numbers) -> bool:
    """Whether a record can hold them; nan is not below the limit."""
    return bool((np.abs(numbers) < np.finfo(np.float32).max).all())


def _corners(kind: str, shape: dict) -> Iterator[tuple[float, float]]:
    if kind in ("polygon", "polyline"):
        yield from zip(shape["all_points_x"], shape["all_points_y"], strict=True)
    elif kind in ("rect", "extreme_rect"):
        x, y, width, height = _rectangle(kind, shape)
        yield from ((x, y), (x + width, y), (x + width, y + height), (x, y + height))
    elif kind in ("circle", "ellipse"):
        radii = [float(shape.get(key, shape.get("r"))) for key in ("rx", "ry")]
        theta = float(shape.get("theta") or 0)
        center = float(shape["cx"]), float(shape["cy"])
        if not _in_range([*radii, theta, *center]):
            raise ValueError("no ellipse")
        angles = np.linspace(0, 2 * np.pi, CIRCLE_POINTS, endpoint=False)
        along, across = radii[0] * np.cos(angles), radii[1] * np.sin(angles)
        xs = center[0] + along * np.cos(theta) - across * np.sin(theta)
        ys = center[1] + along * np.sin(theta) + across * np.cos(theta)
        yield from zip(xs, ys, strict=True)


def _rectangle(kind: str, shape: dict) -> list[float]:
    if kind == "rect":
        return [float(shape[key]) for key in ("x", "y", "width", "height")]
    xs, ys = shape["all_points_x"], shape["all_points_y"]  # one point on each side
    return [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
