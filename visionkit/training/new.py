"""A complete recipe for a folder of data, to be read and edited."""

from __future__ import annotations

from pathlib import Path

from visionkit._spelling import check_name
from visionkit.backbones import BACKBONES, CLASSIFICATION_ONLY
from visionkit.data.sources.detect import detect_source
from visionkit.tasks import MODELS
from visionkit.training.recipe_files import RecipeError
from visionkit.training.recipe_sections import recipe_class

_HEAD = """\
# {model} with {backbone} on {root}
# {num_examples} images, {num_classes} classes: {names}
# Hardware, time, {monitor}: not run yet.
task: {task}
model:
  name: {model}
  backbone: {backbone}
  weights: {weights}         # null: from scratch; or the path of a .weights.h5 file
  start_from: null          # or a run folder, with weights: null: all that fits of it
  freeze: []                # e.g. [P1, P2, norm]: stages, all batch normalisation
  norm_momentum: 0.95       # batch normalisation forgets its old statistics quickly
"""

_DATA = """\
data:
  source: {source}
  root: {root}
  train: {train}
  validation: {validation}           # a share, or options of the source
"""

_CLASSIFICATION = (
    _HEAD
    + """\
  image_size: [{size}, {size}]    # height, width
  resize: center_crop       # or letterbox, stretch, shortest_edge
  dropout: 0.2
"""
    + _DATA
    + """\
  batch_size: 32
augment:
  - crop: {{scale: [0.4, 1.0]}}
  - flip: {{p: 0.5}}
  - color: {{brightness: 0.2, contrast: 0.2, saturation: 0.2}}
train:
  epochs: 20
  optimizer: adamw
  learning_rate: 0.001
  weight_decay: 0.01
  schedule: {{cosine: {{warmup_epochs: 1}}}}
  precision: float32        # mixed_bfloat16 on recent GPUs
  monitor: {monitor}
  early_stopping: {{patience: 8}}
"""
)

# How what predicts boxes or pixels is trained.
_DENSE_TRAIN = """\
  optimizer: adamw
  learning_rate: 0.001
  weight_decay: 0.0005
  schedule: {{cosine: {{warmup_epochs: 2}}}}
  clip_norm: 10.0
  precision: float32        # mixed_bfloat16 on recent GPUs
  monitor: {monitor}
  early_stopping: {{patience: 20}}
"""

_DETECTION = (
    _HEAD
    + """\
  image_size: [{size}, {size}]    # height, width; multiples of 32
  resize: letterbox         # or stretch, shortest_edge
"""
    + _DATA
    + """\
  batch_size: 16
augment:
  - flip: {{p: 0.5}}
  - scale_jitter: {{range: [0.5, 1.5]}}
  - color: {{brightness: 0.2, contrast: 0.2, saturation: 0.4}}
train:
  epochs: 60
"""
    + _DENSE_TRAIN
)

_INSTANCES = (
    _HEAD
    + """\
  image_size: [{size}, {size}]    # height, width; multiples of 32
  resize: letterbox         # or stretch, shortest_edge
"""
    + _DATA
    + """\
  batch_size: 4
  max_boxes: auto           # of one image; what it drops is counted
augment:
  - flip: {{p: 0.5}}
  - scale_jitter: {{range: [0.5, 1.5]}}
  - color: {{brightness: 0.2, contrast: 0.2, saturation: 0.2}}
train:
  epochs: 60
"""
    + _DENSE_TRAIN
)

_SEGMENTATION = (
    _HEAD
    + """\
  image_size: [{size}, {size}]    # height, width; multiples of 32
  resize: letterbox         # or stretch, center_crop, shortest_edge
"""
    + _DATA
    + """\
  batch_size: 8
augment:
  - class_crop: {{scale: [0.5, 1.0], p: 0.5}}    # about rare classes too
  - flip: {{p: 0.5}}
  - color: {{brightness: 0.2, contrast: 0.2, saturation: 0.2}}
train:
  epochs: 60
  loss: crossentropy        # or {{sum: {{losses: [crossentropy, dice]}}}}
"""
    + _DENSE_TRAIN
)

# Task -> (recipe, side of the images, what decides which epoch is best).
_TEMPLATES = {
    "classification": (_CLASSIFICATION, 224, "val_accuracy"),
    "detection": (_DETECTION, 512, "val_map"),
    "instance_segmentation": (_INSTANCES, 512, "val_mask_map"),
    "semantic_segmentation": (_SEGMENTATION, 512, "val_mean_iou"),
}


def new_recipe(
    task: str, root, *, model: str | None = None, backbone: str = "mobilenet_v2"
) -> str:
    """The text of a recipe for the data in `root`, checked before it is returned.

    Args:
        task: A key of `MODELS`.
        root: Folder of a data set; its format is found out.
        model: Default the task's first.
        backbone: A key of `BACKBONES`.

    Raises:
        RecipeError: Unknown task, model or backbone.
        ValueError: No known data format in `root`.
    """
    check_name("task", task, MODELS, RecipeError)
    model = model or next(iter(MODELS[task]))
    check_name("model", model, MODELS[task], RecipeError)
    check_name("backbone", backbone, BACKBONES, RecipeError)
    if model == "fast_rcnn":
        raise RecipeError(
            "A Fast R-CNN trains on proposals of another detector, which `new` does "
            "not know. Take a recipe for faster_rcnn, change model.name, and name what "
            "`predict --proposals` wrote in data.train and data.validation."
        )
    found = detect_source(root, task)
    template, size, monitor = _TEMPLATES[task]
    info = found.source.info
    names = ", ".join(info.class_names[:8]) + (" ..." if info.num_classes > 8 else "")
    text = template.format(
        task=task,
        model=model,
        backbone=backbone,
        weights="null" if backbone in CLASSIFICATION_ONLY else "imagenet",
        size=32 if backbone == "lenet5" else size,
        root=_quoted(Path(root)),
        source=found.name,
        train=_flow(found.train),
        validation=0.2 if found.validation is None else _flow(found.validation),
        num_examples=info.num_examples,
        num_classes=info.num_classes,
        names=_comment(names),
        monitor=monitor,
    )
    _check_text(text)
    return text


def _check_text(text: str) -> None:
    import yaml

    raw = yaml.safe_load(text)
    recipe_class(raw).model_validate(raw)


def _quoted(path: Path) -> str:
    """The path as a YAML scalar."""
    import json

    return json.dumps(str(path), ensure_ascii=False)


def _flow(options: dict) -> str:
    import json

    pairs = (f"{k}: {json.dumps(v, ensure_ascii=False)}" for k, v in options.items())
    return "{" + ", ".join(pairs) + "}"


def _comment(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode().replace("\n", " ")
