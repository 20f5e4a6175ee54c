"""One training at a time writes into a run folder. Standard library only."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import warnings
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

LOCK_NAME = ".lock"

_TAKEN = (errno.EACCES, errno.EAGAIN)


class FolderInUseError(RuntimeError):
    """Another process is training in the folder."""

    exit_status = 2


@contextlib.contextmanager
def locked(folder: str | os.PathLike):
    """Hold the lock of a run folder, which the system frees however a process ends.

    The file `.lock` names who holds it, and is empty when nobody does. What a killed
    process has left there is told in a warning, and taken over. Where the file system
    has no locks, a warning says so.

    Args:
        folder: Made when missing.

    Raises:
        FolderInUseError: Another process, or another thread, has the lock.
        OSError: The folder cannot be made or written.
    """
    folder = Path(folder)
    with _writable(folder):
        folder.mkdir(parents=True, exist_ok=True)
        # No buffer, so that what a full disk refuses is refused at once.
        file = open(folder / LOCK_NAME, "ab+", buffering=0)  # noqa: SIM115
    with file:
        _acquire(file, folder)
        if holder := _holder(file):
            warnings.warn(
                f"The last training in {folder} ({holder}) was killed; its lock is "
                "taken over.",
                stacklevel=4,
            )
        file.truncate(0)
        text = json.dumps({"pid": os.getpid(), "host": socket.gethostname()})
        with _writable(folder):
            file.write(text.encode())
        try:
            yield
        finally:
            file.truncate(0)


@contextlib.contextmanager
def _writable(folder: Path):
    """The first that is written into a run folder: an error says what to do."""
    try:
        yield
    except OSError as error:
        raise OSError(
            error.errno,
            f"The run folder {str(folder)!r} cannot be written: {error.strerror}. "
            "Choose another --out, or change what forbids it",
        ) from error


def _acquire(file: BinaryIO, folder: Path) -> None:
    reason = "this system has no flock"
    if fcntl is not None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except OSError as error:
            if error.errno in _TAKEN:
                raise FolderInUseError(
                    f"{folder} is being trained by {_holder(file) or 'a process'}. "
                    "Wait for its end, stop it, or choose another --out."
                ) from None
            reason = error.strerror
    warnings.warn(
        f"{folder} cannot be locked ({reason}): see to it that nothing else trains "
        "there.",
        stacklevel=5,
    )


def _holder(file: BinaryIO) -> str:
    """Whom the file names, for a message; empty where it names nobody."""
    file.seek(0)
    try:
        holder = json.loads(file.read(1000))
        return f"process {holder['pid']} on {holder['host']}"
    except (ValueError, KeyError, TypeError):
        return ""
