"""A tiny backbone, drawn images and NumPy's targets, for SSD and RetinaNet."""

import keras
import numpy as np

SIZE = (64, 96)


def tiny_backbone(size=SIZE, levels=(3, 4, 5)):
    """P3 to P5 of 24 to 40 channels in five convolutions."""
    images = keras.Input((*size, 3), name="images")
    x = images / 127.5 - 1  # `Rescaling` needs TensorFlow on every backend
    outputs = {}
    for level in range(1, max(levels) + 1):
        x = keras.layers.Conv2D(8 * level, 3, 2, "same", use_bias=False)(x)
        x = keras.layers.BatchNormalization(momentum=0.9)(x)
        x = keras.layers.ReLU()(x)
        outputs[f"P{level}"] = x
    return keras.Model(
        images, {f"P{level}": outputs[f"P{level}"] for level in levels}, name="tiny"
    )


def drawn_batch(count=4, rows=3):
    """Red (0) and green (1) rectangles: 2, 1, 2 and 0 of them, and so on.

    Padded rows hold NaN, which must get nowhere.
    """
    rng = np.random.default_rng(0)
    images = np.full((count, *SIZE, 3), 40, "uint8")
    boxes = np.full((count, rows, 4), np.nan, "float32")
    labels = np.full((count, rows), -1, "int32")
    for i in range(count):
        for j in range((2, 1, 2, 0)[i % 4]):
            w, h = rng.integers(16, 40, 2)
            x, y = rng.integers(0, SIZE[1] - w), rng.integers(0, SIZE[0] - h)
            label = (i + j) % 2
            images[i, y : y + h, x : x + w] = ((220, 60, 60), (60, 220, 60))[label]
            boxes[i, j] = x, y, x + w, y + h
            labels[i, j] = label
    return images, {"boxes": boxes, "labels": labels}


def iou(a, b):
    width = max(0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0, min(a[3], b[3]) - max(a[1], b[1]))
    both = width * height
    areas = [(c[2] - c[0]) * (c[3] - c[1]) for c in (a, b)]
    return both / (sum(areas) - both)


def assign(anchors, truth, positive, negative):
    """Row of the truth for each anchor of one image; -1 negative, -2 ignored."""
    rows = np.full(len(anchors), -1)
    if not len(truth):
        return rows
    overlap = np.array([[iou(a, t) for t in truth] for a in anchors])
    for i, values in enumerate(overlap):
        if values.max() >= positive:
            rows[i] = values.argmax()
        elif values.max() >= negative:
            rows[i] = -2
    best = {}  # anchor -> the truth that it is the best one of
    for j in range(len(truth)):
        i = int(overlap[:, j].argmax())
        if i not in best or overlap[i, j] > overlap[i, best[i]]:
            best[i] = j
    for i, j in best.items():
        rows[i] = j
    return rows


def encode(box, anchor, weights):
    def centre(b):
        return (b[0] + b[2]) / 2, (b[1] + b[3]) / 2, b[2] - b[0], b[3] - b[1]

    (x, y, w, h), (ax, ay, aw, ah) = centre(box), centre(anchor)
    deltas = (x - ax) / aw, (y - ay) / ah, np.log(w / aw), np.log(h / ah)
    return np.multiply(deltas, weights)


def random_outputs(model, count, seed=0):
    rng = np.random.default_rng(seed)
    return {
        name: rng.normal(size=(count, *value.shape[1:])).astype("float32")
        for name, value in model.output.items()
    }


def loss_parts(model, target, outputs):
    """{"classes": ..., "boxes": ...} as `compute_loss` sums them up."""
    model.compile("sgd")
    total = model.compute_loss(None, target, outputs)
    parts = {
        metric.name.removesuffix("_loss"): float(metric.result())
        for metric in model.metrics
        if metric.name.endswith("_loss")
    }
    return float(total), parts
