"""Real handwritten digits that need no download, for all four tasks."""

from __future__ import annotations

import functools
import io

import numpy as np
from PIL import Image

from visionkit.data.sources.base import Record, Source, SourceInfo
from visionkit.data.split import stratified_mask
from visionkit.types import TASKS

SPLITS = ("train", "validation", "all")
VALIDATION_FRACTION = 0.2
NUM_SCENES = {"train": 800, "validation": 200, "all": 1000}
NAMES = tuple("0123456789")
IMAGE_SIDE = 32
BORDER = 4


class Digits(Source):
    """The 1,797 digits of 43 writers in scikit-learn (8x8 pixels, 17 grey levels).

    The digits are split once and for all, stratified: 20 % of each class are for
    validation (359 of 1,797), whatever `seed` is.

    For `"classification"` a record is one digit as a grey PNG of 32x32 pixels, white
    on black, enlarged (bicubic) to 24x24 within a border of 4 pixels. So it is the
    input of LeNet-5 (LeCun et al. 1998, II.B) as it stands, and `center_crop` with
    the usual 0.875 cuts no stroke.

    For the other tasks a record is a scene of 256x320 pixels (height x width): 1 to 6
    digits, each drawn from the split's own, as coloured strokes over a crop of one of
    scikit-learn's two photographs, encoded as JPEG; `scenes.py` says how. A scene is a
    function of (seed, split, index) alone, rendered when first asked for and kept.
    Boxes, areas and masks are those of the visible strokes: a digit drawn later
    covers those before it. For `"semantic_segmentation"` class 0 is "background".

    Args:
        task: One of `visionkit.types.TASKS`.
        split: "train", "validation" or "all".
        num_scenes: Number of scenes; default 800 for train, 200 for validation, 1000
            for all. Not for classification.
        seed: Decides the scenes. Not used for classification.
    """

    def __init__(
        self,
        task: str = "classification",
        split: str = "all",
        num_scenes: int | None = None,
        seed: int = 0,
    ):
        _check(task, split, num_scenes)
        self.skipped = []
        self.seed = seed
        images, labels = _load()
        held = stratified_mask(labels, VALIDATION_FRACTION, seed=0)
        chosen = {"train": ~held, "validation": held, "all": np.full(len(held), True)}
        self._images, self._labels = images[chosen[split]], labels[chosen[split]]
        count = len(self._labels)
        if task != "classification":
            count = num_scenes or NUM_SCENES[split]
        names = ("background", *NAMES) if task == "semantic_segmentation" else NAMES
        self.info = SourceInfo(task, names, count, split, "digits")
        self._records: dict[int, Record] = {}

    def record(self, index: int) -> Record:
        """The digit or scene `index`, encoded."""
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        if index not in self._records:
            self._records[index] = self._make(index)
        return self._records[index]

    def record_name(self, index: int) -> str:
        """`digits[index]`, without rendering anything."""
        return f"{self.info.name}[{index}]"

    def labels(self) -> np.ndarray | None:
        """(len,) int32 for classification, else None."""
        return self._labels.copy() if self.info.task == "classification" else None

    def _make(self, index: int) -> Record:
        if self.info.task == "classification":
            label = int(self._labels[index])
            return {"encoded": encode_digit(self._images[index]), "label": label}
        from visionkit.data.sources.scenes import render_scene

        key = [self.seed, SPLITS.index(self.info.split), index]
        scene = render_scene(self._images, self._labels, np.random.default_rng(key))
        record: Record = {"encoded": scene.encoded}
        if self.info.task == "semantic_segmentation":
            return record | {"mask_encoded": scene.semantic_png()}
        record |= {"boxes": scene.boxes, "box_labels": scene.labels, "area": scene.area}
        if self.info.task == "instance_segmentation":
            record["instance_masks"] = scene.instance_rles()
        return record


def encode_digit(image: np.ndarray) -> bytes:
    """A (8, 8) digit of 0..255 as a 32x32 grey PNG with a border."""
    inner = (IMAGE_SIDE - 2 * BORDER,) * 2
    canvas = Image.new("L", (IMAGE_SIDE, IMAGE_SIDE))
    digit = Image.fromarray(image).resize(inner, Image.Resampling.BICUBIC)
    canvas.paste(digit, (BORDER, BORDER))
    out = io.BytesIO()
    canvas.save(out, "PNG")
    return out.getvalue()


@functools.cache
def _load() -> tuple[np.ndarray, np.ndarray]:
    """((N, 8, 8) uint8 0..255, (N,) int32) of all digits."""
    from sklearn.datasets import load_digits

    data = load_digits()
    images = np.rint(data.images * (255 / 16)).astype(np.uint8)
    return images, data.target.astype(np.int32)


def _check(task: str, split: str, num_scenes: int | None) -> None:
    for key, value, known in (("task", task, TASKS), ("split", split, SPLITS)):
        if value not in known:
            raise ValueError(
                f"`{key}` must be one of {', '.join(known)}. Received: {key}={value!r}"
            )
    if num_scenes is None:
        return
    if task == "classification":
        raise ValueError(
            "`num_scenes` is for scenes; with task='classification' there is a record "
            f"per digit. Received: num_scenes={num_scenes}"
        )
    if num_scenes < 1:
        raise ValueError(
            f"`num_scenes` must be at least 1. Received: num_scenes={num_scenes}"
        )
