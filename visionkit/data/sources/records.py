"""Records: any other source, written once as TFRecord shards and read fast."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np

from visionkit.data.sources.base import Record, Source
from visionkit.data.sources.record_format import from_example, parse_example
from visionkit.data.sources.record_index import FRAMING, RecordIndex
from visionkit.data.sources.record_writer import write_records

__all__ = ["Records", "write_records"]

CYCLE = 8
"""Shards read at the same time. Part of the order, hence not tuned at run time."""

WINDOW = 1024
"""Encoded records that are shuffled among themselves."""


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
        self._shard, self._offset, self._length = self._index.locate()

    def record(self, index: int) -> Record:
        """The record at `index`: one read at its place in its shard."""
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        return from_example(self._read(index), self._index.keys)[0]

    def record_name(self, index: int) -> str:
        """The name that the source had for the record when it was written."""
        return os.fsdecode(from_example(self._read(index), ())[1])

    def labels(self) -> np.ndarray | None:
        """(len,) int32 for classification, out of the index; else None."""
        labels = self._index.labels
        return None if labels is None else np.array(labels, np.int32)

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
            seed: () int64, Python or tensor. The order of the shards, and of the
                records in windows of `WINDOW`, is a function of it alone. None keeps
                the order of the source that was written.

        Returns:
            A `tf.data.Dataset` of the same dicts as `Source.raw_dataset`.
        """
        import tensorflow as tf

        pairs = self._in_order() if seed is None else self._shuffled(seed)
        return pairs.map(
            lambda index, example: {
                "index": index,
                **parse_example(example, self._index.keys),
            },
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )

    def _in_order(self):
        """(index, example) by index: each record is read at its place."""
        import tensorflow as tf

        paths = tf.constant(self._paths)
        places = {
            "shard": tf.constant(self._shard),
            "header": tf.constant(self._offset + FRAMING - 4),
            "length": tf.constant(self._length),
            "size": tf.constant([s.bytes for s in self._index.shards], tf.int64),
        }

        def read(index):
            shard = places["shard"][index]
            header, length = places["header"][index], places["length"][index]
            footer = places["size"][shard] - header - length
            record = tf.data.FixedLengthRecordDataset(
                paths[shard], length, header, footer, buffer_size=0
            )
            return record.map(lambda example: (index, example))

        return tf.data.Dataset.range(len(self)).interleave(
            read, cycle_length=CYCLE, num_parallel_calls=CYCLE, deterministic=True
        )

    def _shuffled(self, seed):
        """(index, example): shards in random order, then windows shuffled."""
        import tensorflow as tf

        seed = tf.cast(seed, tf.int64)
        count = len(self._paths)
        paths = tf.constant(self._paths)
        indices = [np.array(s.indices, np.int64) for s in self._index.shards]
        starts = tf.constant(np.cumsum([0, *map(len, indices)])[:-1])
        indices = tf.constant(np.concatenate(indices))

        def read(position):
            pair = tf.stack([seed, tf.constant(count, tf.int64)])
            shard = tf.random.experimental.index_shuffle(position, pair, count - 1)
            examples = tf.data.TFRecordDataset(paths[shard]).enumerate(starts[shard])
            return examples.map(lambda at, example: (indices[at], example))

        def shuffle(number, window):
            index, examples = window
            order = tf.random.experimental.stateless_shuffle(
                tf.range(tf.size(index)), tf.stack([seed, number])
            )
            return tf.gather(index, order), tf.gather(examples, order)

        # Not `Dataset.shuffle`: its order also depends on the global seed.
        return (
            tf.data.Dataset.range(count)
            .interleave(read, CYCLE, num_parallel_calls=CYCLE, deterministic=True)
            .batch(WINDOW)
            .enumerate()
            .map(shuffle)
            .prefetch(1)
            .unbatch()
        )

    def _read(self, index: int) -> bytes:
        path, length = self._paths[self._shard[index]], int(self._length[index])
        with open(path, "rb") as file:
            file.seek(int(self._offset[index]))
            data = file.read(length + FRAMING)
        if len(data) != length + FRAMING or data[:8] != length.to_bytes(8, "little"):
            raise ValueError(
                f"Record {index} is not at byte {self._offset[index]} of {path}: the "
                "shard was changed. Copy it again, or write the records again."
            )
        return data[12:-4]
