"""Finding out which format a folder holds."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from visionkit.data.sources import build_source
from visionkit.data.sources.base import Source


@dataclasses.dataclass(frozen=True)
class DetectedSource:
    """A source that reads a folder.

    Attributes:
        name: Key of `SOURCES`.
        train: Options of the training split beside `root`.
        validation: Options of the validation split; None where the folder has none.
        source: The training split.
    """

    name: str
    train: dict
    validation: dict | None
    source: Source


def detect_source(root: str | os.PathLike) -> DetectedSource:
    """The source that reads `root`, and its splits.

    Args:
        root: Folder of a data set.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: The folder holds no known format.
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"There is no folder {root}.")
    records = (root / "index.json").is_file() or any(root.glob("*/index.json"))
    name = "records" if records else "image_folder"
    folders = {entry.name for entry in root.iterdir() if entry.is_dir()}
    train, validation = {}, None
    if "train" in folders:
        train = {"split": "train"}
        if folders & {"val", "valid", "validation"}:
            validation = {"split": "validation"}
    try:
        source = build_source(name, root=str(root), **train)
    except (ValueError, FileNotFoundError) as error:
        raise ValueError(
            f"{root} holds no format that visionkit knows. Expected a folder per class "
            "with images (perhaps inside train/ and val/), or records written by "
            f"`write_records`. As {name} it fails with: {error}"
        ) from error
    counts = source.class_counts() if source.info.task == "classification" else None
    if name == "image_folder" and (counts == 0).sum() * 2 >= len(counts):
        empty = [
            n for n, c in zip(source.info.class_names, counts, strict=True) if not c
        ]
        raise ValueError(
            f"{root} does not look like a folder per class: {', '.join(empty[:5])} "
            "hold no images. Expected folders named after classes, with images in them."
        )
    return DetectedSource(name, train, validation, source)
