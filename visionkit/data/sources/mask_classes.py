"""Names of classes and the values or colours that stand for them in masks."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from visionkit._spelling import check_name
from visionkit.data.image_header import BadImage
from visionkit.data.mask_codes import MaskCode, encoded_mask, read_values
from visionkit.data.sources.classes import read_classes
from visionkit.data.sources.coco_json import read_json
from visionkit.data.sources.files import check_file, read_text
from visionkit.data.sources.yaml_file import read_yaml
from visionkit.types import VOID_CLASS

CLASS_FILES = ("classes.txt", "classes.json", "classes.yaml", "labelmap.txt")
"""Where the classes stand, unless they are given."""

OTHERS = "others"
BINARY = ("background", "foreground")
MAX_CLASSES = 255
PEEKED = 32
"""Masks that are looked at, at least, to tell 0 and 255 from class ids."""


def read_mask_classes(
    classes, void, base: Path, values: Callable[[], set[int]]
) -> tuple[tuple[str, ...], MaskCode]:
    """Class names, and the code of their masks.

    Args:
        classes: As for `MaskFolder`.
        void: As for `MaskFolder`.
        base: Where the path of a file begins.
        values: Tells the values in some of the masks; called where it matters.

    Raises:
        ValueError: Two classes of one name or value, a value that is none, or no
            classes at all.
    """
    if classes is None:
        found = (base / name for name in CLASS_FILES)
        classes = next((path for path in found if path.is_file()), None)
    if isinstance(classes, str | os.PathLike):
        classes = _read_file(base / classes)
    if classes is None:
        table = _unnamed(values(), base)
    elif isinstance(classes, Mapping):
        table = _turned(classes)
    else:
        names = read_classes(classes, base)
        table = _counted(names, void, values)
    return _finish(table, void)


def values_in(
    count: int, record: Callable[[int], Any], colors: bool = False
) -> set[int]:
    """The values in `PEEKED` of the masks, spread evenly; the unreadable left out.

    Where those are all background, 0, the others are read too until one is not: what
    stands for the foreground may be rare.

    Args:
        count: Number of masks.
        record: From an index to a record with a mask.
        colors: As for `read_values`.
    """
    found: set[int] = set()

    def read(index: int) -> None:
        with contextlib.suppress(BadImage):
            values = read_values(encoded_mask(record(index)), colors)
            found.update(np.unique(values).tolist())

    step = max(count // PEEKED, 1)
    for index in range(0, count, step):
        read(index)
    for index in range(count):
        if not found <= {0}:
            break
        if index % step:
            read(index)
    return found


def _read_file(path: Path):
    """A list of names, or a table, out of a file."""
    check_file(path, kind="file of classes")
    if path.suffix.lower() in (".json", ".yaml", ".yml"):
        content = read_json(path) if path.suffix == ".json" else read_yaml(path)
        for key in ("classes", "names"):
            if isinstance(content, dict) and isinstance(content.get(key), dict | list):
                return content[key]
        if not isinstance(content, dict | list):
            raise ValueError(f"{path} holds no list or table of classes.")
        return content
    lines = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    if path.name != "labelmap.txt":
        return lines
    return dict(_cvat_class(path, line) for line in lines if not line.startswith("#"))


def _cvat_class(path: Path, line: str) -> tuple[str, list[int]]:
    """The name and the colour in a line of CVAT: name:red,green,blue:parts:actions."""
    try:
        name, color = line.split(":")[:2]
        return name, [int(number) for number in color.split(",")]
    except ValueError:
        raise ValueError(
            f"{path}: {line!r:.60} is no class. Expected name:red,green,blue::"
        ) from None


def _turned(classes: Mapping) -> dict[str, Any]:
    """The table from names to values, also where it is given the other way round."""
    names = [isinstance(value, str) for value in classes.values()]
    if not all(names):
        return {str(name): value for name, value in classes.items()}
    try:
        return {name: int(value) for value, name in classes.items()}
    except ValueError:
        raise ValueError(
            "`classes` must be a list of names, or a table from each name to its "
            f"value or [red, green, blue]. Received: {dict(classes)!r:.200}"
        ) from None


def _counted(names: tuple[str, ...], void, values) -> dict[str, int]:
    """Names without values: 0, 1, 2... without those of void, or 0 and 255."""
    listed = void if isinstance(void, list | tuple) else [void]
    taken = {value for value in listed if isinstance(value, int)}
    if len(names) == 2 and not taken and {VOID_CLASS} <= values() <= {0, VOID_CLASS}:
        return dict(zip(names, (0, 255), strict=True))
    free = (value for value in range(256) if value not in taken)
    if len(names) > MAX_CLASSES:
        raise ValueError(f"At most {MAX_CLASSES} classes. Received: {len(names)}")
    return dict(zip(names, free, strict=False))


def binary_classes(values: set[int]) -> dict[str, int] | None:
    """The table of masks that have only 0 and 255, or 0 and 1; None of others."""
    if not values or not values <= {0, 1, VOID_CLASS}:
        return None
    foreground = VOID_CLASS if values <= {0, VOID_CLASS} else 1
    return dict(zip(BINARY, (0, foreground), strict=True))


def _unnamed(values: set[int], base: Path) -> dict[str, int]:
    if table := binary_classes(values):
        return table
    some = ", ".join(map(str, sorted(values)[:20])) or "none that can be read"
    raise ValueError(
        f"The classes of the masks in {base} are not known. Expected `classes`, one of "
        f"{', '.join(CLASS_FILES)} in that folder, or masks of 0 and 255. Values in "
        f"the masks: {some}{' ...' if len(values) > 20 else ''}"
    )


def _finish(table: dict[str, Any], void) -> tuple[tuple[str, ...], MaskCode]:
    colors = any(isinstance(value, list | tuple) for value in table.values())
    packed = {name: _packed(name, value, colors) for name, value in table.items()}
    voids = _voids(void, packed, colors)
    named = {name: value for name, value in packed.items() if value not in voids}
    owner: dict[int, str] = {}
    for name, value in named.items():
        if owner.setdefault(value, name) != name:
            raise ValueError(
                f"The classes {owner[value]!r} and {name!r} have the same value "
                f"{table[name]!r}. Give each its own."
            )
    if not 1 <= len(named) <= MAX_CLASSES:
        raise ValueError(
            f"There must be 1 to {MAX_CLASSES} classes that are not void. Received: "
            f"{len(named)}"
        )
    ids = {value: i for i, value in enumerate(named.values())}
    ids |= dict.fromkeys(voids, VOID_CLASS)
    return tuple(named), MaskCode(tuple(sorted(ids.items())), colors, void == OTHERS)


def _voids(void, packed: dict[str, int], colors: bool) -> set[int]:
    """The values of void."""
    if void is None or void == OTHERS:
        usual = not colors and VOID_CLASS not in packed.values()
        return {VOID_CLASS} if usual else set()
    one = isinstance(void, int | str) or (
        colors and len(void) == 3 and all(isinstance(x, int) for x in void)
    )
    voids = set()
    for value in [void] if one else void:
        if isinstance(value, str):
            check_name("class for `void`", value, packed)
            voids.add(packed[value])
        else:
            voids.add(_packed("void", value, colors))
    return voids


def _packed(name: str, value, colors: bool) -> int:
    """A value as a key of `MaskCode.table`."""
    parts = list(value) if isinstance(value, list | tuple) else [value]
    whole = all(isinstance(x, int) and 0 <= x <= 255 for x in parts)
    if not whole or len(parts) != (3 if colors else 1):
        expected = "[red, green, blue]" if colors else "a whole number"
        raise ValueError(
            f"The value of {name!r} must be {expected} in 0..255, as all others. "
            f"Received: {value!r}"
        )
    return parts[0] << 16 | parts[1] << 8 | parts[2] if colors else parts[0]
