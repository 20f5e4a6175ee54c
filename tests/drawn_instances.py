"""Drawn discs and corners with their masks, and a tiny Mask R-CNN that learns them."""

import keras
import numpy as np

import visionkit as vk

SIZE = (64, 96)

SMALL = {
    "mask": {"channels": 24, "depth": 2},
    "neck": {"channels": 24},
    "anchors": {"sizes": [16, 24, 32, 48, 64]},
    "rpn": {"num_proposals": 40, "num_samples": 64},
    "roi": {"num_samples": 32, "units": 48, "output_size": 5},
    "nms": {"max_detections": 10},
}

# Of each image x1, y1, x2, y2 and label.
PLACES = [
    [(6, 8, 46, 32, 0), (52, 20, 90, 56, 1)],
    [(30, 10, 60, 50, 1)],
    [(4, 30, 36, 60, 0), (60, 4, 92, 30, 0), (48, 36, 80, 60, 1)],
    [],
]


def backbone(size=SIZE):
    x = images = keras.Input((*size, 3), name="images")
    x = x / 127.5 - 1
    levels = {}
    for level in range(1, 6):
        x = keras.layers.Conv2D(12 + 4 * level, 3, 2, "same", use_bias=False)(x)
        x = keras.layers.BatchNormalization(momentum=0.8)(x)
        levels[f"P{level}"] = x = keras.layers.ReLU()(x)
    return keras.Model(images, levels, name="tiny")


def mask_rcnn(size=SIZE, **options):
    return vk.MaskRCNN(backbone(size), 2, **{**SMALL, **options})


def shape_mask(label, height, width):
    """The shape in its box: 0 is an ellipse, 1 a corner at the lower left."""
    y = (np.arange(height)[:, None] + 0.5) / height
    x = (np.arange(width) + 0.5) / width
    if label == 0:
        return (x - 0.5) ** 2 + (y - 0.5) ** 2 < 0.25
    return (x < 0.4) | (y > 0.6)


def drawn_instances():
    """Four images (64, 96) with 2, 1, 3 and 0 shapes, and their target.

    Padded rows hold what must get nowhere.
    """
    rng = np.random.default_rng(0)
    images = rng.integers(90, 130, (4, *SIZE, 3)).astype("uint8")
    boxes = np.full((4, 3, 4), np.nan, "float32")
    labels = np.full((4, 3), -1, "int32")
    masks = np.ones((4, 3, 112, 112), "uint8")
    for image, rows in enumerate(PLACES):
        for row, (x1, y1, x2, y2, label) in enumerate(rows):
            pixels = shape_mask(label, y2 - y1, x2 - x1)
            images[image, y1:y2, x1:x2][pixels] = ((250, 60, 40), (10, 60, 200))[label]
            boxes[image, row], labels[image, row] = (x1, y1, x2, y2), label
            masks[image, row] = shape_mask(label, 112, 112)
    return images, {"boxes": boxes, "labels": labels, "masks": masks}
