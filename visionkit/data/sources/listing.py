"""The images below a folder, and what only looks like one."""

from __future__ import annotations

import os
from collections.abc import Iterator

from visionkit.data.headers import CONVERT
from visionkit.data.image_header import SUFFIXES
from visionkit.data.sources.base import Skip

IMAGE_SUFFIXES = {os.fsencode(s) for group in SUFFIXES.values() for s in group}
"""Suffixes of images that can be decoded, in lower case."""

FOREIGN_SUFFIXES = {
    *(b".tif", b".tiff", b".heic", b".heif", b".avif", b".jp2", b".jxl", b".psd"),
}
"""Suffixes of images that cannot."""

_IGNORED_FOLDERS = {b"__MACOSX", b"@eaDir", b"__pycache__"}


def list_images(folder: bytes, skipped: list[Skip]) -> list[bytes]:
    """The images at any depth below a folder, in byte order.

    Args:
        folder: Where to look; without it there are none.
        skipped: Is told of what is named like an image and cannot be used.
    """
    if not os.path.isdir(folder):
        return []
    paths: list[bytes] = []
    pending, seen = [folder], set()
    while pending:
        folder = pending.pop()
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen:  # a link back to a parent
            continue
        seen.add((status.st_dev, status.st_ino))
        for entry in _scan(folder, skipped):
            skip = _refuse(entry)
            if skip:
                skipped.append(skip)
            elif is_folder(entry):
                pending.append(entry.path)
            elif suffix_of(entry.name) in IMAGE_SUFFIXES:
                paths.append(entry.path)
    return sorted(paths)


def entries_of(folder: bytes) -> Iterator[os.DirEntry]:
    """What lies in a folder, without what is hidden or made by systems."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if not entry.name.startswith(b".") and entry.name not in _IGNORED_FOLDERS:
                yield entry


def is_folder(entry: os.DirEntry) -> bool:
    """Whether an entry is a folder, or a link to one; a link to itself is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def suffix_of(name: bytes) -> bytes:
    """The suffix in lower case, with its dot."""
    return os.path.splitext(name)[1].lower()


def _scan(folder: bytes, skipped: list[Skip]) -> list[os.DirEntry]:
    try:
        return list(entries_of(folder))
    except OSError as error:
        detail = error.strerror or str(error)
        skipped.append(Skip(os.fsdecode(folder), "image.unreadable", detail))
        return []


def _refuse(entry: os.DirEntry) -> Skip | None:
    """Why an entry named like an image is not one."""
    suffix = suffix_of(entry.name)
    if suffix not in IMAGE_SUFFIXES and suffix not in FOREIGN_SUFFIXES:
        return None
    name = os.fsdecode(entry.path)
    try:
        is_file = entry.is_file()  # follows links, and costs no system call otherwise
    except OSError as error:  # a link to itself
        return Skip(name, "image.unreadable", error.strerror or str(error))
    if is_file:
        if suffix in IMAGE_SUFFIXES:
            return None
        kind = os.fsdecode(suffix)
        return Skip(name, "image.format", f"{kind} is not supported; {CONVERT}")
    if entry.is_dir():
        return Skip(name, "image.not_a_file", "a folder named like an image")
    if entry.is_symlink() and not os.path.exists(entry.path):
        return Skip(name, "image.unreadable", "a link to a file that is not there")
    return Skip(name, "image.not_a_file", "not a regular file (a pipe or a device)")
