"""Class balance by drawing rare classes more often."""

from __future__ import annotations

import dataclasses

import numpy as np

from visionkit.data.sources.base import Record, Source


class Oversampled(Source):
    """Another source with the records of rare classes repeated, for training.

    With one label per image every class that has a record gets exactly as many as the
    largest: all of its records as often as it goes, and some of them, drawn by `seed`,
    once more. With many labels an image is repeated as the rarest of its classes asks,
    as in repeat factor sampling (Gupta et al. 2019, section 3), so that counts come
    closer, but not all the way. Each repetition draws its own augmentation.

    Unreadable records are counted and reported once: reports are about `origin`, the
    source whose records are repeated, and "image_id" is an index of it.

    Args:
        source: Classification; also a `Subset`.
        seed: Decides which records are repeated once more.

    Attributes:
        indices: (len,) int64, the record of `source` for each index, ascending.

    Raises:
        ValueError: The source has no labels, or no record.
    """

    def __init__(self, source: Source, seed: int = 0):
        if source.info.task != "classification" or not len(source):
            raise ValueError(
                "Oversampling balances the classes of a classification source with at "
                f"least one record. Received: task={source.info.task!r}, "
                f"{len(source)} records"
            )
        self.source = source
        repeats = _repeats(source, np.random.default_rng(seed))
        self.indices = np.repeat(np.arange(len(source)), repeats)
        self.skipped = source.skipped
        self.info = dataclasses.replace(source.info, num_examples=len(self.indices))

    @property
    def origin(self) -> Source:
        """The source whose records are repeated."""
        return self.source

    def record(self, index: int) -> Record:
        """The record at `index`, one of its repetitions."""
        return self.source.record(int(self.indices[index]))

    def record_name(self, index: int) -> str:
        """The name that the whole source gives the record."""
        return self.source.record_name(int(self.indices[index]))

    def labels(self) -> np.ndarray:
        """The source's labels, repeated."""
        return self.source.labels()[self.indices]

    def origin_indices(self) -> np.ndarray:
        """(len,) int64, the record of `source` for each index."""
        return self.indices

    def reader(self):
        """As `Source.reader`; with "origin" () int64, the index in `source`."""
        import tensorflow as tf

        read = self.source.reader()
        with tf.init_scope():
            indices = tf.constant(self.indices)
        return lambda index: {"origin": indices[index], **read(indices[index])}


def _repeats(source: Source, rng: np.random.Generator) -> np.ndarray:
    """(len,) int64, how often each record is there."""
    labels, counts = source.labels(), source.class_counts()
    most = counts.max(initial=1)
    share = most / np.maximum(counts, 1)
    if source.info.multi_label:
        share = np.where(labels > 0, share, 1.0).max(axis=1, initial=1.0)
        whole = np.floor(share).astype(np.int64)
        return whole + (rng.random(len(share)) < share - whole)
    repeats = (most // np.maximum(counts, 1))[labels]
    for label in np.flatnonzero(counts):
        members = np.flatnonzero(labels == label)
        extra = rng.permutation(members)[: most % counts[label]]
        repeats[extra] += 1
    return repeats
