"""TFRecord files as records by index: one by one, all in order, or well mixed."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

FRAMING = 16
"""Bytes that TFRecord adds to a record: uint64 length and its uint32 masked CRC-32C
before the data, the uint32 masked CRC-32C of the data behind."""

CYCLE = 8
"""Files read at the same time. Part of the order, hence not tuned at run time."""

WINDOW = 1024
"""Encoded records that are shuffled among themselves."""


@dataclasses.dataclass(frozen=True)
class RecordFile:
    """The records of one TFRecord file that belong to a data set.

    Attributes:
        path: The file.
        bytes: Its size.
        offsets: (N,) int64, where the framing of each record begins.
        lengths: (N,) int64, bytes of each record without its framing.
        indices: (N,) int64, the index of each record in the data set.
        skip: Records of the file before the first of these.
    """

    path: str
    bytes: int
    offsets: np.ndarray
    lengths: np.ndarray
    indices: np.ndarray
    skip: int = 0


class RecordFiles:
    """The serialized records of several files.

    Args:
        files: Each index from 0 on is in exactly one of them.
    """

    def __init__(self, files: list[RecordFile]):
        self.files = files
        count = sum(len(file.indices) for file in files)
        self._file, self._offset, self._length = np.zeros((3, count), np.int64)
        for number, file in enumerate(files):
            self._file[file.indices] = number
            self._offset[file.indices] = file.offsets
            self._length[file.indices] = file.lengths

    def __len__(self) -> int:
        return len(self._file)

    def read(self, index: int) -> bytes:
        """The record at `index`: one read at its place.

        Raises:
            IndexError: There is none.
            ValueError: The file was changed.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        path, length = self.files[self._file[index]].path, int(self._length[index])
        with open(path, "rb") as file:
            file.seek(int(self._offset[index]))
            data = file.read(length + FRAMING)
        if len(data) != length + FRAMING or data[:8] != length.to_bytes(8, "little"):
            raise ValueError(
                f"Record {index} is not at byte {self._offset[index]} of {path}: the "
                "file was changed. Copy it again, or write the records again."
            )
        return data[12:-4]

    def reader(self):
        """A function from an index () int64 to the record () string; graph code."""
        import tensorflow as tf

        with tf.init_scope():  # tensors beside the graph, not constants within it
            sizes = tf.constant([file.bytes for file in self.files], tf.int64)
            paths = tf.constant([file.path for file in self.files])
            places = tuple(
                tf.constant(column)
                for column in (self._file, self._offset + FRAMING - 4, self._length)
            )

        def read(index):
            file, header, length = (column[index] for column in places)
            footer = sizes[file] - header - length
            return tf.data.FixedLengthRecordDataset(
                paths[file], length, header, footer, buffer_size=0
            ).get_single_element()

        return read

    def dataset(self, seed=None):
        """One pass over all records.

        Args:
            seed: () int64, Python or tensor. The order of the files, and of the
                records in windows of `WINDOW`, is a function of it alone. None is the
                order of the indices.

        Returns:
            A `tf.data.Dataset` of (index () int64, record () string).
        """
        if seed is not None:
            return self._shuffled(seed)
        import tensorflow as tf

        read = self.reader()
        return tf.data.Dataset.range(len(self)).map(
            lambda index: (index, read(index)), CYCLE, deterministic=True
        )

    def _shuffled(self, seed):
        """Files in random order, read front to back, then windows shuffled."""
        import tensorflow as tf

        seed = tf.cast(seed, tf.int64)
        count = len(self.files)
        lengths = [len(file.indices) for file in self.files]
        paths = tf.constant([file.path for file in self.files])
        skips = tf.constant([file.skip for file in self.files], tf.int64)
        takes = tf.constant(lengths, tf.int64)
        starts = tf.constant(np.cumsum([0, *lengths])[:-1])
        indices = tf.constant(np.concatenate([file.indices for file in self.files]))

        def read(position):
            pair = tf.stack([seed, tf.constant(count, tf.int64)])
            file = tf.random.experimental.index_shuffle(position, pair, count - 1)
            records = tf.data.TFRecordDataset(paths[file])
            records = records.skip(skips[file]).take(takes[file])
            records = records.enumerate(starts[file])
            return records.map(lambda at, data: (indices[at], data))

        def shuffle(number, window):
            index, records = window
            order = tf.random.experimental.stateless_shuffle(
                tf.range(tf.size(index)), tf.stack([seed, number])
            )
            return tf.gather(index, order), tf.gather(records, order)

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


def scan_lengths(path: str) -> Iterator[int]:
    """The length of each record of a TFRecord file, read from the framing alone.

    Raises:
        ValueError: The file is cut off, or no TFRecord file.
    """
    with open(path, "rb", buffering=0) as file:
        size, place = file.seek(0, 2), 0
        while place < size:
            file.seek(place)
            header = file.read(8)
            length = int.from_bytes(header, "little")
            place += length + FRAMING
            if len(header) < 8 or place > size:
                raise ValueError(
                    f"{path} is cut off, or no TFRecord file: a record ends at byte "
                    f"{place} of {size}. Copy it again, or prepare the data again."
                )
            yield length
