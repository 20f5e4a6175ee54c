"""Which records hold the same bytes."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from visionkit.data.sources.base import Source

CHUNK = 128


def parallel_map(function: Callable, items: Iterable, workers: int | None = None):
    """`[function(item) for item in items]` in threads, in chunks that hide their cost.

    Args:
        function: Mostly waits for the disk or runs without the GIL.
        items: What it is called with.
        workers: Threads; default four per core, 32 at most.
    """
    items = list(items)
    chunks = [items[i : i + CHUNK] for i in range(0, len(items), CHUNK)]
    workers = workers or min(32, 4 * (os.cpu_count() or 1))
    with ThreadPoolExecutor(workers) as pool:
        results = pool.map(lambda chunk: [function(item) for item in chunk], chunks)
        return [result for chunk in results for result in chunk]


def content_ids(*sources: Source, workers: int | None = None) -> list[np.ndarray]:
    """A number per record; records have the same number if their bytes are the same.

    Sizes are compared first, and only files of one size are read and hashed
    (SHA-256). Links to one file need no reading. A file that cannot be read equals
    nothing else.

    Args:
        *sources: Compared with each other and within themselves.
        workers: Threads.

    Returns:
        For each source a (len,) int64 array.
    """
    places = [(source, i) for source in sources for i in range(len(source))]
    keys = parallel_map(_size_and_place, places, workers)
    # (size, inodes or digests): one inode per file, however many links it has.
    inodes: dict[int, set] = {}
    for position, (size, inode) in enumerate(keys):
        inodes.setdefault(size, set()).add(inode or position)
    suspects = [p for p, (size, _) in enumerate(keys) if len(inodes[size]) > 1]
    digests = parallel_map(lambda p: _digest(*places[p]), suspects, workers)
    keys = [key if key[0] >= 0 else ("unread", p) for p, key in enumerate(keys)]
    for position, digest in zip(suspects, digests, strict=True):
        keys[position] = ("digest", digest or position)

    numbers: dict[tuple, int] = {}
    ids = np.array([numbers.setdefault(key, len(numbers)) for key in keys], np.int64)
    return np.split(ids, np.cumsum([len(source) for source in sources])[:-1])


def _size_and_place(place: tuple[Source, int]) -> tuple[int, tuple[int, int] | None]:
    """(bytes, inode); size -1 where there is no regular file."""
    source, index = place
    try:
        record = source.record(index)
        if "encoded" in record:
            return len(record["encoded"]), None
        status = os.stat(record["path"])
    except (OSError, ValueError):
        return -1, None
    if not stat.S_ISREG(status.st_mode):
        return -1, None
    return status.st_size, (status.st_dev, status.st_ino)


def _digest(source: Source, index: int) -> bytes | None:
    record = source.record(index)
    if "encoded" in record:
        return hashlib.sha256(record["encoded"]).digest()
    try:
        if not os.path.isfile(record["path"]):
            return None
        with open(record["path"], "rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except (OSError, ValueError):
        return None
