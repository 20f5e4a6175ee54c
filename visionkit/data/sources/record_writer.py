"""Writing any source as TFRecord shards, all or nothing."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from visionkit.data.headers import BadImage, inspect_image
from visionkit.data.mask_codes import MaskCode, encode_mask, encoded_mask
from visionkit.data.progress import progress_bar
from visionkit.data.sources.base import Record, Skip, Source
from visionkit.data.sources.record_format import to_example
from visionkit.data.sources.record_index import RecordIndex, Shard

SHARD_BYTES = 128 * 2**20
"""Size aimed at where the number of shards is not given."""

MIN_SHARDS = 8
"""Shards at least, where there are that many records: so many are read at a time."""

_SAMPLE = 64  # records measured to estimate the size of all


@dataclasses.dataclass(frozen=True)
class WriteSummary:
    """What `write_records` did.

    Attributes:
        root: The folder.
        read: Records of the source; always `examples + len(skipped)`.
        examples: Records written.
        shards: Files written.
        bytes: Their total size.
        skipped: Records that could not be read, and why.
    """

    root: Path
    read: int
    examples: int
    shards: int
    bytes: int
    skipped: tuple[Skip, ...]


def write_records(
    source: Source,
    root: str | os.PathLike,
    *,
    shards: int | None = None,
    progress: bool = True,
) -> WriteSummary:
    """Writes all records of `source` to the new folder `root`.

    Images are stored byte for byte, with all annotations; masks as PNGs of class ids,
    unless they are that already. The order on disk is random (and always the same), so
    that reading front to back mixes the classes. Everything is written to a folder
    beside `root` that takes its name at the very end: when the process is killed,
    `root` does not exist.

    Args:
        source: Any source, or a `Subset` of one.
        root: Must not exist, or be an empty folder.
        shards: Number of files; default one per 128 MiB, at least 8.
        progress: Whether to show a progress bar (on a terminal).

    Raises:
        FileExistsError: `root` has something in it.
        ValueError: No record could be read, or `shards` is below 1.
    """
    root = Path(root)
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise FileExistsError(
            f"{root} exists and is not an empty folder. Name another, or remove it."
        )
    if shards is not None and shards < 1:
        raise ValueError(f"`shards` must be at least 1. Received: shards={shards}")
    root.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{root.name}.partial-", dir=root.parent))
    try:
        index, sizes = _write(source, partial, shards, progress)
        partial.chmod(0o755)  # mkdtemp's folders are private
        _sync(partial)
        os.replace(partial, root)
        _sync(root.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    written = index.info.num_examples
    skips = index.skipped
    return WriteSummary(root, len(source), written, len(sizes), sum(sizes), skips)


def _write(
    source: Source, folder: Path, shards: int | None, progress: bool
) -> tuple[RecordIndex, list[int]]:
    order = np.random.default_rng(0).permutation(len(source))
    shards = min(shards or _shard_count(source, order), max(len(source), 1))
    skips: dict[int, Skip] = {}
    keys: set[tuple[str, ...]] = set()
    files = []
    with progress_bar("Writing records", len(source), progress) as advance:
        for number, chunk in enumerate(np.array_split(order, shards)):
            name = f"{number:05d}-of-{shards:05d}.tfrecord"
            records = _readable(source, chunk.tolist(), skips, keys, advance)
            files.append(_write_shard(folder / name, records))
    written = sorted(set(range(len(source))) - set(skips))
    if not written:
        example = f" First: {next(iter(skips.values()))}." if skips else ""
        raise ValueError(
            f"None of the {len(source)} records of {source.info.name!r} can be read."
            f"{example} Nothing was written."
        )
    new_index = {old: new for new, old in enumerate(written)}
    files = [
        dataclasses.replace(file, indices=[new_index[old] for old in file.indices])
        for file in files
    ]
    index = RecordIndex(
        info=dataclasses.replace(source.info, num_examples=len(written)),
        keys=_one(keys),
        shards=tuple(files),
        labels=_labels(source, written),
        skipped=(*source.skipped, *(skips[old] for old in sorted(skips))),
    )
    index.save(folder)
    return index, [file.bytes for file in files]


def _labels(source: Source, written: list[int]) -> list | None:
    labels = source.labels()
    if labels is None:
        return None
    if source.info.multi_label:
        return [np.flatnonzero(label).tolist() for label in labels[written]]
    return labels[written].tolist()


def _write_shard(path: Path, records: Iterator[tuple[int, bytes]]) -> Shard:
    import tensorflow as tf

    lengths, indices = [], []
    with tf.io.TFRecordWriter(str(path)) as writer:
        for index, example in records:
            writer.write(example)
            indices.append(index)
            lengths.append(len(example))
    with open(path, "rb+") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        size = file.tell()
        os.fsync(file.fileno())
    return Shard(path.name, size, digest, lengths, indices)


def _readable(source, chunk, skips, keys, advance) -> Iterator[tuple[int, bytes]]:
    """(index, serialized Example) of the records of `chunk` that can be read."""
    for index in chunk:
        advance()
        name = source.record_name(index)
        try:
            record = _embed(source, index)
        except BadImage as error:
            skips[index] = Skip(name, error.rule, error.detail)
            continue
        keys.add(tuple(sorted(record)))
        yield index, to_example(record, os.fsencode(name))


def _embed(source: Source, index: int) -> Record:
    """The record with the bytes of its image in place of a path, and of its mask."""
    record = dict(source.record(index))
    if "path" in record:
        record["encoded"] = _read_file(os.fsdecode(record.pop("path")))
    inspect_image(record["encoded"])
    if source.info.task != "semantic_segmentation":
        return record
    # Whatever the source's masks are, those of records hold class ids.
    mask = source.mask(index)
    same = source.mask_code == MaskCode.of_ids(source.info.num_classes)
    kept = same and "regions" not in record
    encoded = encoded_mask(record) if kept else encode_mask(mask)
    return {"encoded": record["encoded"], "mask_encoded": encoded}


def _read_file(path: str) -> bytes:
    inspect_image(path)  # refuses a pipe, which would block
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise BadImage("image.unreadable", error.strerror or str(error)) from error


def _shard_count(source: Source, order: np.ndarray) -> int:
    sizes = []
    for index in order[:_SAMPLE].tolist():
        record = source.record(index)
        with contextlib.suppress(OSError, ValueError):
            path = record.get("path")
            sizes.append(os.path.getsize(path) if path else len(record["encoded"]))
    mean = np.mean(sizes) if sizes else 0
    return max(MIN_SHARDS, round(len(source) * mean / SHARD_BYTES))


def _one(keys: set[tuple[str, ...]]) -> tuple[str, ...]:
    if len(keys) > 1:
        raise ValueError(
            f"All records of a source must have the same keys. Found: {sorted(keys)}"
        )
    return keys.pop()


def _sync(folder: Path) -> None:
    """Makes the folder's entries survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
