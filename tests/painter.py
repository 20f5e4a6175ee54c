"""Segmenters that need no training: one tells pure colours, one has random weights."""

from __future__ import annotations

import io

import keras
import numpy as np
from PIL import Image, ImageDraw

from visionkit.tasks.semantic_segmentation.segmenter import Segmenter
from visionkit.types import Preprocessing

NAMES = ("background", "red", "grün")
COLORS = ((40, 40, 60), (255, 0, 0), (0, 255, 0))


def _segmenter(layers, image_size, resize, crop_fraction) -> Segmenter:
    images = keras.Input((*image_size, 3), name="images")
    backbone = keras.Model(images, {"P0": keras.layers.Rescaling(1.0)(images)})
    outputs = backbone(images)["P0"]
    for layer in layers:
        outputs = layer(outputs)
    return Segmenter(
        images,
        outputs,
        num_classes=outputs.shape[-1],
        class_names=NAMES if outputs.shape[-1] == 3 else None,
        backbone=backbone,
        preprocessing=Preprocessing(image_size, resize, crop_fraction=crop_fraction),
    )


def build_painter(
    image_size=(150, 500), resize="letterbox", crop_fraction=1.0
) -> Segmenter:
    """Tells red and green from anything else, half way between the pure colours."""
    layer = keras.layers.Conv2D(3, 1)
    model = _segmenter([layer], image_size, resize, crop_fraction)
    kernel = np.array([[0, 1, -1], [0, -1, 1], [0, 0, 0]], "float32")  # R, G, B
    layer.set_weights([kernel[None, None], np.array([127.5, 0, 0], "float32")])
    return model


def build_noise(image_size, num_classes=4) -> Segmenter:
    """Two convolutions of random weights: a pixel sees those up to 2 beside it."""
    layers = [
        keras.layers.Conv2D(
            filters,
            3,
            padding="same",
            activation=activation,
            kernel_initializer=keras.initializers.RandomNormal(0, scale, seed),
        )
        for filters, activation, scale, seed in (
            (8, "relu", 0.01, 1),
            (num_classes, None, 1, 2),
        )
    ]
    return _segmenter(layers, image_size, "stretch", 1.0)


def draw(size, boxes, *, exif: int | None = None) -> tuple[bytes, np.ndarray]:
    """An encoded scene of (height, width) with a red and a green box, and its mask.

    Args:
        size: Of the scene as stored.
        boxes: xyxy pixels of the scene as stored.
        exif: Orientation; the mask is upright.
    """
    image = Image.new("RGB", size[::-1], COLORS[0])
    mask = np.zeros(size, np.uint8)
    for box, label in zip(boxes, (1, 2), strict=False):
        x1, y1, x2, y2 = box
        ImageDraw.Draw(image).rectangle((x1, y1, x2 - 1, y2 - 1), fill=COLORS[label])
        mask[y1:y2, x1:x2] = label
    tags, out = Image.Exif(), io.BytesIO()
    if exif:
        tags[0x0112] = exif
        turns = {1: mask, 2: mask[:, ::-1], 3: mask[::-1, ::-1], 4: mask[::-1]}
        turns |= {5: mask.T, 6: mask.T[:, ::-1], 7: mask.T[::-1, ::-1], 8: mask.T[::-1]}
        mask = turns[exif]
    image.save(out, "JPEG" if exif else "PNG", exif=tags, quality=95, subsampling=0)
    return out.getvalue(), mask
