"""Files that are either the old or the new one, whenever the process dies.

The protocol of every write: a temporary file beside the target, fsync, `os.replace`,
fsync of the folder. Standard library only.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import os
import shutil
import uuid
from pathlib import Path
from typing import Any

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def atomic_replace(path: str | os.PathLike, *, size: int | None = None):
    """Write a file so that readers see the old one or the whole new one.

    Args:
        path: The file to make or replace; its folder must exist.
        size: Bytes about to be written, for the message when the disk is full.

    Yields:
        `Path` of a temporary file of the same suffix in the same folder, to be
        written within the block. An exception in the block removes it and leaves
        `path` as it was.

    Raises:
        OSError: The disk is full (the text names the folder and the bytes needed), or
            whatever else the file system refuses.
    """
    path = Path(path)
    mark = uuid.uuid4().hex[:8]
    temporary = path.with_name(f".{path.stem}.{mark}.tmp{path.suffix}")
    try:
        yield temporary
        _sync(temporary)
        os.replace(temporary, path)
        _sync(path.parent)
    except OSError as error:
        if error.errno not in _NO_SPACE:
            raise
        needed = "" if size is None else f"{size} bytes are needed, "
        raise OSError(
            error.errno,
            f"No space to write {path.name!r} in {str(path.parent)!r}: {needed}"
            f"{shutil.disk_usage(path.parent).free} are free. Nothing was changed; "
            "free some space and try again",
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def remove_temporary_files(folder: str | os.PathLike) -> None:
    """Remove what killed writers left in `folder`; no other may be active."""
    for path in Path(folder).glob(".*.tmp*"):
        path.unlink(missing_ok=True)


def atomic_write_bytes(path: str | os.PathLike, data: bytes) -> None:
    """Replace the file by `data`; see `atomic_replace`."""
    with atomic_replace(path, size=len(data)) as temp, HashingWriter(temp) as file:
        file.write(data)


def atomic_write_text(path: str | os.PathLike, text: str) -> None:
    """Replace the file by `text` in UTF-8; see `atomic_replace`."""
    atomic_write_bytes(path, text.encode("utf-8", "surrogateescape"))


def atomic_write_json(path: str | os.PathLike, value: Any) -> None:
    """Replace the file by `value` as indented JSON; see `atomic_replace`.

    NumPy values become numbers and lists. NaN and infinity, which JSON does not have,
    become null.
    """
    text = json.dumps(value, default=lambda array: array.tolist())
    value = json.loads(text, parse_constant=lambda _: None)
    atomic_write_text(path, json.dumps(value, indent=2) + "\n")


class HashingWriter(io.RawIOBase):
    """A new file, written front to back and hashed on the way.

    It cannot seek, so `zipfile` never goes back to change what was hashed.
    """

    def __init__(self, path: Path):
        self.sha256 = hashlib.sha256()
        self.size = 0
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)

    def writable(self) -> bool:
        """Always true."""
        return True

    def write(self, data) -> int:
        """Write all of `data`; `os.write` alone may stop anywhere."""
        data = memoryview(data).cast("B")
        written = 0
        while written < len(data):
            written += os.write(self._file, data[written:])
        self.sha256.update(data)
        self.size += written
        return written

    def close(self) -> None:
        """Close the file; a second time does nothing."""
        if not self.closed:
            os.close(self._file)
        super().close()


def _sync(path: Path) -> None:
    """Have the file's, or the folder's, contents reach the disk."""
    if os.name == "nt":  # folders cannot be opened there
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
