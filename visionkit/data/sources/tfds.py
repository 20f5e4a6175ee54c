"""Data sets prepared by TensorFlow Datasets, read without it running anything."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from visionkit._spelling import check_name
from visionkit.data.sources.base import Record, Source, SourceInfo, multi_hot
from visionkit.data.sources.record_files import (
    FRAMING,
    RecordFile,
    RecordFiles,
    scan_lengths,
)


class Tfds(Source):
    """A classification set that TensorFlow Datasets has prepared on this machine.

    Nothing is downloaded or prepared, and no code of the set runs: its files and what
    they say of themselves are enough. Images travel encoded, as they are stored.

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
            default the only one of its kind.

    Raises:
        FileNotFoundError: Not prepared; says the command that does it.
        ValueError: No such split, no classification set, or another file format than
            TFRecord.
    """

    def __init__(
        self,
        name: str | None = None,
        data_dir: str | os.PathLike | None = None,
        split: str = "train",
        root: str | os.PathLike | None = None,
        image_key: str | None = None,
        label_key: str | None = None,
    ):
        builder = _find_builder(name, data_dir, root)
        info = builder.info
        self._image, self._label = _choose_features(info, image_key, label_key)
        self._files = _index_files(builder, split)
        self.skipped = []
        feature = info.features[self._label]
        many = hasattr(feature, "feature")  # a sequence of classes
        names = (feature.feature if many else feature).names
        self.info = SourceInfo(
            "classification",
            tuple(names),
            len(self._files),
            split if split in ("train", "validation", "test") else "all",
            "tfds",
            multi_label=many,
        )
        self._name = f"{info.full_name}/{split}"
        self._labels: np.ndarray | None = None

    def record(self, index: int) -> Record:
        """The encoded image and the label, one read at its place in its file."""
        import tensorflow as tf

        example = tf.train.Example.FromString(self._files.read(index))
        features = example.features.feature
        label = list(features[self._label].int64_list.value)
        many = self.info.multi_label
        return {
            "encoded": features[self._image].bytes_list.value[0],
            "label": multi_hot(label, self.info.num_classes) if many else label[0],
        }

    def record_name(self, index: int) -> str:
        """Set, version, split and index."""
        return f"{self._name}[{index}]"

    def labels(self) -> np.ndarray:
        """As `Source.labels`; the first call reads all files."""
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
        import tensorflow as tf

        spec = {self._image: tf.io.FixedLenFeature([], tf.string)}
        encoded = tf.io.parse_single_example(example, spec)[self._image]
        return {"encoded": encoded, "label": self._parse_labels(example[None])[0]}

    def _parse_labels(self, examples):
        """(N,) int32 or (N, num_classes) float32 of N serialized examples."""
        import tensorflow as tf

        if not self.info.multi_label:
            spec = {self._label: tf.io.FixedLenFeature([], tf.int64)}
            return tf.cast(tf.io.parse_example(examples, spec)[self._label], tf.int32)
        spec = {self._label: tf.io.RaggedFeature(tf.int64)}
        labels = tf.io.parse_example(examples, spec)[self._label]
        marks = tf.one_hot(labels.values, self.info.num_classes)
        sums = tf.math.segment_sum(marks, labels.value_rowids())
        missing = tf.shape(examples)[0] - tf.shape(sums)[0]
        return tf.minimum(tf.pad(sums, [[0, missing], [0, 0]]), 1.0)


def _find_builder(name, data_dir, root):
    """A builder that knows the prepared files, made from them alone."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.read_only_builder import builder_from_files

    if (name is None) == (root is None):
        raise ValueError(
            "Give either `name` (with `data_dir`) or `root`, the folder of a prepared "
            f"version. Received: name={name!r}, root={root!r}"
        )
    if root is not None:
        if not (Path(root) / "dataset_info.json").is_file():
            raise FileNotFoundError(
                f"No dataset_info.json in {str(root)!r}. Expected the folder of one "
                "prepared version, such as mnist/3.0.1."
            )
        return tfds.builder_from_directory(root)
    where = {} if data_dir is None else {"data_dir": os.fspath(data_dir)}
    try:
        return builder_from_files(name, **where)
    except tfds.core.registered.DatasetNotFoundError:
        folder = "" if data_dir is None else f" --data_dir={os.fspath(data_dir)}"
        option = "" if data_dir is None else f", data_dir={os.fspath(data_dir)!r}"
        raise FileNotFoundError(
            f"{name!r} is not prepared in {data_dir or 'the default folder of TFDS'}, "
            "and visionkit downloads nothing. Prepare it once with\n"
            f"  tfds build {name}{folder}\nor\n"
            f'  python -c "import tensorflow_datasets as tfds; '
            f'tfds.builder({name!r}{option}).download_and_prepare()"'
        ) from None


def _choose_features(info, image: str | None, label: str | None) -> tuple[str, str]:
    """Names of the features with the image and with the class or classes."""
    import tensorflow_datasets as tfds

    features = info.features

    def is_label(feature):
        feature = getattr(feature, "feature", feature)  # a sequence of them
        return isinstance(feature, tfds.features.ClassLabel)

    images = [key for key, f in features.items() if isinstance(f, tfds.features.Image)]
    labels = [key for key, f in features.items() if is_label(f)]
    chosen = []
    for option, given, known in (
        ("image_key", image, images),
        ("label_key", label, labels),
    ):
        if given is not None:
            check_name(option, given, known)
        elif len(known) != 1:
            raise ValueError(
                f"{info.full_name} has {len(known)} features that could be `{option}`: "
                f"{known}. {'Name one.' if known else 'It is no classification set.'} "
                f"Features: {', '.join(features)}."
            )
        chosen.append(given or known[0])
    return chosen[0], chosen[1]


def _index_files(builder, split: str) -> RecordFiles:
    """Where each record of a split is."""
    info = builder.info
    file_format = info.file_format.value if info.file_format else "tfrecord"
    if file_format != "tfrecord":
        raise ValueError(
            f"{info.full_name} is stored as {file_format!r}. Expected 'tfrecord': "
            f"prepare it with `tfds build {info.name} --file_format=tfrecord`."
        )
    try:
        instructions = info.splits[split].file_instructions
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"{info.full_name} has no split {split!r}. Found: "
            f"{', '.join(info.splits)}; and slices such as 'train[:80%]'."
        ) from error
    files, start = [], 0
    for part in instructions:
        path = os.fspath(part.filename)
        if not os.path.isfile(path):
            raise FileNotFoundError(f"{path} is missing. Prepare {info.name} again.")
        lengths = np.fromiter(scan_lengths(path), np.int64)
        if len(lengths) != part.examples_in_shard:
            raise ValueError(
                f"{path} has {len(lengths)} records; its dataset_info.json says "
                f"{part.examples_in_shard}. Prepare {info.name} again."
            )
        offsets = np.cumsum(lengths + FRAMING) - lengths - FRAMING
        here = slice(part.skip, part.skip + part.take)
        stop = start + part.take
        files.append(
            RecordFile(
                path,
                os.path.getsize(path),
                offsets[here],
                lengths[here],
                np.arange(start, stop),
                part.skip,
            )
        )
        start = stop
    return RecordFiles(files)
