"""The formats, what they need, and what does not go into them."""

from __future__ import annotations

import dataclasses
import importlib.util

from visionkit.types import BOX_TASKS


@dataclasses.dataclass(frozen=True)
class Format:
    """One format of a file.

    Attributes:
        file: Name of the file.
        extra: visionkit's extra that brings the packages.
        packages: What is imported to write and to run it.
        tolerance: How far answers may be off the model's, relative to the largest of
            them where that exceeds 1; None where only the metric can tell.
        arithmetic: What is computed in what.
        refused: Task -> why it does not go into this format.
    """

    file: str
    extra: str
    packages: tuple[str, ...]
    tolerance: float | None
    arithmetic: str
    refused: dict[str, str] = dataclasses.field(default_factory=dict)


_INTEGER_BOXES = (
    "the arithmetic of boxes and of non-maximum suppression would be done in 256 "
    "steps over the image, and fails; take litert-float16, which halves the file"
)

_UNPROVEN = "a conversion was never seen to end; take litert"

_LITERT = ("model.tflite", "litert", ("ai_edge_litert",))

FORMATS = {
    "litert": Format(*_LITERT, 1e-3, "weights and arithmetic float32"),
    "litert-float16": Format(
        *_LITERT, 5e-2, "weights float16, arithmetic as the device has it"
    ),
    "litert-int8": Format(
        *_LITERT,
        None,
        "weights and arithmetic int8, ranges from images of the training set; input "
        "and outputs float32",
        dict.fromkeys(BOX_TASKS, _INTEGER_BOXES),
    ),
    "onnx": Format(
        "model.onnx",
        "onnx",
        ("tf2onnx", "onnx", "onnxruntime"),
        1e-3,
        "weights and arithmetic float32",
        {"instance_segmentation": _UNPROVEN},
    ),
}
"""Name -> `Format`."""


def check_format(name: str, task: str) -> Format:
    """The format, if this task goes into it and its packages are installed.

    Raises:
        RuntimeError: A package is missing.
        ValueError: Unknown format, or the task does not go into it.
    """
    if name not in FORMATS:
        raise ValueError(
            f"`format` must be one of {', '.join(FORMATS)}. Received: format={name!r}"
        )
    found = FORMATS[name]
    if reason := found.refused.get(task):
        raise ValueError(f"A model for {task} does not go into {name}: {reason}.")
    if missing := [p for p in found.packages if importlib.util.find_spec(p) is None]:
        raise RuntimeError(
            f"{name} needs {', '.join(missing)}, which is not installed. Do: "
            f"pip install 'visionkit[{found.extra}]'"
        )
    return found
