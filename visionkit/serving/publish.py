"""Publishing a model version so that a server never sees half of it.

A server polls the base folder and takes every child whose name is a number. So a
version is written under a hidden, non-numeric name on the same file system, flushed
to the disk, and renamed: one step that either has happened or has not.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path

STAGING_PREFIX = ".tmp-"
_SAVED_MODEL = ("saved_model.pb",)
_PORTABLE = ("model.tflite", "model.onnx")


def publish(
    base: str | os.PathLike,
    build: Callable[[Path], None],
    version: int | None = None,
    *,
    portable: bool = False,
) -> Path:
    """Write a version with `build` and make it visible in one step.

    Exports into the same base folder wait for each other. Folders that a killed
    export left behind are removed. Other versions are not touched.

    Args:
        base: The model's folder; its numeric children are the versions.
        build: Called with an empty folder to fill. When it raises, nothing is
            published and the folder is removed.
        version: Number of the version, at least 1; default the next free one.
        portable: It is a LiteRT or ONNX file and no SavedModel. A folder holds versions
            of one kind: a server would take the newest file for a broken SavedModel.

    Returns:
        The published folder, `base/<version>`.

    Raises:
        FileExistsError: `version` is taken; a published version is never overwritten.
        NotADirectoryError: `base` is a file.
        ValueError: `version` is less than 1, or the versions in `base` are of the other
            kind.
    """
    base = Path(base)
    if base.exists() and not base.is_dir():
        raise NotADirectoryError(f"The model's folder is a file: {base}")
    base.mkdir(parents=True, exist_ok=True)
    with _locked(base):
        _check_kind(base, portable)
        for leftover in base.glob(f"{STAGING_PREFIX}*"):
            shutil.rmtree(leftover, ignore_errors=True)
        target = base / str(_free_version(base, version))
        staging = base / f"{STAGING_PREFIX}{uuid.uuid4().hex}"
        try:
            staging.mkdir()
            build(staging)
            _flush(staging)
            os.rename(staging, target)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        _fsync(base)
    return target


def versions(base: str | os.PathLike) -> dict[int, Path]:
    """The published versions under `base`, ascending, as a server counts them."""
    children = Path(base).iterdir()
    found = {int(c.name): c for c in children if c.name.isdecimal() and c.is_dir()}
    return dict(sorted(found.items()))


def _check_kind(base: Path, portable: bool) -> None:
    for number, folder in versions(base).items():
        for file in _SAVED_MODEL if portable else _PORTABLE:
            if (folder / file).exists():
                kinds = "SavedModels", "LiteRT and ONNX files"
                raise ValueError(
                    f"{base} is a folder of {kinds[not portable]}: version {number} "
                    f"has {file}. Export {kinds[portable]} into a folder of their own."
                )


def _free_version(base: Path, version: int | None) -> int:
    taken = versions(base)
    if version is None:
        return max(taken, default=0) + 1
    if version < 1:
        raise ValueError(f"`version` must be at least 1. Received: version={version}")
    if version in taken:
        raise FileExistsError(
            f"Version {version} exists: {taken[version]}. A published version is never "
            f"overwritten; leave `version` out to get {max(taken) + 1}."
        )
    return version


@contextlib.contextmanager
def _locked(folder: Path):
    """Hold the folder's lock, which the kernel frees however the process ends."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _flush(folder: Path):
    for parent, _, files in os.walk(folder, topdown=False):
        for name in files:
            _fsync(os.path.join(parent, name))
        _fsync(parent)


def _fsync(path):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
