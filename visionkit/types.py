"""The shapes of data that every part of visionkit agrees on.

One box format (xyxy, absolute pixels of the current image, continuous edges), one
image format (RGB 0..255, channels last) and one order of sizes (height, width).
Nothing here imports TensorFlow or Keras.
"""

from __future__ import annotations

import dataclasses
import json
import os
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np

if TYPE_CHECKING:
    from visionkit.data.instance_masks import InstanceMasks

Tensor = Any
"""A tensor or array of the active backend; its shape stands in the docstring."""

PADDING_LABEL = -1
"""Label of a padded row. Validity is in the label, never in the coordinates."""

VOID_CLASS = 255
"""Class of mask pixels that neither train nor count."""

PAD_VALUE = 114
"""Grey level of the borders that letterbox and shortest_edge add, near the mean of
natural images, so that after normalisation the border is close to zero."""

TASKS = (
    "classification",
    "detection",
    "semantic_segmentation",
    "instance_segmentation",
)

BOX_TASKS = ("detection", "instance_segmentation")
"""Tasks whose truth and answers are boxes, with or without masks in them."""

MASK_SIZE = 112
"""Rows and columns of an instance mask in its box, in a training target: four for each
of the 28 that a mask head predicts."""


class Boxes(TypedDict, total=False):
    """Ground-truth boxes of one image."""

    boxes: Tensor  # (N, 4) float32, xyxy pixels of the current image
    labels: Tensor  # (N,) int32, 0-based
    is_crowd: Tensor  # (N,) bool
    is_difficult: Tensor  # (N,) bool
    area: Tensor  # (N,) float32, square pixels of the original image


class Sample(TypedDict, total=False):
    """One image on its way through the pipeline. The keys are Keras' own."""

    images: Tensor  # (H, W, C) uint8 0..255, RGB when C = 3
    labels: Tensor  # () int32
    bounding_boxes: Boxes
    segmentation_masks: Tensor  # (H, W) uint8 class ids, 255 = void
    instance_masks: Tensor  # (N,) string: compressed COCO RLE, whatever moved since
    mask_size: Tensor  # (2,) int32, (height, width) that the RLE strings are of
    image_id: Tensor  # () int32, index of the record in its source
    image_size: Tensor  # (2,) int32, original (height, width), upright


PORTABLE_FORMATS = ("litert", "litert-float16", "litert-int8", "onnx")
"""Smaller formats of an export; `visionkit.portable.formats` says what each is."""

STYLES = ("visionkit", "modelgarden", "odapi")
"""Output conventions of an export; `visionkit.inference.styles` says what each is."""

RESIZE_MODES = ("letterbox", "stretch", "center_crop", "shortest_edge")


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """How an image of any size becomes the model's input; part of a model's config.

    Training, evaluation, prediction and export all read it, so they cannot differ.

    Args:
        image_size: (height, width) of the model's input in pixels.
        resize: `"letterbox"` (keep the aspect ratio, pad both sides equally),
            `"stretch"`, `"center_crop"` (cut the largest centred window of the
            input's aspect ratio, times `crop_fraction`, then resize) or
            `"shortest_edge"` (scale the shorter edge to `min_edge`, the longer to at
            most `max_edge`, pad at the bottom and the right).
        channels: 1 (grey) or 3 (RGB).
        exif: `"apply"` turns the image upright, `"ignore"` leaves it as stored.
        crop_fraction: Share of the window that `center_crop` keeps, 0 < f <= 1.
        min_edge: Pixels, `shortest_edge` only; default the shorter side of
            `image_size`.
        max_edge: Pixels, `shortest_edge` only; default the longer side.
    """

    image_size: tuple[int, int]
    resize: str = "letterbox"
    channels: int = 3
    exif: str = "apply"
    crop_fraction: float = 0.875
    min_edge: int | None = None
    max_edge: int | None = None

    def __post_init__(self):
        size = tuple(int(side) for side in self.image_size)
        object.__setattr__(self, "image_size", size)
        if len(size) != 2 or min(size) < 1:
            raise ValueError(
                "`image_size` must be (height, width), both at least 1. "
                f"Received: image_size={self.image_size}"
            )
        if self.resize not in RESIZE_MODES:
            raise ValueError(
                f"`resize` must be one of {', '.join(RESIZE_MODES)}. "
                f"Received: resize={self.resize!r}"
            )
        if self.channels not in (1, 3):
            raise ValueError(
                "`channels` must be 1 (grey) or 3 (RGB) for image files. "
                f"Received: channels={self.channels}"
            )
        if self.exif not in ("apply", "ignore"):
            raise ValueError(
                f"`exif` must be 'apply' or 'ignore'. Received: exif={self.exif!r}"
            )
        if not 0 < self.crop_fraction <= 1:
            raise ValueError(
                "`crop_fraction` must be in (0, 1]. "
                f"Received: crop_fraction={self.crop_fraction}"
            )

    def get_config(self) -> dict:
        """A JSON-ready dict that `from_config` turns back into an equal object."""
        return {**dataclasses.asdict(self), "image_size": list(self.image_size)}

    @classmethod
    def from_config(cls, config: dict) -> Preprocessing:
        """The object that `get_config` described."""
        return cls(**config)


@dataclasses.dataclass
class Results:
    """What a model says about one image, in pixels of the original image.

    A field that the task does not have is None.

    Attributes:
        image_size: Original (height, width), upright.
        boxes: (N, 4) float32, xyxy pixels of the original image.
        labels: (N,) int32, 0-based; for classification the K best classes, best
            first; for semantic segmentation the classes present, the largest first.
        scores: (N,) float32 in [0, 1], beside `labels`; for semantic segmentation
            shares of the image's pixels.
        label_names: N strings, beside `labels`.
        masks: N masks of full size, an `InstanceMasks`: `masks[i]` is (H, W) bool, and
            `np.asarray(masks)` (N, H, W). Such an array is taken too.
        segmentation: (H, W) uint8 class ids; 255 where the model saw nothing.
        probabilities: (num_classes,) float32 (classification); they sum to 1, or
            each is one of its own (multi-label). For semantic segmentation, where
            asked for, (H, W, num_classes) float32; they sum to 1 in each pixel, or
            to 0 where the model saw nothing.
        path: The image file, where there is one.
        frame: Number of the frame, from 0, where `path` is a video.
        error: Why there is no answer (an unreadable file), else None.
    """

    image_size: tuple[int, int] | None = None
    boxes: np.ndarray | None = None
    labels: np.ndarray | None = None
    scores: np.ndarray | None = None
    label_names: list[str] | None = None
    masks: InstanceMasks | None = None
    segmentation: np.ndarray | None = None
    probabilities: np.ndarray | None = None
    path: str | None = None
    frame: int | None = None
    error: str | None = None

    def __post_init__(self):
        if isinstance(self.masks, np.ndarray):
            from visionkit.data.instance_masks import InstanceMasks

            self.masks = InstanceMasks.from_dense(self.masks)

    @property
    def ok(self) -> bool:
        """Whether the image could be read and answered."""
        return self.error is None

    def pixel_counts(self) -> np.ndarray:
        """(N,) int64, pixels of each of `labels` in `segmentation`."""
        return np.bincount(self.segmentation.ravel(), minlength=256)[self.labels]

    def to_dict(self) -> dict:
        """Plain lists and numbers; fields of None left out.

        "masks" are compressed COCO RLE, a dict of "size" and "counts" each. What is
        dense (probabilities of pixels) is left out too; a segmentation gives "pixels",
        the number of them beside each of "labels".
        """
        out = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name == "masks" and value is not None:
                value = value.to_coco()
            if value is None or np.ndim(value) > 2 or field.name == "segmentation":
                continue
            out[field.name] = value.tolist() if isinstance(value, np.ndarray) else value
        if self.segmentation is not None:
            out["pixels"] = self.pixel_counts().tolist()
        return out

    def to_json(self) -> str:
        """`to_dict` as one line of JSON; file names that are not UTF-8 survive."""
        return json.dumps(self.to_dict())

    def to_coco(self, image_id: int = 0) -> list[dict]:
        """The boxes, and the masks where there are, in the format of COCO's results.

        Args:
            image_id: Written into each.

        Returns:
            A dict per box: "image_id", "file_name" and "frame" where there are, "bbox"
            [x, y, width, height] in pixels of the original image, "segmentation" of its
            mask, {"size": [height, width], "counts": compressed RLE}, "score",
            "category_id" and "category_name". The ids are not those of any annotation
            file: the category's is label + 1, since COCO counts from 1. Match by names.

        Raises:
            ValueError: The result has no boxes.
        """
        if self.boxes is None:
            raise ValueError(
                "COCO's results are boxes, and this result has none: it is not of a "
                "detector."
            )
        origin = {}
        if self.path is not None:
            origin["file_name"] = os.path.basename(self.path)
        if self.frame is not None:
            origin["frame"] = self.frame
        corner, size = self.boxes[:, :2], self.boxes[:, 2:] - self.boxes[:, :2]
        columns = (self.labels, self.label_names, corner, size, self.scores)
        regions = [{} for _ in self.labels]
        if self.masks is not None:
            regions = [{"segmentation": mask} for mask in self.masks.to_coco()]
        return [
            {
                "image_id": image_id,
                **origin,
                "category_id": int(label) + 1,
                "category_name": name,
                "bbox": [*map(float, xy), *map(float, wh)],
                **region,
                "score": float(score),
            }
            for label, name, xy, wh, score, region in zip(
                *columns, regions, strict=True
            )
        ]

    def to_pandas(self):
        """A `pandas.DataFrame`, a row per label (needs pandas)."""
        import pandas

        columns: dict[str, Any] = {"label": self.labels, "name": self.label_names}
        columns["score"] = self.scores
        if self.segmentation is not None:
            columns["pixels"] = self.pixel_counts()
        if self.masks is not None:
            columns["pixels"] = self.masks.areas()
        if self.boxes is not None:
            columns |= dict(zip(("x1", "y1", "x2", "y2"), self.boxes.T, strict=True))
        return pandas.DataFrame({k: v for k, v in columns.items() if v is not None})

    def plot(self, image=None):
        """The image with the answer drawn on it, as a `PIL.Image`.

        Args:
            image: (H, W, C) uint8 or a `PIL.Image`; read from `path` when omitted.
        """
        from visionkit.visualize import draw_results

        return draw_results(self, image)
