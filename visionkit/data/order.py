"""Which record is read when: a pure function of the seed and the position.

Training reads an endless stream, one permutation of all usable records after another.
Permutation number `epoch` depends on (seed, epoch), a record's random transforms on
(seed, epoch, index). Batches are cut from the stream as it comes, so nothing is dropped
at the end of an epoch, and any position can be gone to directly. Of several processes
each takes its own rows of the same batches.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import tensorflow as tf

from visionkit.data.report import DataReport
from visionkit.data.sources.base import Source


@dataclasses.dataclass(frozen=True)
class Order:
    """A random order of training, and where in it to begin.

    Args:
        seed: Of the shuffle and of every transform.
        start_epoch: Epochs that are done.
        start_step: Steps of the epoch `start_epoch` that are done.
        epochs: Of the whole training; only `off_last_epochs` of a transform needs it.
        share: Which rows of each batch to read, of `shares` equal ones, from 0.
        shares: Processes that read the same batches together.

    Raises:
        ValueError: There is no such share.
    """

    seed: int
    start_epoch: int = 0
    start_step: int = 0
    epochs: int | None = None
    share: int = 0
    shares: int = 1

    def __post_init__(self):
        if not 0 <= self.share < self.shares:
            raise ValueError(
                "`share` must be at least 0 and less than `shares`. Received: "
                f"share={self.share}, shares={self.shares}"
            )

    def rows(self, batch_size: int) -> int:
        """Rows of a batch that are read here.

        Args:
            batch_size: Records per step, of all shares together.

        Raises:
            ValueError: They cannot be divided equally.
        """
        if batch_size % self.shares:
            raise ValueError(
                "`batch_size` must be a multiple of `shares`. Received: "
                f"batch_size={batch_size}, shares={self.shares}"
            )
        return batch_size // self.shares


def steps_per_epoch(source: Source, batch_size: int) -> int:
    """Whole batches in the source, at least 1 (fewer records repeat in the batch).

    A constant of the run: records found unreadable later do not change it.
    """
    return max(1, len(source) // batch_size)


def training_records(source: Source, order: Order, batch_size: int, bad=()):
    """The endless stream of records, from the place that `order` names.

    Args:
        source: Where the records are.
        order: Seed and place.
        batch_size: Records per step, of all shares together.
        bad: Indices in `source.origin` known to be unreadable. They are left out
            before positions are counted, so a resumed stream goes on as the first run
            would have.

    Returns:
        A `tf.data.Dataset` of `Source.raw_dataset`'s dicts with "seed" (2,) int64; of
        each step only the rows of the order's share.

    Raises:
        ValueError: No record is usable, or a batch cannot be divided among the shares.
    """
    rows = order.rows(batch_size)
    usable = len(source) - int(np.isin(source.origin_indices(), bad).sum())
    if usable < 1:
        raise ValueError(
            "Training needs at least one readable record. Received: a source of "
            f"{len(source)} records, {len(source) - usable} of them unreadable"
        )
    step = order.start_epoch * steps_per_epoch(source, batch_size) + order.start_step
    first, done = divmod(step * batch_size, usable)

    def one_pass(epoch):
        seed = tf.random.fold_in(tf.constant([order.seed, 0], tf.int64), epoch)
        shuffle = tf.random.stateless_uniform([], seed, None, None, tf.int64)

        def with_seed(record):
            return {**record, "seed": tf.random.fold_in(seed, record["index"])}

        return without(source.raw_dataset(seed=shuffle), bad).map(with_seed)

    epochs = tf.data.Dataset.range(first, np.iinfo(np.int64).max)
    records = epochs.flat_map(one_pass).skip(done)
    if order.shares == 1:
        return records
    # A step is `shares` groups of `rows` records; here, before anything is decoded, the
    # other processes' groups are left out.
    own = records.enumerate().filter(
        lambda place, _: place // rows % order.shares == order.share
    )
    return own.map(lambda _, record: record)


def evaluation_records(source: Source, bad=()):
    """Each record once, in the source's order, as `training_records` gives them."""
    seed = tf.zeros(2, tf.int64)  # evaluation draws nothing
    return without(source.raw_dataset(), bad).map(lambda r: {**r, "seed": seed})


def without(records, bad):
    """The data set `records` without those of which the origin is in `bad`."""
    if not bad:
        return records
    bad = tf.constant(sorted(bad), tf.int64)
    return records.filter(lambda record: tf.reduce_all(origin_of(record) != bad))


def origin_of(record):
    """() int64, the record's index in the source that is reported on."""
    return record.get("origin", record["index"])


def batch_names(
    source: Source,
    order: Order,
    step: int,
    epoch: int,
    batch_size: int,
    report: DataReport | None = None,
) -> list[str]:
    """The names of the records in one training batch; nothing is decoded.

    Args:
        source: As in training.
        order: As in training; only its seed matters.
        step: Of the epoch, from 0.
        epoch: From 0.
        batch_size: As in training.
        report: The run's, for the records that were unreadable.

    Returns:
        `batch_size` names, in the batch's order.
    """
    bad = report.bad_indices if report else ()
    place = Order(order.seed, epoch, step)
    records = training_records(source, place, batch_size, bad).take(batch_size)
    return [source.record_name(int(record["index"])) for record in records]
