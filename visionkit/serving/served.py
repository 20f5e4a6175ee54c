"""What a server says of a model: its task, its conventions, its names."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from visionkit.inference.styles import INPUT_NAMES
from visionkit.types import Preprocessing

# An output of the signature `tolerant` -> the task; masks come before boxes.
_TASKS = {
    "probabilities": "classification",
    "segmentation": "semantic_segmentation",
    "masks": "instance_segmentation",
    "detection_masks": "instance_segmentation",
    "boxes": "detection",
    "detection_boxes": "detection",
}

_DTYPES = {
    "DT_FLOAT": np.dtype(np.float32),
    "DT_INT32": np.dtype(np.int32),
    "DT_UINT8": np.dtype(np.uint8),
    "DT_STRING": np.dtype(object),
}


@dataclasses.dataclass(frozen=True)
class ServedModel:
    """A model behind a server, as far as its answers have to be understood.

    Attributes:
        task: One of `types.TASKS`.
        style: One of `types.STYLES`.
        input_name: Of the signature `tolerant`.
        outputs: Of `tolerant`: name -> dtype.
        preprocessing: Its size and channels; the rest where a description says it.
        class_names: Names by label.
    """

    task: str
    style: str
    input_name: str
    outputs: dict[str, np.dtype]
    preprocessing: Preprocessing
    class_names: Sequence[str]


class KnownNames:
    """Class names of which only some are known; the others are their numbers.

    Args:
        count: Number of classes.
        names: Label -> name.
    """

    def __init__(self, count: int, names: dict[int, str] | None = None):
        self.count = count
        self.names = names or {}

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, label: int) -> str:
        return self.names.get(int(label), str(int(label)))

    @classmethod
    def of_answer(cls, row: dict) -> KnownNames:
        """The names in one image's answer, of an image or of its boxes."""
        labels, names = np.ravel(row["labels"]), np.ravel(row["label_names"])
        known = zip(labels.tolist(), map(os.fsdecode, names), strict=True)
        count = len(row["probabilities"]) if "probabilities" in row else 0
        return cls(count, dict(known))


def understand(signatures: dict, description=None) -> ServedModel:
    """What the signatures of a server, and perhaps `model.json`, tell.

    Args:
        signatures: Signature -> its SignatureDef as TF Serving writes it in JSON.
        description: `model.json` of the export: its content as a dict, its path, or
            the folder that it lies in.

    Raises:
        FileNotFoundError: The description does not exist.
        ValueError: The model was not exported by visionkit, or is another one than
            the description's.
    """
    try:
        tolerant = signatures["tolerant"]
        (input_name,) = tolerant["inputs"]
        styles = {name: style for style, name in INPUT_NAMES.items()}
        style = styles[input_name]
        outputs = {k: _DTYPES[v["dtype"]] for k, v in tolerant["outputs"].items()}
        task = next(task for name, task in _TASKS.items() if name in outputs)
        *_, height, width, channels = _shape(signatures["tensors"]["inputs"]["images"])
    except (KeyError, ValueError, StopIteration) as error:
        raise ValueError(
            "The served model was not exported by `visionkit.export`: expected the "
            "signatures tolerant and tensors with its inputs and outputs. Received: "
            f"{sorted(signatures)}"
        ) from error
    preprocessing = Preprocessing((height, width), channels=channels)
    names = KnownNames(_count_classes(signatures))
    if description is not None:
        described = _read(description)
        if described["task"] != task or described["style"] != style:
            raise ValueError(
                f"`description` must be of the served model, for {task} in the style "
                f"{style}. Received: one for {described['task']} in the style "
                f"{described['style']}"
            )
        names = described["class_names"]
        preprocessing = Preprocessing.from_config(described["preprocessing"])
    return ServedModel(task, style, input_name, outputs, preprocessing, names)


def _count_classes(signatures: dict) -> int:
    """Number of classes where a shape tells it, else 0."""
    for signature, output in (("logits", "logits"), ("tolerant", "probabilities")):
        if found := signatures.get(signature, {}).get("outputs", {}).get(output):
            return _shape(found)[-1]
    return 0


def _shape(tensor: dict) -> list[int]:
    return [int(dim["size"]) for dim in tensor["tensor_shape"]["dim"]]


def _read(description) -> dict:
    if isinstance(description, dict):
        return description
    path = Path(description)
    path = path / "model.json" if path.is_dir() else path
    return json.loads(path.read_text("utf-8"))
