"""The `index.json` beside the shards of a `records` data set."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from visionkit._spelling import check_name
from visionkit.data.sources.base import Skip, SourceInfo
from visionkit.data.sources.record_files import FRAMING
from visionkit.data.sources.record_format import FEATURES
from visionkit.types import TASKS

INDEX_NAME = "index.json"
FORMAT = "visionkit.records/1"


@dataclasses.dataclass(frozen=True)
class Shard:
    """One TFRecord file.

    Attributes:
        name: File name.
        bytes: Size of the file.
        sha256: Of the file, hexadecimal.
        lengths: Bytes of each record without its framing, in the order of the file.
        indices: The index of each record in the data set.
    """

    name: str
    bytes: int
    sha256: str
    lengths: list[int]
    indices: list[int]

    def places(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(offset of its framing, length, index) of each record, in file order."""
        lengths = np.array(self.lengths, np.int64)
        offsets = np.cumsum(lengths + FRAMING) - lengths - FRAMING
        return offsets, lengths, np.array(self.indices, np.int64)


@dataclasses.dataclass(frozen=True)
class RecordIndex:
    """Everything about a `records` data set but the records.

    Attributes:
        info: Of the source that was written.
        keys: The keys of its records (`path` is stored as `encoded`).
        shards: The files.
        labels: The class of each record by index, for classification; a list of
            classes where there may be many.
        skipped: What could not be read when the records were written.
    """

    info: SourceInfo
    keys: tuple[str, ...]
    shards: tuple[Shard, ...]
    labels: list | None = None
    skipped: tuple[Skip, ...] = ()

    def save(self, folder: Path) -> None:
        """Writes `index.json`; names that are not UTF-8 become `\\udc..` escapes."""
        with open(folder / INDEX_NAME, "w", encoding="ascii") as file:
            json.dump({"format": FORMAT, **dataclasses.asdict(self)}, file)
            file.flush()
            os.fsync(file.fileno())

    @classmethod
    def load(cls, folder: Path) -> RecordIndex:
        """Reads `index.json` and compares the shards' sizes with it.

        Raises:
            FileNotFoundError: No index, or a shard is missing.
            ValueError: The index is damaged, or a shard has another size.
        """
        path = folder / INDEX_NAME
        if not path.is_file():
            raise FileNotFoundError(_no_index(folder))
        try:
            raw: dict[str, Any] = json.loads(path.read_bytes())
            if raw["format"] != FORMAT:
                raise ValueError(f"its format is {raw['format']!r}, not {FORMAT!r}")
            info = raw["info"] | {"class_names": tuple(raw["info"]["class_names"])}
            index = cls(
                info=SourceInfo(**info),
                keys=tuple(raw["keys"]),
                shards=tuple(Shard(**shard) for shard in raw["shards"]),
                labels=raw["labels"],
                skipped=tuple(Skip(**skip) for skip in raw["skipped"]),
            )
            index.check()
        except (
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
            OverflowError,
            RecursionError,
        ) as error:
            raise ValueError(
                f"{path} is damaged: {error}. Write the records again."
            ) from error
        for shard in index.shards:
            _check_shard(folder, shard)
        return index

    def check(self) -> None:
        """Refuses an index whose parts do not fit together.

        Raises:
            ValueError: Names the part.
        """
        check_name("task", self.info.task, TASKS)
        for key in self.keys:
            check_name("key of records", key, FEATURES)
        for shard in self.shards:
            if not isinstance(shard.name, str) or Path(shard.name).name != shard.name:
                raise ValueError(f"the shard {shard.name!r:.60} is no name of a file")
        places = [shard.places() for shard in self.shards]
        if any(len(lengths) != len(order) for _, lengths, order in places):
            raise ValueError("a shard has not as many lengths as indices")
        order = np.concatenate([*(order for _, _, order in places), np.zeros(0, int)])
        count = self.info.num_examples
        if len(order) != count or (np.sort(order) != np.arange(len(order))).any():
            raise ValueError(f"its shards do not hold {count} records")
        if not all(isinstance(name, str) for name in self.info.class_names):
            raise ValueError("a class has no text for a name")
        if self.labels is not None and len(self.labels) != self.info.num_examples:
            raise ValueError(f"it has {len(self.labels)} labels")


def _check_shard(folder: Path, shard: Shard) -> None:
    path = folder / shard.name
    if not path.is_file():
        raise FileNotFoundError(
            f"Shard {path} is missing; {INDEX_NAME} lists it with {shard.bytes} bytes. "
            "Copy it again, or write the records again."
        )
    size = path.stat().st_size
    expected = sum(shard.lengths) + FRAMING * len(shard.lengths)
    if size != shard.bytes or size != expected:
        raise ValueError(
            f"Shard {path} has {size} bytes; {INDEX_NAME} says {shard.bytes}. "
            "It was not copied whole or was changed: copy it again, or write it again."
        )


def _no_index(folder: Path) -> str:
    inner = sorted(path.parent.name for path in folder.glob(f"*/{INDEX_NAME}"))
    if inner:
        return (
            f"{folder} has no {INDEX_NAME}, but its folders have: name one as "
            f"split={inner[0]!r}. Found: {', '.join(inner)}."
        )
    return (
        f"No {INDEX_NAME} in {folder}. Expected a folder written by "
        "`write_records(source, root)`."
    )
