"""The `data.yaml` of a YOLO data set, and what stands in for it."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from visionkit.data.sources.files import read_text, repeated
from visionkit.data.sources.splits import SPLITS
from visionkit.data.sources.yaml_file import read_yaml
from visionkit.data.sources.yolo_labels import MAX_ID

MAX_CLASSES = 100_000
"""Most classes that `nc` may count."""

NAME_FILES = ("classes.txt", "obj.names", "labels/classes.txt", "names.txt")


@dataclasses.dataclass(frozen=True)
class YoloConfig:
    """Where the images of each split are, and the names of the class ids.

    Attributes:
        path: The file it was read from, or the folder without one.
        splits: Split -> folders and list files.
        names: Class id -> name.
    """

    path: Path
    splits: dict[str, list[Path]]
    names: dict[int, str]


def find_config(root: Path, data: str | os.PathLike | None = None) -> YoloConfig:
    """The configuration of the data in `root`.

    Args:
        root: The folder.
        data: The YAML file, beginning at `root`; default the one in `root` that has
            the keys of one, or else folders and a file of names.

    Raises:
        FileNotFoundError: No such file, or nothing of the kind in `root`.
        ValueError: Damaged; names file, key and value.
    """
    if data is not None:
        return _from_yaml(root / data, root)
    for path in _candidates(root):
        raw = read_yaml(path)
        if isinstance(raw, dict) and ("names" in raw or "nc" in raw):
            return _from_yaml(path, root)
    splits = _usual_folders(root)
    if not splits:
        raise FileNotFoundError(
            f"{str(root)!r} holds no YOLO data. Expected data.yaml with `train`, `val` "
            "and `names`, or images/train beside labels/train."
        )
    return YoloConfig(root, splits, _names_of_files(root))


def _candidates(root: Path) -> list[Path]:
    if not root.is_dir():
        raise FileNotFoundError(f"No such folder: {str(root)!r}.")
    found = sorted(p for p in root.iterdir() if p.suffix in (".yaml", ".yml"))
    return sorted(found, key=lambda path: path.stem != "data")


def _from_yaml(path: Path, root: Path) -> YoloConfig:
    raw = read_yaml(path)
    if not isinstance(raw, dict):
        raise ValueError(f"{path} must have the keys train, val and names: {raw!r:.60}")
    base = _inside(path, "path", raw.get("path") or ".", root) or root
    splits = {}
    for split, aliases in SPLITS.items():
        key = next((alias for alias in aliases if raw.get(alias)), None)
        if key is None:
            continue
        entries = raw[key] if isinstance(raw[key], list) else [raw[key]]
        splits[split] = [_entry(path, key, entry, base, root) for entry in entries]
    if not splits:
        raise ValueError(f"{path} has none of the keys train, val and test.")
    return YoloConfig(path, splits, _names(path, raw))


def _entry(path: Path, key: str, entry, base: Path, root: Path) -> Path:
    """A folder or list file that is there."""
    if not isinstance(entry, str):
        raise ValueError(f"{path}: {key} is {entry!r}. Expected a path, or a list.")
    # Exports often say ../train/images for what lies beside the file.
    for name in (entry, entry.lstrip("./") if entry.startswith("..") else entry):
        for top in (base, root):
            found = _inside(path, key, name, top)
            if found is not None and os.path.exists(found):  # no name is too long
                return found
    raise FileNotFoundError(
        f"{path}: {key} is {entry!r}, and there is no such folder or file in "
        f"{str(base)!r}. Mend it, or pass `root`, the folder that paths begin at."
    )


def _inside(path: Path, key: str, name, top: Path) -> Path | None:
    """`top / name` without its `..`, None where that is outside of `top`."""
    if not isinstance(name, str) or "\0" in name:
        raise ValueError(f"{path}: {key} is {name!r}. Expected a path.")
    full = os.path.normpath(os.path.join(os.path.abspath(top), name))
    if os.path.commonpath([full, os.path.abspath(top)]) != os.path.abspath(top):
        return None
    return top / os.path.relpath(full, os.path.abspath(top))


def _names(path: Path, raw: dict) -> dict[int, str]:
    names = raw.get("names")
    if names is None:
        count = raw.get("nc")
        if not isinstance(count, int) or not 1 <= count <= MAX_CLASSES:
            raise ValueError(
                f"{path} must have `names`, a list or id: name; or their number as "
                f"`nc`, at most {MAX_CLASSES}. Received: nc={count!r:.40}"
            )
        names = [str(index) for index in range(count)]
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not names:
        raise ValueError(f"{path}: names is {names!r:.60}. Expected a list, or a dict.")
    for key, name in names.items():
        if type(key) is not int or not 0 <= key < MAX_ID:
            raise ValueError(f"{path}: names has the id {key!r}. Expected 0, 1, 2...")
        if not isinstance(name, str | int | float) or isinstance(name, bool):
            raise ValueError(
                f"{path}: names[{key}] is {name!r}. Expected a text; `yes`, `no` and "
                "`on` need quotes."
            )
    return _different(path, {key: str(names[key]) for key in sorted(names)})


def _different(path: Path, names: dict[int, str]) -> dict[int, str]:
    """The same names, of which no two may be equal."""
    twice = repeated(names.values())
    if twice:
        raise ValueError(f"{path}: names has {twice} more than once.")
    return names


def _names_of_files(root: Path) -> dict[int, str]:
    for name in NAME_FILES:
        if (root / name).is_file():
            lines = read_text(root / name).splitlines()
            names = [line.strip() for line in lines if line.strip()]
            return _different(root / name, dict(enumerate(names)))
    return {}


def _usual_folders(root: Path) -> dict[str, list[Path]]:
    """images/train and the like, or train/images, or images for everything."""
    splits = {}
    for split, aliases in SPLITS.items():
        places = [root / "images" / a for a in aliases]
        places += [root / alias / "images" for alias in aliases]
        found = [place for place in places if place.is_dir()]
        if found:
            splits[split] = found[:1]
    if not splits and (root / "images").is_dir() and (root / "labels").is_dir():
        splits["all"] = [root / "images"]
    return splits
