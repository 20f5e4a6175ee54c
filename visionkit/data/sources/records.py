"""Records: any other source, written once as TFRecord shards and read fast."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np

from visionkit.data.image_header import BadImage
from visionkit.data.sources.base import Record, Source, multi_hot
from visionkit.data.sources.ragged import RAGGED_COLUMNS, join_rows
from visionkit.data.sources.record_files import (
    RecordFile,
    RecordFiles,
    parse_or_nothing,
)
from visionkit.data.sources.record_format import (
    from_example,
    parse_example,
    without_objects,
)
from visionkit.data.sources.record_index import RecordIndex
from visionkit.data.sources.record_writer import write_records

__all__ = ["Records", "write_records"]


class Records(Source):
    """What `write_records` wrote.

    Shards hold the records in an order drawn at random once, so a pass that reads
    files front to back is already well mixed.

    Args:
        root: The folder with `index.json`.
        split: A folder in `root` that has it, e.g. "train".

    Raises:
        FileNotFoundError: No index, or a shard is missing.
        ValueError: The index is damaged, or a shard does not have its size.
    """

    def __init__(self, root: str | os.PathLike, split: str | None = None):
        self.root = Path(root) / split if split else Path(root)
        self._index = RecordIndex.load(self.root)
        self.info = self._index.info
        self.skipped = list(self._index.skipped)
        self._paths = [str(self.root / shard.name) for shard in self._index.shards]
        self._classes = self.info.num_classes if self.info.multi_label else None
        self._files = RecordFiles(
            [
                RecordFile(path, shard.bytes, *shard.places())
                for path, shard in zip(self._paths, self._index.shards, strict=True)
            ]
        )

    def record(self, index: int) -> Record:
        """The record at `index`: one read at its place in its shard.

        Raises:
            BadImage: By the rule "record.damaged".
        """
        example = self._files.read(index)
        return from_example(example, self._index.keys, self._classes)[0]

    def record_name(self, index: int) -> str:
        """The name that the source had for the record when it was written."""
        try:
            return os.fsdecode(from_example(self._files.read(index), ())[1])
        except BadImage:
            return f"{self.root}[{index}]"

    def check_record(self, index: int) -> None:
        """As `Source.check_record`."""
        self._files.check(index)

    def labels(self) -> np.ndarray | None:
        """As `Source.labels`, out of the index."""
        labels = self._index.labels
        if labels is None or self._classes is None:
            return None if labels is None else np.array(labels, np.int32)
        return np.stack([multi_hot(label, self._classes) for label in labels])

    def objects(self) -> dict[str, np.ndarray]:
        """All objects, of one pass over the shards; the images are not kept."""
        keys = tuple(key for key in self._index.keys if key in RAGGED_COLUMNS)
        if not keys:
            return {}
        records: list[Record] = [{}] * len(self)
        for index, example in self._files.dataset().as_numpy_iterator():
            try:
                records[index] = from_example(example, keys)[0]
            except BadImage:  # the pipeline and the doctor report it
                records[index] = without_objects(keys)
        return join_rows(records)

    def verify(self) -> None:
        """Reads every shard and compares its SHA-256 with the index.

        Raises:
            ValueError: A shard differs; names it.
        """
        for shard, path in zip(self._index.shards, self._paths, strict=True):
            with open(path, "rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            if found != shard.sha256:
                raise ValueError(
                    f"Shard {path} was changed: its SHA-256 is {found}, expected "
                    f"{shard.sha256}. Copy it again, or write the records again."
                )

    def raw_dataset(self, seed=None):
        """One pass over all records, read from the shards.

        Args:
            seed: As for `RecordFiles.dataset`. None keeps the order of the source
                that was written.

        Returns:
            A `tf.data.Dataset` of the same dicts as `Source.raw_dataset`.
        """
        import tensorflow as tf

        return self._files.dataset(seed).map(
            lambda index, example: {"index": index, **self._parse(example)},
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )

    def reader(self):
        """As `Source.reader`, but each record is read at its place."""
        read = self._files.reader()
        return lambda index: self._parse(read(index))

    def _parse(self, example):
        return parse_or_nothing(
            example, lambda one: parse_example(one, self._index.keys, self._classes)
        )
