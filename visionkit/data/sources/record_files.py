"""TFRecord files as records by index: one by one, all in order, or well mixed."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from visionkit.data.image_header import BadImage
from visionkit.data.tuning import without_autotuning

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
        """The record at `index`: one read at its place, its checksum unchecked.

        Raises:
            IndexError: There is none.
            BadImage: By the rule "record.damaged": the file was changed.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        path, length = self.files[self._file[index]].path, int(self._length[index])
        with open(path, "rb") as file:
            file.seek(int(self._offset[index]))
            data = file.read(length + FRAMING)
        if len(data) != length + FRAMING or data[:8] != length.to_bytes(8, "little"):
            raise BadImage("record.damaged", self._damaged(index, "is not"))
        return data[12:-4]

    def check(self, index: int) -> None:
        """Compares the record at `index` with its checksum.

        Raises:
            BadImage: By the rule "record.damaged": they do not fit.
        """
        import tensorflow as tf

        if (
            len(self.reader()(tf.constant(index, tf.int64)).numpy())
            != (self._length[index])
        ):
            raise BadImage("record.damaged", self._damaged(index, "is damaged"))

    def _damaged(self, index: int, what: str) -> str:
        path, offset = self.files[self._file[index]].path, self._offset[index]
        return (
            f"Record {index} {what} at byte {offset} of {path}: the file was changed. "
            "Copy it again, or write the records again."
        )

    def reader(self):
        """A function from an index () int64 to the record () string; graph code.

        A record that does not fit its checksum is an empty string.
        """
        import tensorflow as tf

        with tf.init_scope():  # tensors beside the graph, not constants within it
            paths = tf.constant([file.path for file in self.files])
            places = tf.constant(self._file), tf.constant(self._offset)
        spec = tf.TensorSpec([], tf.string)

        def read(index):
            file, offset = (column[index] for column in places)
            records = tf.raw_ops.TFRecordDatasetV2(
                filenames=paths[file, None],
                compression_type="",
                buffer_size=tf.constant(0, tf.int64),
                byte_offsets=offset[None],
            )
            record = tf.data.experimental.from_variant(records, spec).take(1)
            damaged = tf.data.Dataset.from_tensors(b"")
            return _first(record, damaged)

        return read

    def dataset(self, seed=None):
        """One pass over all records.

        Args:
            seed: () int64, Python or tensor. The order of the files, and of the
                records in windows of `WINDOW`, is a function of it alone. None is the
                order of the indices.

        Returns:
            A `tf.data.Dataset` of (index () int64, record () string); see `reader` for
            those that are damaged.
        """
        import tensorflow as tf

        read = self.reader()
        if seed is not None:
            records = self._shuffled(seed, read)
        else:
            records = tf.data.Dataset.range(len(self)).map(
                lambda index: (index, read(index)), CYCLE, deterministic=True
            )
        return without_autotuning(records)

    def _shuffled(self, seed, read):
        """Files in random order, read front to back, then windows shuffled."""
        import tensorflow as tf

        seed = tf.cast(seed, tf.int64)
        count = len(self.files)
        paths = tf.constant([file.path for file in self.files])
        skips = tf.constant([file.skip for file in self.files], tf.int64)
        edges = tf.constant(np.cumsum([0, *(len(f.indices) for f in self.files)]))
        indices = tf.constant(np.concatenate([file.indices for file in self.files]))

        def records_of(position):
            pair = tf.stack([seed, tf.constant(count, tf.int64)])
            file = tf.random.experimental.index_shuffle(position, pair, count - 1)
            # The stream of a file ends at damage; what is behind is read one by one.
            records = tf.data.TFRecordDataset(paths[file]).skip(skips[file])
            rest = tf.data.Dataset.from_tensors(b"").repeat()
            records = records.ignore_errors().concatenate(rest)
            records = records.take(edges[file + 1] - edges[file])
            return records.enumerate(edges[file]).map(indexed)

        def indexed(place, record):
            index = indices[place]
            there = tf.strings.length(record) > 0
            return index, tf.cond(there, lambda: record, lambda: read(index))

        def shuffle(number, window):
            index, records = window
            order = tf.random.experimental.stateless_shuffle(
                tf.range(tf.size(index)), tf.stack([seed, number])
            )
            return tf.gather(index, order), tf.gather(records, order)

        # Not `Dataset.shuffle`: its order also depends on the global seed.
        return (
            tf.data.Dataset.range(count)
            .interleave(records_of, CYCLE, num_parallel_calls=CYCLE, deterministic=True)
            .batch(WINDOW)
            .enumerate()
            .map(shuffle)
            .prefetch(1)
            .unbatch()
        )


def parse_or_nothing(example, parse):
    """`parse(example)`, or what it makes of an empty one where that raises; graph code.

    Args:
        example: () string, a record whose checksum fits, which says nothing of what
            is in it.
        parse: From () string to tensors, without state; takes an empty string.

    Returns:
        As `parse`.
    """
    import tensorflow as tf

    one = tf.data.Dataset.range(1)
    parsed = one.map(lambda _: parse(example))
    nothing = one.map(lambda _: parse(tf.constant(b"")))
    return _first(parsed, nothing)


def _first(attempt, otherwise):
    """The element of `attempt`, a data set; that of `otherwise` where it raises."""
    records = attempt.ignore_errors().concatenate(otherwise).take(1)
    return records.get_single_element()


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
