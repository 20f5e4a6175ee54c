"""What TensorFlow Datasets has prepared: its description, and its files."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from visionkit._spelling import check_name
from visionkit.data.sources.record_files import (
    FRAMING,
    RecordFile,
    RecordFiles,
    scan_lengths,
)


def find_builder(name, data_dir, root):
    """A builder that knows the prepared files, made from them alone.

    Args:
        name: As for `Tfds`.
        data_dir: As for `Tfds`.
        root: As for `Tfds`.

    Raises:
        FileNotFoundError: Not prepared.
        ValueError: Both or neither of `name` and `root`, or damaged files.
    """
    import tensorflow_datasets as tfds
    from google.protobuf.json_format import ParseError
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
        try:
            return tfds.builder_from_directory(root)
        except (ParseError, RecursionError, TypeError, ValueError) as error:
            raise ValueError(
                f"dataset_info.json or features.json in {str(root)!r} is damaged: "
                f"{error}. Prepare the set again."
            ) from error
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


def choose(
    info, option: str, given: str | None, kind: str = "", without: str | None = None
) -> str:
    """The name of the feature with the image (`image_key`) or the truth (`label_key`).

    Args:
        info: Of the set.
        option: The one or the other.
        given: What the option says.
        kind: "mask" where the truth is an image, too.
        without: A feature that it is not.

    Raises:
        ValueError: The set has no such feature, or several and none is given.
    """
    import tensorflow_datasets as tfds

    def fits(key: str, feature) -> bool:
        if kind == "mask":
            words = ("segmentation", "mask", "annotation")
            named = key == given or any(word in key for word in words)
            return named and isinstance(feature, tfds.features.Image)
        if option == "image_key":
            return key != without and isinstance(feature, tfds.features.Image)
        label = tfds.features.ClassLabel
        return isinstance(feature, label) or isinstance(_inner(feature), label)

    known = [key for key, feature in info.features.items() if fits(key, feature)]
    if given is not None:
        check_name(option, given, known)
        return given
    if len(known) != 1:
        what = "semantic segmentation" if kind == "mask" else "classification"
        raise ValueError(
            f"{info.full_name} has {len(known)} features that could be `{option}`: "
            f"{known}. {'Name one.' if known else f'It is no {what} set.'} "
            f"Features: {', '.join(info.features)}."
        )
    return known[0]


def _inner(feature):
    """What a sequence is made of."""
    return getattr(feature, "feature", None)


def index_files(builder, split: str) -> RecordFiles:
    """Where each record of a split is.

    Args:
        builder: As of `find_builder`.
        split: As for `Tfds`.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: No such split, another file format, or a file that is cut off.
    """
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
        if os.path.dirname(os.path.abspath(path)) != os.path.abspath(builder.data_dir):
            raise ValueError(
                f"dataset_info.json in {builder.data_dir} names the file {path}. "
                "Expected files in its own folder."
            )
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
