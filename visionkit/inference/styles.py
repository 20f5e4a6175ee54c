"""Output conventions of an export: visionkit's own, and those that older clients read.

A name always means the same: `boxes`, `labels` ... are visionkit's; the names
`detection_boxes`, `detection_classes` ... appear only under the styles of the projects
that coined them, with exactly their order, offset and units. Reading them back takes
NumPy alone.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from visionkit.types import BOX_TASKS, STYLES, Preprocessing

INPUT_NAMES = {
    "visionkit": "image_bytes",
    "modelgarden": "inputs",
    "odapi": "input_tensor",
}
"""Style -> name of the input of `serving_default` and `tolerant`."""


def modelgarden(answers: dict, prepared: dict, preprocessing: Preprocessing) -> dict:
    """A detector's answers as TF Model Garden's `official/vision/serving` gives them.

    Args:
        answers: Of `graph.detection_answers` or `graph.instance_answers`, in pixels of
            the original images.
        prepared: Batch of `graph.prepare_image`.
        preprocessing: Says the size of the model's input.

    Returns:
        "detection_boxes" (B, D, 4) float32 [y1, x1, y2, x2] in pixels of the model's
        input; "detection_classes" (B, D) int32 from 1, 1 in padded rows too;
        "detection_scores" (B, D); "num_detections" (B,) int32; "image_info" (B, 4, 2)
        float32: original (height, width), the input's, scale (y, x) and offset (y, x),
        so that original = (box + offset) / scale. With masks "detection_masks" (B, D,
        m, m), each framed by its box.
    """
    import tensorflow as tf

    scale, offset = tf.split(prepared["placement"], 2, axis=-1)
    boxes = tf.gather(answers["boxes"], [1, 0, 3, 2], axis=-1)
    moved = boxes * tf.tile(scale, [1, 2])[:, None] + tf.tile(offset, [1, 2])[:, None]
    found = answers["labels"] >= 0
    original = tf.cast(prepared["image_size"], tf.float32)
    size = tf.zeros_like(original) + tf.constant(preprocessing.image_size, tf.float32)
    return {
        "detection_boxes": tf.where(found[..., None], moved, 0.0),
        "detection_classes": tf.maximum(answers["labels"], 0) + 1,
        "detection_scores": answers["scores"],
        "num_detections": answers["num_detections"],
        "image_info": tf.stack([original, size, scale, -offset], axis=1),
        **_detection_masks(answers),
    }


def odapi(answers: dict, prepared: dict, preprocessing: Preprocessing) -> dict:
    """A detector's answers as the TF Object Detection API's exporter gives them.

    Args:
        answers: Of `graph.detection_answers` or `graph.instance_answers`.
        prepared: Batch of `graph.prepare_image`.
        preprocessing: Not needed.

    Returns:
        All float32: "detection_boxes" (B, D, 4) [y1, x1, y2, x2] as shares 0..1 of the
        original image; "detection_classes" (B, D) from 1, 1 in padded rows too;
        "detection_scores" (B, D); "num_detections" (B,). With masks "detection_masks"
        (B, D, m, m), each framed by its box.
    """
    import tensorflow as tf

    del preprocessing
    size = tf.cast(prepared["image_size"], tf.float32)
    boxes = tf.gather(answers["boxes"], [1, 0, 3, 2], axis=-1)
    return {
        "detection_boxes": tf.math.divide_no_nan(boxes, tf.tile(size, [1, 2])[:, None]),
        "detection_classes": tf.cast(tf.maximum(answers["labels"], 0) + 1, tf.float32),
        "detection_scores": answers["scores"],
        "num_detections": tf.cast(answers["num_detections"], tf.float32),
        **_detection_masks(answers),
    }


def _detection_masks(answers: dict) -> dict:
    """The masks, where there are, by the name that both projects give them."""
    return {"detection_masks": answers["masks"]} if "masks" in answers else {}


def style_function(style: str, task: str) -> Callable | None:
    """What turns visionkit's answers into those of a style; None for visionkit's own.

    Raises:
        ValueError: Unknown style, or one that has no convention for `task`.
    """
    if style not in STYLES:
        raise ValueError(
            f"`style` must be one of {', '.join(STYLES)}. Received: style={style!r}"
        )
    if style == "visionkit":
        return None
    if task not in BOX_TASKS:
        raise ValueError(
            f"style={style!r} is a convention for detection, with or without masks. "
            f"Received: a model for {task}. Use style='visionkit'."
        )
    return {"modelgarden": modelgarden, "odapi": odapi}[style]


def own_answers(answers: dict, style: str, image_size) -> dict:
    """One image's answers of any style as visionkit's own, in NumPy.

    Args:
        answers: Of one image, without the batch dimension.
        style: The export's.
        image_size: Original (height, width).

    Returns:
        As `graph.detection_answers` or `graph.instance_answers` for one image; other
        keys stay as they are.
    """
    if style == "visionkit":
        return answers
    boxes = answers["detection_boxes"]
    if style == "modelgarden":
        scale, offset = answers["image_info"][2], answers["image_info"][3]
        boxes = (boxes + np.tile(offset, 2)) / np.tile(scale, 2)
    else:
        boxes = boxes * [*image_size, *image_size]
    count = int(answers["num_detections"])
    labels = answers["detection_classes"].astype("int32") - 1
    labels[count:] = -1
    masks = {}
    if "detection_masks" in answers:
        masks = {"masks": answers["detection_masks"]}
    return {
        "boxes": boxes[:, [1, 0, 3, 2]].astype("float32"),
        "scores": answers["detection_scores"],
        "labels": labels,
        "num_detections": count,
        "image_valid": answers["image_valid"],
        **masks,
    }
