"""The table of augmentations, and how a recipe's list becomes objects.

A transform draws from its `seed` (2,) alone, so a sample depends only on the run's
seed, the epoch and the record. Where in the pipeline it runs is its `stage`:

    decode: fused with the decoding (`crop`)
    pool: in worker processes (albumentations' transforms, as one group)
    pixels: at the image's own size, the default
    input: behind the resize, at the size of the model's input
    batch: on the finished batch, in training alone
    size: on the mixed batch, whose size it changes; in training alone, and only one

Within a stage the order is that of the list.
"""

from __future__ import annotations

import dataclasses
import difflib

from visionkit.data.auto_augment import AutoAugment, RandAugment
from visionkit.data.box_mixing import CopyPaste, Mosaic
from visionkit.data.class_crop import ClassCrop
from visionkit.data.frames import PadCrop, ZoomOut
from visionkit.data.geometric import Crop, Flip, ScaleJitter
from visionkit.data.min_iou_crop import MinIoUCrop
from visionkit.data.mixing import CutMix, MixUp
from visionkit.data.multi_scale import MultiScale
from visionkit.data.photometric import Color, Erase, HsvJitter
from visionkit.data.policies import policy_items

TRANSFORMS = {
    "crop": Crop,
    "flip": Flip,
    "scale_jitter": ScaleJitter,
    "zoom_out": ZoomOut,
    "min_iou_crop": MinIoUCrop,
    "pad_crop": PadCrop,
    "class_crop": ClassCrop,
    "color": Color,
    "hsv": HsvJitter,
    "erase": Erase,
    "rand_augment": RandAugment,
    "auto_augment": AutoAugment,
    "mixup": MixUp,
    "cutmix": CutMix,
    "mosaic": Mosaic,
    "copy_paste": CopyPaste,
    "multi_scale": MultiScale,
}


@dataclasses.dataclass(frozen=True)
class Albumentations:
    """A group of albumentations' transforms, run in worker processes.

    Args:
        specs: (name, options) of each, in order.
    """

    specs: tuple[tuple[str, dict], ...]
    stage = "pool"


def stage_of(transform) -> str:
    """Where in the pipeline a transform runs."""
    return getattr(transform, "stage", "pixels")


def build_transforms(items, task: str | None = None) -> tuple:
    """The transforms that a recipe's `augment` means.

    Args:
        items: Names, or one-key dicts from a name to its options:
            `["crop", {"flip": {"p": 0.5}}]`. Names in CamelCase are albumentations'.
            Or the name of a policy: "none", "light" or "strong".
        task: What the transforms are for; each must be able to do it. None checks
            nothing.

    Raises:
        ValueError: Unknown name or option, an order or a task that is not legal.
    """
    if isinstance(items, str):
        items = policy_items(items, task)
    transforms: list = []
    for name, options in map(_parse, items or ()):
        if not name[:1].isupper():
            transforms.append(_build(name, options))
            continue
        before = ()
        if transforms and isinstance(transforms[-1], Albumentations):
            before = transforms.pop().specs
        transforms.append(Albumentations((*before, (name, options))))
    check_order(transforms)
    if task is not None:
        check_task(transforms, task)
    return tuple(transforms)


def bind_transforms(transforms, source) -> tuple:
    """The transforms for a source; some depend on what its classes are."""
    return tuple(t.bind(source) if hasattr(t, "bind") else t for t in transforms)


def check_transforms(transforms, task: str, order) -> None:
    """Raises a ValueError unless a data set for `task` in this `order` can have them.

    Args:
        transforms: Of `build_transforms`, or others.
        task: One of `visionkit.types.TASKS`.
        order: The training's `Order`; None for evaluation.
    """
    check_order(transforms)
    check_task(transforms, task)
    check_training(transforms, order)


def check_order(transforms) -> None:
    """Raises a ValueError where `crop` or albumentations' group is not in its place."""
    if [*map(stage_of, transforms)].count("size") > 1:
        raise ValueError("`multi_scale` must be there once. Received: several of them")
    ranks = [_rank(transform) for transform in transforms]
    if ranks == sorted(ranks) and ranks.count(0) < 2 and ranks.count(1) < 2:
        return
    names = [_name(transform) for transform in transforms]
    legal = [_name(transform) for transform in sorted(transforms, key=_rank)]
    raise ValueError(
        "`crop` must be the first transform, and the only one of its kind, since it is "
        "done while decoding; then come albumentations' transforms (CamelCase) as one "
        f"group, then all others. Received: {', '.join(names)}. "
        f"Legal: {', '.join(legal)}"
    )


def check_task(transforms, task: str) -> None:
    """Raises a ValueError where a transform cannot change the annotations of `task`."""
    for transform in transforms:
        tasks = getattr(transform, "tasks", None)
        if tasks and task not in tasks:
            raise ValueError(
                f"`{_name(transform)}` is for {' and '.join(tasks)}: it does not know "
                f"what becomes of other annotations. Received: task={task!r}. Leave "
                "it out."
            )


def check_training(transforms, order) -> None:
    """Raises a ValueError where `order` does not say what a transform has to know."""
    for transform in transforms:
        if stage_of(transform) not in ("batch", "size"):
            continue
        if order is None:
            raise ValueError(
                f"`{_name(transform)}` changes the batches of a training. Expected an "
                "`order`. Received: order=None, which is for evaluation"
            )
        if getattr(transform, "off_last_epochs", 0) and order.epochs is None:
            raise ValueError(
                f"`off_last_epochs` of `{_name(transform)}` needs the number of epochs "
                f"of the training: Order(seed, epochs=...). Received: {order}"
            )


def _rank(transform) -> int:
    return {"decode": 0, "pool": 1}.get(stage_of(transform), 2)


def _name(transform) -> str:
    if isinstance(transform, Albumentations):
        return ", ".join(name for name, _ in transform.specs)
    names = {cls: name for name, cls in TRANSFORMS.items()}
    return names.get(type(transform), type(transform).__name__)


def _parse(item) -> tuple[str, dict]:
    name, options = item, {}
    if isinstance(item, dict) and len(item) == 1:
        ((name, options),) = item.items()
    if not isinstance(name, str) or not isinstance(options or {}, dict):
        raise ValueError(
            "A transform is a name or a dict of one name with its options, such as "
            f"{{flip: {{p: 0.5}}}}. Received: {item}"
        )
    return name, dict(options or {})


def _build(name: str, options: dict):
    if name not in TRANSFORMS:
        near = difflib.get_close_matches(name.lower(), TRANSFORMS, 1)
        hint = f" Did you mean `{near[0]}`?" if near else ""
        raise ValueError(
            f"No transform is called `{name}`.{hint} These are: "
            f"{', '.join(TRANSFORMS)}; and albumentations', which begin with a capital."
        )
    cls = TRANSFORMS[name]
    legal = [field.name for field in dataclasses.fields(cls)]
    unknown = sorted(set(options) - set(legal))
    if unknown:
        raise ValueError(
            f"`{name}` has no option {', '.join(unknown)}. "
            f"Its options are {', '.join(legal)}."
        )
    options = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
    try:
        return cls(**options)
    except (TypeError, ValueError) as error:
        raise ValueError(f"Transform `{name}`: {error}") from error
