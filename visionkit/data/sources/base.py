"""What every data source offers, and what follows from it for free."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from visionkit.data.mask_codes import MaskCode, encoded_mask
from visionkit.data.sources.info import Skip, SourceInfo
from visionkit.data.sources.ragged import RAGGED_COLUMNS, join_rows, select_rows
from visionkit.data.sources.record import SCALAR_COLUMNS, Record


class Source:
    """A data set as records by index. Subclasses set `info` and write `record`.

    Attributes:
        info: A `SourceInfo`.
        skipped: Files that the listing left out, as `Skip`s; they are not records.
        remarks: What the listing noticed beside, as `Skip`s: objects left out, images
            without a file of labels...
        box_format: How the files write a box, a key of `check_formats.FORMATS`.
    """

    info: SourceInfo
    skipped: list[Skip]
    remarks: Sequence[Skip] = ()
    box_format: str = "xyxy"
    _mask_counts: np.ndarray | None = None

    @property
    def origin(self) -> Source:
        """The source whose records are counted and reported; most often itself."""
        return self

    def origin_indices(self) -> np.ndarray:
        """(len,) int64, the index in `origin` of each record."""
        return np.arange(len(self))

    def __len__(self) -> int:
        return self.info.num_examples

    def record(self, index: int) -> Record:
        """The record at `index`, 0 <= index < len(self).

        Raises:
            BadImage: It cannot be read; only of a source whose records hold images.
        """
        raise NotImplementedError(f"{type(self).__name__} must define `record(index)`.")

    def record_name(self, index: int) -> str:
        """What a message calls the record: its path, or `name[index]`."""
        record = self.record(index)
        if "path" in record:
            import os

            return os.fsdecode(record["path"])
        return f"{self.info.name}[{index}]"

    def check_record(self, index: int) -> None:
        """Compares a record with its checksum, where the format has one.

        Raises:
            BadImage: By the rule "record.damaged": they do not fit.
        """

    def labels(self) -> np.ndarray | None:
        """The label of each record for classification, else None.

        Returns:
            (len,) int32; (len, num_classes) float32 of 0 and 1 where `multi_label`.
        """
        if self.info.task != "classification":
            return None
        labels = [self.record(i)["label"] for i in range(len(self))]
        if self.info.multi_label:
            return np.array(labels, np.float32).reshape(-1, self.info.num_classes)
        return np.array(labels, np.int32)

    @property
    def mask_code(self) -> MaskCode:
        """What the values in the files of the masks mean; here the ids of classes."""
        return MaskCode.of_ids(self.info.num_classes)

    def mask(self, index: int) -> np.ndarray:
        """The true classes of a record's pixels, for semantic segmentation.

        Returns:
            (H, W) uint8 class ids in the upright image's frame, 255 = void.

        Raises:
            BadImage: The mask cannot be read, or has a value that no class has.
        """
        return self.mask_code.decode(encoded_mask(self.record(index)))

    def mask_counts(self) -> np.ndarray:
        """The pixels of each class in each record, for semantic segmentation.

        The first call reads all masks, with a progress bar on a terminal.

        Returns:
            (len, num_classes + 1) int64, the void ones last; zeros where the mask
            cannot be read.
        """
        if self._mask_counts is None:
            from visionkit.data.sources.mask_counts import count_masks

            self._mask_counts = count_masks(self)
        return self._mask_counts.copy()

    def class_counts(self) -> np.ndarray | None:
        """What there is of each class: records, boxes, or pixels of masks.

        Returns:
            (num_classes,) int64; None where the source has none of these.
        """
        if self.info.task == "semantic_segmentation":
            return self.mask_counts()[:, :-1].sum(axis=0)
        labels = self.labels()
        if labels is None:
            labels = self.objects().get("box_labels")
        return None if labels is None else count_classes(labels, self.info.num_classes)

    def columns(self) -> dict[str, np.ndarray]:
        """All records as columns.

        Scalar columns are (len,) arrays, `label` as from `labels`. A ragged column `x`
        is `x`, its rows of all records one after another. Boxes and what lies beside
        them share `row_splits` (len + 1,) int64; proposals have `proposal_splits`.
        """
        records = [self.record(i) for i in range(len(self))]
        columns: dict[str, np.ndarray] = {}
        if not records:
            return columns
        for key in SCALAR_COLUMNS:
            if key in records[0]:
                dtype = object
                if key == "label":
                    dtype = np.float32 if self.info.multi_label else np.int32
                columns[key] = np.array([r[key] for r in records], dtype)
        return columns | join_rows(records)

    def objects(self) -> dict[str, np.ndarray]:
        """The ragged ones of `columns`, without what the images are.

        What an evaluator and the dataset doctor read; a source of encoded images in
        large files gives it without holding the images.
        """
        columns = self.columns()
        splits = set(RAGGED_COLUMNS.values())
        return {k: v for k, v in columns.items() if k in RAGGED_COLUMNS or k in splits}

    def image_sizes(self) -> np.ndarray | None:
        """(len, 2) int32, the (height, width) that the annotations give the images.

        0 where they give none; None where the format has no place for it.
        """
        return None

    def raw_dataset(self, seed=None):
        """One pass over all records, encoded bytes still unread or undecoded.

        Args:
            seed: () int64, Python or tensor (it may be traced); the pass is shuffled
                by it alone. None keeps the source's order.

        Returns:
            A `tf.data.Dataset` of dicts: "index" () int64 and the record's keys as
            tensors: scalars as (), ragged columns as (N, ...), a `label` of many as
            (K,) float32. With "origin" () int64 where `origin` is another source.
        """
        import tensorflow as tf

        n, read = len(self), self.reader()

        def at(position):
            index = position
            if seed is not None:
                # A permutation by arithmetic: no buffer, and any position is O(1).
                pair = tf.stack([tf.cast(seed, tf.int64), tf.constant(n, tf.int64)])
                index = tf.random.experimental.index_shuffle(position, pair, n - 1)
            return {"index": index, **read(index)}

        return tf.data.Dataset.range(n).map(at, tf.data.AUTOTUNE, deterministic=True)

    def reader(self):
        """A function from an index () int64 to the record as tensors; graph code.

        This one holds all `columns` in memory; a source of encoded images in large
        files has its own.
        """
        import tensorflow as tf

        with tf.init_scope():  # tensors beside the graph, not constants within it
            columns = {
                key: tf.constant(value.tolist(), tf.string)
                if value.dtype == object
                else tf.constant(value)
                for key, value in self.columns().items()
            }
        return lambda index: gather_columns(columns, index)


def count_classes(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """(num_classes,) int64, how often each class is in `Source.labels()`.

    A label of -1 is of a record that cannot be read.
    """
    if labels.ndim == 2:
        return (labels > 0).sum(axis=0)
    return np.bincount(labels[labels >= 0], minlength=num_classes)


def multi_hot(classes: list[int], num_classes: int) -> np.ndarray:
    """(num_classes,) float32, 1 at `classes` and 0 elsewhere."""
    label = np.zeros(num_classes, np.float32)
    label[classes] = 1
    return label


def gather_columns(columns, index):
    """The record at `index` () int64 out of `columns` of tensors; graph code."""
    import tensorflow as tf

    record = {}
    for key, value in columns.items():
        if key in SCALAR_COLUMNS:
            record[key] = tf.gather(value, index)
        elif key in RAGGED_COLUMNS:
            splits = columns[RAGGED_COLUMNS[key]]
            record[key] = value[splits[index] : splits[index + 1]]
    return record


class Subset(Source):
    """Some records of another source, by index, in the order given."""

    def __init__(self, source: Source, indices, split: str):
        self.source = source
        self.indices = np.asarray(indices, np.int64)
        self.skipped = []
        self.box_format = source.box_format
        self.info = dataclasses.replace(
            source.info, num_examples=len(self.indices), split=split
        )

    def record(self, index: int) -> Record:
        """The record at `index` of the subset."""
        return self.source.record(int(self.indices[index]))

    def record_name(self, index: int) -> str:
        """The name that the whole source gives the record."""
        return self.source.record_name(int(self.indices[index]))

    def check_record(self, index: int) -> None:
        """The whole source's, at the index."""
        self.source.check_record(int(self.indices[index]))

    def labels(self) -> np.ndarray | None:
        """The whole source's labels, at the indices."""
        labels = self.source.labels()
        return None if labels is None else labels[self.indices]

    @property
    def mask_code(self) -> MaskCode:
        """The whole source's."""
        return self.source.mask_code

    def mask(self, index: int) -> np.ndarray:
        """The whole source's, at the index."""
        return self.source.mask(int(self.indices[index]))

    def mask_counts(self) -> np.ndarray:
        """As `Source.mask_counts`; only these are read, unless all were already."""
        whole = self.source._mask_counts
        return super().mask_counts() if whole is None else whole[self.indices]

    def objects(self) -> dict[str, np.ndarray]:
        """The whole source's, at the indices."""
        return select_rows(self.source.objects(), self.indices)

    def image_sizes(self) -> np.ndarray | None:
        """The whole source's, at the indices."""
        sizes = self.source.image_sizes()
        return None if sizes is None else sizes[self.indices]

    def reader(self):
        """The whole source's, at the indices."""
        import tensorflow as tf

        read = self.source.reader()
        with tf.init_scope():
            indices = tf.constant(self.indices)
        return lambda index: read(indices[index])
