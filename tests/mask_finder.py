"""An instance segmenter that needs no training: it finds shapes of two pure colours."""

from __future__ import annotations

import io

import keras
import numpy as np
from finder import GREEN, NAMES, RED, Answers, Finder
from keras import ops
from PIL import Image, ImageDraw

from visionkit.tasks.detection.detector import Detector
from visionkit.types import Preprocessing

MASK = 28


class MaskFinder(Detector):
    """A `Detector` with masks in its answers."""

    task = "instance_segmentation"


class Colors(keras.layers.Layer):
    """Images (B, h, w, 3) to how much of each colour is where, (B, 2, h, w)."""

    def call(self, images):
        red = ops.logical_and(images[..., 0] > 180, images[..., 1] < 90)
        green = ops.logical_and(images[..., 1] > 180, images[..., 0] < 90)
        return ops.cast(ops.stack([red, green], axis=1), "float32")


class MaskAnswers(Answers):
    """The boxes of `Answers`, wider by `reach` pixels, and the colour in each."""

    def __init__(self, reach, **kwargs):
        super().__init__(**kwargs)
        self.reach = reach

    def call(self, raw):
        found = super().call(raw)
        present = ops.cast(found["labels"][..., None] >= 0, "float32")
        wider = self.reach * ops.convert_to_tensor([-1.0, -1.0, 1.0, 1.0])
        boxes = (found["boxes"] + wider) * present
        colors = raw["colors"]
        height, width = colors.shape[2:]
        limit = ops.convert_to_tensor([width, height, width, height], "float32")
        boxes = ops.clip(boxes, 0.0, limit)

        def nearest(low, high, length):
            cells = (ops.arange(MASK, dtype="float32") + 0.5) / MASK
            places = low[..., None] + cells * (high - low)[..., None]
            return ops.one_hot(ops.cast(places, "int32"), length, dtype="float32")

        rows = nearest(boxes[..., 1], boxes[..., 3], height)
        columns = nearest(boxes[..., 0], boxes[..., 2], width)
        labels = ops.one_hot(found["labels"], 2, dtype="float32")
        own = ops.einsum("bdk,bkhw->bdhw", labels, colors)
        masks = rows @ own @ ops.swapaxes(columns, 2, 3)
        return {**found, "boxes": boxes, "masks": masks}


def build_mask_finder(
    image_size=(240, 320), resize="letterbox", reach=6.0
) -> MaskFinder:
    """The instance segmenter, for images of any size.

    Its boxes reach beyond the shapes, so that the border of the image cuts them.
    """
    images = keras.Input((*image_size, 3), name="images")
    backbone = keras.Model(images, {"P3": keras.layers.Conv2D(1, 1)(images)})
    outputs = Finder(dtype="float32")(images)
    outputs["colors"] = Colors(dtype="float32")(images)
    outputs["unused"] = ops.mean(backbone(images)["P3"], axis=(1, 2, 3))[:, None]
    return MaskFinder(
        images,
        outputs,
        num_classes=2,
        backbone=backbone,
        postprocess=MaskAnswers(reach, dtype="float32"),
        preprocessing=Preprocessing(image_size, resize, crop_fraction=1.0),
        class_names=NAMES,
    )


def draw_shapes(size, boxes) -> tuple[bytes, np.ndarray]:
    """A PNG of (height, width), a red ellipse and perhaps a green triangle in it.

    Args:
        size: (height, width).
        boxes: Up to two, xyxy: what the shapes fill.

    Returns:
        The encoded image, and the masks (N, height, width) bool.
    """
    image, masks = Image.new("RGB", size[::-1], (40, 40, 60)), []
    for index, (x1, y1, x2, y2) in enumerate(boxes):
        mask = Image.new("1", size[::-1])
        pen = ImageDraw.Draw(mask)
        if index == 0:
            pen.ellipse((x1, y1, x2 - 1, y2 - 1), fill=1)
        else:
            pen.polygon([(x1, y2 - 1), (x2 - 1, y2 - 1), ((x1 + x2) // 2, y1)], fill=1)
        image.paste((RED, GREEN)[index], mask=mask)
        masks.append(np.array(mask))
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue(), np.array(masks).reshape(-1, *size)


def mask_iou(a, b) -> float:
    """Of two masks of one size."""
    return float((a & b).sum() / (a | b).sum())
