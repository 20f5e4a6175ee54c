"""Data sets prepared by TensorFlow Datasets, read without it running anything."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from visionkit._spelling import check_name
from visionkit.data.fingerprints import parallel_map
from visionkit.data.image_header import BadImage
from visionkit.data.mask_codes import MaskCode
from visionkit.data.sources.base import Record, Source, SourceInfo, multi_hot
from visionkit.data.sources.mask_classes import read_mask_classes, values_in
from visionkit.data.sources.ragged import join_rows
from visionkit.data.sources.record_files import parse_or_nothing
from visionkit.data.sources.tfds_boxes import choose_boxes, find_boxes
from visionkit.data.sources.tfds_files import choose, find_builder, index_files
from visionkit.types import BOX_TASKS, TASKS


class Tfds(Source):
    """A set that TensorFlow Datasets has prepared: classes, boxes or masks.

    Nothing is downloaded or prepared, and no code of the set runs: its files and what
    they say of themselves are enough. Images travel encoded, as they are stored. The
    objects are the sequence of features that has boxes, shares of the upright image.
    Their masks, for instance segmentation, are an image of the whole picture for each,
    called a segmentation or mask: `lvis` and `ref_coco` have them. The `coco` of
    TensorFlow Datasets has none; take its own files, as `coco`.

    Args:
        name: As for `tfds.builder`: "mnist", "cifar10:3.0.2", "set/config"; None with
            `root`.
        data_dir: Where prepared sets lie; default TFDS' own, `~/tensorflow_datasets`
            or the environment's `TFDS_DATA_DIR`.
        split: As for `tfds.load`: "train", "train[:80%]", "train+test".
        root: The folder of one prepared version, with `dataset_info.json`, in place of
            `name`.
        image_key: The feature with the image; default the only one of its kind.
        label_key: The feature with the class, or the list of classes for multi-label;
            default the only one of its kind. For semantic segmentation the image
            with the mask; default the only one called a mask, segmentation or
            annotation. Not for boxes.
        task: One of `visionkit.types.TASKS`; default detection where there are boxes,
            else classification.
        classes: What the values of masks mean, as for `MaskFolder`; default the names
            that the feature has. Only for semantic segmentation.
        void: As for `MaskFolder`.

    Raises:
        FileNotFoundError: Not prepared; says the command that does it.
        ValueError: No such split, not a set for the task, or another file format than
            TFRecord.
    """

    box_format = "yxyx"

    def __init__(
        self,
        name: str | None = None,
        data_dir: str | os.PathLike | None = None,
        split: str = "train",
        root: str | os.PathLike | None = None,
        image_key: str | None = None,
        label_key: str | None = None,
        task: str | None = None,
        classes: Sequence[str] | Mapping | str | os.PathLike | None = None,
        void: int | str | Sequence | None = None,
    ):
        builder = find_builder(name, data_dir, root)
        info = builder.info
        boxes = find_boxes(info)
        task = task or ("detection" if boxes else "classification")
        check_name("task of tfds", task, TASKS)
        self._label = self._boxes = self._mask = self._code = self._labels = None
        self._files = index_files(builder, split)
        many = False
        if task == "semantic_segmentation":
            self._mask = choose(info, "label_key", label_key, "mask")
            self._image = choose(info, "image_key", image_key, without=self._mask)
            classes = classes or getattr(info.features[self._mask], "names", None)
            names, self._code = read_mask_classes(classes, void, Path(), self._values)
        else:
            self._image = choose(info, "image_key", image_key)
        if task == "classification":
            self._label = choose(info, "label_key", label_key)
            feature = info.features[self._label]
            many = hasattr(feature, "feature")  # a sequence of classes
            names = (feature.feature if many else feature).names
        elif task in BOX_TASKS:
            self._boxes = choose_boxes(info, boxes, task)
            names = self._boxes.class_names
        self.skipped = []
        self.info = SourceInfo(
            task,
            tuple(names),
            len(self._files),
            split if split in ("train", "validation", "test") else "all",
            "tfds",
            multi_label=many,
        )
        self._name = f"{info.full_name}/{split}"

    def record(self, index: int) -> Record:
        """The encoded image and its truth, one read at its place in its file.

        Raises:
            BadImage: By the rule "record.damaged".
        """
        return self._record(self._files.read(index))

    def check_record(self, index: int) -> None:
        """As `Source.check_record`."""
        self._files.check(index)

    def _record(self, serialized: bytes) -> Record:
        import tensorflow as tf
        from google.protobuf.message import DecodeError

        try:
            return self._parts(tf.train.Example.FromString(serialized))
        except (DecodeError, IndexError) as error:
            detail = f"no example with the features of {self._name}: {error}"
            raise BadImage("record.damaged", detail) from error

    def _parts(self, example) -> Record:
        features = example.features.feature
        encoded = features[self._image].bytes_list.value[0]
        if self._boxes:
            return {"encoded": encoded, **self._boxes.record(example, encoded)}
        if self._mask:
            mask = features[self._mask].bytes_list.value[0]
            return {"encoded": encoded, "mask_encoded": mask}
        label = list(features[self._label].int64_list.value)
        if self.info.multi_label:
            label = [multi_hot(label, self.info.num_classes)]
        return {"encoded": encoded, "label": label[0]}

    @property
    def mask_code(self) -> MaskCode:
        """What the values in the masks mean."""
        return self._code or super().mask_code

    def _values(self) -> set[int]:
        """The values in some of the masks."""
        return values_in(
            len(self._files), lambda index: self._record(self._files.read(index))
        )

    def objects(self) -> dict[str, np.ndarray]:
        """All objects, of one pass over the files."""
        if not self._boxes:
            return {}
        records: list[Record] = []
        for _, examples in self._files.dataset().batch(1024).as_numpy_iterator():
            records += parallel_map(self._objects_of, examples.tolist())
        return join_rows(records)

    def _objects_of(self, serialized: bytes) -> Record:
        """The objects alone; none where the record cannot be read."""
        import tensorflow as tf

        try:
            record = self._record(serialized)
        except BadImage:  # the pipeline and the doctor report it
            record = {"encoded": b"", **self._boxes.record(tf.train.Example(), b"")}
        del record["encoded"]  # the images are not kept
        return record

    def record_name(self, index: int) -> str:
        """Set, version, split and index."""
        return f"{self._name}[{index}]"

    def labels(self) -> np.ndarray | None:
        """As `Source.labels`; the first call reads all files."""
        if not self._label:
            return None
        if self._labels is None:
            dataset = self._files.dataset().batch(1024)
            labels = dataset.map(lambda _, examples: self._parse_labels(examples))
            self._labels = np.concatenate(list(labels.as_numpy_iterator()))
        return self._labels.copy()

    def raw_dataset(self, seed=None):
        """One pass over all records; see `RecordFiles.dataset` for the order."""
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
        return parse_or_nothing(example, self._parse_example)

    def _parse_example(self, example):
        import tensorflow as tf

        keys = filter(None, (self._image, self._mask))
        spec = {key: tf.io.FixedLenFeature([], tf.string, b"") for key in keys}
        found = tf.io.parse_single_example(example, spec)
        encoded = found[self._image]
        if self._mask:
            return {"encoded": encoded, "mask_encoded": found[self._mask]}
        if self._boxes:
            return {"encoded": encoded, **self._boxes.parse(example, encoded)}
        label = self._parse_labels(example[None])[0]
        # Without a label it is no example: without an image it is left out.
        sound = tf.reduce_all(label >= 0)
        return {"encoded": tf.where(sound, encoded, b""), "label": label}

    def _parse_labels(self, examples):
        """(N,) int32 or (N, num_classes) float32 of N serialized examples."""
        import tensorflow as tf

        if not self.info.multi_label:
            spec = {self._label: tf.io.FixedLenFeature([], tf.int64, -1)}
            return tf.cast(tf.io.parse_example(examples, spec)[self._label], tf.int32)
        spec = {self._label: tf.io.RaggedFeature(tf.int64)}
        labels = tf.io.parse_example(examples, spec)[self._label]
        marks = tf.one_hot(labels.values, self.info.num_classes)
        sums = tf.math.segment_sum(marks, labels.value_rowids())
        missing = tf.shape(examples)[0] - tf.shape(sums)[0]
        return tf.minimum(tf.pad(sums, [[0, missing], [0, 0]]), 1.0)
