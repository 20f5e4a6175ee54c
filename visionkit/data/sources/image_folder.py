"""A folder per class: the commonest classification data set."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator

import numpy as np

from visionkit.data.headers import CONVERT
from visionkit.data.image_header import SUFFIXES
from visionkit.data.sources.base import Record, Skip, Source, SourceInfo

SPLIT_FOLDERS = {
    "train": (b"train", b"training"),
    "validation": (b"validation", b"valid", b"val"),
    "test": (b"test",),
}
"""Split -> the folder names that stand for it."""

_IMAGE_SUFFIXES = {os.fsencode(s) for group in SUFFIXES.values() for s in group}
_FOREIGN_SUFFIXES = {
    *(b".tif", b".tiff", b".heic", b".heif", b".avif", b".jp2", b".jxl", b".psd"),
}
_IGNORED_FOLDERS = {b"__MACOSX", b"@eaDir", b"__pycache__"}


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

        per_class = [self._images(os.path.join(folder, name)) for name in names]
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

    def _images(self, folder: bytes) -> list[bytes]:
        """The images at any depth below a class folder, in byte order."""
        if not os.path.isdir(folder):  # a class of `train` that this split lacks
            return []
        paths: list[bytes] = []
        pending, seen = [folder], set()
        while pending:
            folder = pending.pop()
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in seen:  # a link back to a parent
                continue
            seen.add((status.st_dev, status.st_ino))
            for entry in self._scan(folder):
                skip = _refuse(entry)
                if skip:
                    self.skipped.append(skip)
                elif entry.is_dir():
                    pending.append(entry.path)
                elif _suffix(entry.name) in _IMAGE_SUFFIXES:
                    paths.append(entry.path)
        return sorted(paths)

    def _scan(self, folder: bytes) -> list[os.DirEntry]:
        try:
            return list(_entries(folder))
        except OSError as error:
            detail = error.strerror or str(error)
            self.skipped.append(Skip(os.fsdecode(folder), "image.unreadable", detail))
            return []

    def _skip_beside(self, folder: bytes, known: set[bytes]) -> None:
        """Notes images and folders that lie where only class folders should."""
        for entry in sorted(_entries(folder), key=lambda e: e.name):
            suffix = _suffix(entry.name)
            if entry.path in known:
                continue
            if entry.is_dir():
                detail = f"a folder beside {', '.join(SPLIT_FOLDERS)}; it is not read"
            elif suffix in _IMAGE_SUFFIXES | _FOREIGN_SUFFIXES:
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


def _entries(folder: bytes) -> Iterator[os.DirEntry]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if not entry.name.startswith(b".") and entry.name not in _IGNORED_FOLDERS:
                yield entry


def _folders(folder: bytes) -> list[bytes]:
    """Paths of the folders in `folder`, in byte order."""
    return sorted(entry.path for entry in _entries(folder) if entry.is_dir())


def _suffix(name: bytes) -> bytes:
    return os.path.splitext(name)[1].lower()


def _refuse(entry: os.DirEntry) -> Skip | None:
    """Why an entry named like an image is not one."""
    suffix = _suffix(entry.name)
    if suffix not in _IMAGE_SUFFIXES and suffix not in _FOREIGN_SUFFIXES:
        return None
    name = os.fsdecode(entry.path)
    if entry.is_file():  # follows links, and costs no system call otherwise
        if suffix in _IMAGE_SUFFIXES:
            return None
        kind = os.fsdecode(suffix)
        return Skip(name, "image.format", f"{kind} is not supported; {CONVERT}")
    if entry.is_dir():
        return Skip(name, "image.not_a_file", "a folder named like an image")
    if entry.is_symlink() and not os.path.exists(entry.path):
        return Skip(name, "image.unreadable", "a link to a file that is not there")
    return Skip(name, "image.not_a_file", "not a regular file (a pipe or a device)")


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
    suffixes = " ".join(os.fsdecode(suffix) for suffix in sorted(_IMAGE_SUFFIXES))
    beside = f" Not usable: {len(skipped)}, e.g. {skipped[0]}." if skipped else ""
    return (
        f"No image in the {len(names)} class folders of {os.fsdecode(folder)!r}. "
        f"Expected files with one of the suffixes {suffixes}.{beside}"
    )
