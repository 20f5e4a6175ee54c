"""Reading files that came with a data set, and that nobody vouches for."""

from __future__ import annotations

import os
import stat
from pathlib import Path

MAX_TEXT = 256 * 2**20
"""Largest list, table or file of labels that is read, in bytes."""


def check_file(path: Path, max_bytes: int = MAX_TEXT, kind: str = "file") -> None:
    """Refuses what cannot be read to its end: opening a pipe would wait for ever.

    Args:
        path: Of the file.
        max_bytes: It may have.
        kind: What a message calls it.

    Raises:
        FileNotFoundError: It is not there.
        ValueError: A folder, a pipe or a device, or it is larger.
    """
    try:
        status = os.stat(path)
    except FileNotFoundError:
        raise FileNotFoundError(
            f"No such {kind}: {str(path)!r} (seen from {os.getcwd()!r})."
        ) from None
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(
            f"{path} is no regular file, but a folder, a pipe or a device. Expected "
            f"a {kind}."
        )
    if status.st_size > max_bytes:
        raise ValueError(
            f"{path} has {status.st_size:,} bytes. Expected a {kind} of at most "
            f"{max_bytes:,}."
        )


def read_text(
    path: Path,
    max_bytes: int = MAX_TEXT,
    kind: str = "file",
    errors: str = "strict",
) -> str:
    """The text of a file in UTF-8, without a byte order mark.

    Args:
        path: Of the file.
        max_bytes: As for `check_file`.
        kind: As for `check_file`.
        errors: As for `open`; "surrogateescape" for names of files.

    Raises:
        FileNotFoundError, ValueError: As `check_file`; or it is not UTF-8.
    """
    check_file(path, max_bytes, kind)
    try:
        return path.read_text("utf-8-sig", errors)
    except UnicodeDecodeError as error:
        raise not_utf8(path, error) from None


def not_utf8(path: Path, error: UnicodeDecodeError) -> ValueError:
    """The error to raise about a file in another encoding."""
    return ValueError(
        f"{path} is not UTF-8: byte {error.start} is {error.object[error.start]}. "
        "Save it as UTF-8."
    )


def repeated(names) -> list:
    """Those that are there more than once, in the order of their first."""
    seen: dict = {}
    for name in names:
        seen[name] = seen.get(name, 0) + 1
    return [name for name, count in seen.items() if count > 1]
