"""A folder per class: the commonest classification data set."""

from __future__ import annotations

import os
import warnings

import numpy as np

from visionkit.data.sources.base import Record, Skip, Source, SourceInfo
from visionkit.data.sources.listing import (
    FOREIGN_SUFFIXES,
    IMAGE_SUFFIXES,
    entries_of,
    is_folder,
    list_images,
    suffix_of,
)
from visionkit.data.sources.splits import SPLITS

SPLIT_FOLDERS = {
    split: tuple(map(os.fsencode, names)) for split, names in SPLITS.items()
}
"""Split -> the folder names that stand for it."""


class ImageFolder(Source):
    """Images in one folder per class, with or without a folder per split above.

        root/cat/1.jpg                 root/train/cat/1.jpg
        root/dog/2.png                 root/validation/dog/2.png

    Split folders are recognised by a `train` folder that has folders in it. Folders
    inside a class folder belong to the class. Labels are the positions of the class
    names in byte order, and those of `train` hold in every split. Hidden files and
    files that are no images are ignored; images that cannot be used are in `skipped`.
    Names that are not UTF-8 keep their bytes (as surrogate escapes in `str`).

    Args:
        root: The folder.
        split: "train", "validation" or "test" where there are split folders (default
            "train"); None or "all" where there are none.

    Raises:
        FileNotFoundError: No such folder, or no such split.
        NotADirectoryError: `root` is a file.
        ValueError: Fewer than two classes, no image, or a class that `train` lacks.
    """

    def __init__(self, root: str | os.PathLike | bytes, split: str | None = None):
        self.root = os.fsencode(root)
        _check_folder(self.root)
        splits = find_splits(self.root)
        folder, split = _choose_split(self.root, splits, split)
        self.skipped: list[Skip] = []
        if splits:
            self._skip_beside(self.root, set(splits.values()))
        reference = splits.get("train", folder)
        names = [os.path.basename(path) for path in _folders(reference)]
        if len(names) < 2:
            raise ValueError(_too_few(reference, names))
        self._check_unknown(folder, reference, names)
        self._skip_beside(folder, {os.path.join(folder, name) for name in names})

        per_class = [
            list_images(os.path.join(folder, name), self.skipped) for name in names
        ]
        counts = [len(paths) for paths in per_class]
        self._paths = [path for paths in per_class for path in paths]
        self._labels = np.repeat(np.arange(len(names), dtype=np.int32), counts)
        class_names = tuple(os.fsdecode(name) for name in names)
        if not self._paths:
            raise ValueError(_no_images(folder, class_names, self.skipped))
        empty = [n for n, count in zip(class_names, counts, strict=True) if not count]
        if empty:
            where = os.fsdecode(folder)
            warnings.warn(
                f"Classes without an image in {where!r}: {empty}", stacklevel=2
            )
        self.info = SourceInfo(
            "classification", class_names, len(self._paths), split, "image_folder"
        )

    def record(self, index: int) -> Record:
        """The path and the label of image `index`."""
        return {"path": self._paths[index], "label": int(self._labels[index])}

    def labels(self) -> np.ndarray:
        """(len,) int32, the class of each image."""
        return self._labels.copy()

    def columns(self) -> dict[str, np.ndarray]:
        """All paths and labels, without a dict per image."""
        paths = np.array(self._paths, object)
        return {"path": paths, "label": self._labels.copy()}

    def _skip_beside(self, folder: bytes, known: set[bytes]) -> None:
        """Notes images and folders that lie where only class folders should."""
        for entry in sorted(entries_of(folder), key=lambda e: e.name):
            suffix = suffix_of(entry.name)
            if entry.path in known:
                continue
            if is_folder(entry):
                detail = f"a folder beside {', '.join(SPLIT_FOLDERS)}; it is not read"
            elif suffix in IMAGE_SUFFIXES | FOREIGN_SUFFIXES:
                detail = "beside the class folders; move it into one of them"
            else:
                continue
            self.skipped.append(Skip(os.fsdecode(entry.path), "image.no_class", detail))

    def _check_unknown(self, folder: bytes, reference: bytes, names: list[bytes]):
        found = [os.path.basename(path) for path in _folders(folder)]
        unknown = [os.fsdecode(name) for name in found if name not in set(names)]
        if unknown:
            raise ValueError(
                f"Class folders in {os.fsdecode(folder)!r} that "
                f"{os.fsdecode(reference)!r} lacks: {unknown}. The classes of the "
                "train split define the labels; rename or remove these, or add them."
            )


def find_splits(root: str | os.PathLike | bytes) -> dict[str, bytes]:
    """The split folders of `root` by split, empty where classes lie directly in it.

    `train` has to be there and to have folders in it: a class may be called "train".
    """
    folders = {os.path.basename(p).lower(): p for p in _folders(os.fsencode(root))}
    splits = {
        split: folders[name]
        for split, names in SPLIT_FOLDERS.items()
        for name in reversed(names)
        if name in folders
    }
    has_classes = "train" in splits and any(_folders(splits["train"]))
    return splits if has_classes else {}


def _folders(folder: bytes) -> list[bytes]:
    """Paths of the folders in `folder`, in byte order."""
    return sorted(entry.path for entry in entries_of(folder) if is_folder(entry))


def _check_folder(root: bytes) -> None:
    name = os.fsdecode(root)
    if not os.path.exists(root):
        raise FileNotFoundError(
            f"No such folder: {name!r} (seen from {os.getcwd()!r}). "
            "Expected a folder with one folder of images per class."
        )
    if not os.path.isdir(root):
        raise NotADirectoryError(
            f"{name!r} is a file. Expected a folder with one folder of images per "
            "class."
        )


def _choose_split(
    root: bytes, splits: dict[str, bytes], split: str | None
) -> tuple[bytes, str]:
    """The folder that holds the classes, and the name of the split."""
    if split not in (None, "all", *SPLIT_FOLDERS):
        known = ", ".join(SPLIT_FOLDERS)
        raise ValueError(f"`split` must be one of {known}. Received: split={split!r}")
    if not splits:
        if split in (None, "all"):
            return root, "all"
        raise FileNotFoundError(
            f"{os.fsdecode(root)!r} has no split folders, so there is no {split!r} "
            "split. Expected train/CLASS/*.jpg beside validation/CLASS/*.jpg; or leave "
            "`split` out, and hold back a fraction for validation."
        )
    split = split or "train"
    if split not in splits:
        raise FileNotFoundError(
            f"{os.fsdecode(root)!r} has no {split!r} split. Found: {', '.join(splits)}."
        )
    return splits[split], split


def _too_few(folder: bytes, names: list[bytes]) -> str:
    found, hint = "found none", ""
    if names:
        inner = os.path.join(folder, names[0])
        found = f"found one, {os.fsdecode(names[0])!r}"
        if len(_folders(inner)) > 1:
            hint = f" Did you mean {os.fsdecode(inner)!r}?"
    return (
        f"{os.fsdecode(folder)!r} must hold at least two class folders; {found}. "
        f"Expected root/CLASS/*.jpg or root/train/CLASS/*.jpg.{hint}"
    )


def _no_images(folder: bytes, names: tuple[str, ...], skipped: list[Skip]) -> str:
    suffixes = " ".join(os.fsdecode(suffix) for suffix in sorted(IMAGE_SUFFIXES))
    beside = f" Not usable: {len(skipped)}, e.g. {skipped[0]}." if skipped else ""
    return (
        f"No image in the {len(names)} class folders of {os.fsdecode(folder)!r}. "
        f"Expected files with one of the suffixes {suffixes}.{beside}"
    )
