"""Augmentation by one word: what `augment: light` and `augment: strong` stand for.

light: what hardly any data set minds: another place, size, side and mild colours.
strong: for long trainings from scratch or of large models, which otherwise learn
their images by heart. Neither turns an image upside down, which photographs of the
world never are; where left and right matter (text, signs), write a list without `flip`.
"""

from __future__ import annotations

from visionkit._spelling import check_name

_MILD = {"color": {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2}}
_VIVID = {"color": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.02}}

_BOXES = {
    "none": [],
    "light": ["flip", {"scale_jitter": {"range": [0.8, 1.25]}}, _MILD],
    "strong": ["flip", {"scale_jitter": {"range": [0.5, 2.0]}}, _VIVID],
}

# YOLOv8's, whose mosaics end 10 epochs before the training does; half of them here,
# since fewer epochs are usual.
_MOSAICS = [
    "flip",
    {"scale_jitter": {"range": [0.5, 1.5], "translate": 0.1}},
    "hsv",
    {"mosaic": {"p": 0.5, "off_last_epochs": 10}},
]

POLICIES = {
    "classification": {
        "none": [],
        "light": [{"crop": {"scale": [0.4, 1.0]}}, "flip", _MILD],
        "strong": [
            {"crop": {"scale": [0.2, 1.0]}},
            "flip",
            {"rand_augment": {"num_ops": 2, "magnitude": 9}},
            {"erase": {"p": 0.25}},
            {"mixup": {"alpha": 0.2}},
            {"cutmix": {"alpha": 1.0}},
        ],
    },
    "detection": {**_BOXES, "strong": _MOSAICS},
    "instance_segmentation": {
        **_BOXES,
        "strong": [*_BOXES["strong"], {"copy_paste": {"p": 0.5}}],
    },
    "semantic_segmentation": {
        **_BOXES,
        "strong": [*_BOXES["strong"], {"cutmix": {"p": 0.5}}],
    },
}
"""Task -> name -> the list of transforms that a recipe would have."""


def policy_items(name: str, task: str | None) -> list:
    """The list of transforms that `name` stands for.

    Args:
        name: "none", "light" or "strong".
        task: One of `visionkit.types.TASKS`.

    Raises:
        ValueError: The task is not given, or there is no such policy.
    """
    if task is None:
        raise ValueError(
            "A policy depends on the task: pass `task`, such as 'classification'. "
            f"Received: {name!r} without a task"
        )
    check_name("augmentation policy", name, POLICIES[task])
    return POLICIES[task][name]
