"""What a recipe may say: its sections, their keys and values.

Nothing here imports TensorFlow or Keras.
"""

from __future__ import annotations

import functools
from typing import Any, Literal

import pydantic
import yaml

from visionkit.training.recipe_base import (
    Named,
    Section,
    Size,
    check_parts,
    one_name,
)
from visionkit.training.recipe_models import MODEL_RECIPES, ModelRecipe
from visionkit.types import STYLES, TASKS


class DataRecipe(Section):
    """`data`: a source, its splits and how it is read.

    `train` and `validation` are options of the source, `root` and `task` are passed
    where it takes them. `validation` may be a share of the training set instead.
    `oversample` repeats the training images of rare classes. `max_boxes` is what one
    image can have in training, "auto" the training set's maximum, at most 400.
    """

    source: str
    root: str | None = None
    train: dict[str, Any] = pydantic.Field(default_factory=dict)
    validation: float | dict[str, Any] = 0.2
    split_seed: pydantic.NonNegativeInt = 0
    oversample: bool = False
    batch_size: pydantic.PositiveInt = 32
    exif: Literal["apply", "ignore"] = "apply"
    max_bad: float = pydantic.Field(0.01, ge=0, le=1)
    max_boxes: Literal["auto"] | pydantic.PositiveInt = "auto"

    @pydantic.field_validator("validation")
    @classmethod
    def _share(cls, value):
        if isinstance(value, float) and not 0 < value < 1:
            raise ValueError("a share of the training set must be in (0, 1)")
        return value


class EarlyStoppingRecipe(Section):
    """`train.early_stopping`: stop when `train.monitor` no longer improves."""

    patience: pydantic.PositiveInt = 10
    min_delta: float = pydantic.Field(0.0, ge=0)


class BorderWeightsRecipe(Section):
    """`train.border_weights`: U-Net's weights of the pixels between objects.

    They are the connected regions of each class but `background`, by default the first.
    """

    weight: pydantic.PositiveFloat = 10.0
    sigma: pydantic.PositiveFloat = 5.0
    background: str | None = None


class ClusterRecipe(Section):
    """`train.cluster`: the processes of `distribute: data_parallel`, one per machine.

    `job_addresses` is "host:port" of process 0, or of all processes; `num_processes`
    their number; `process_id` which of them this is, from 0. What is left out is read
    from KERAS_DISTRIBUTION_JOB_ADDRESSES, _NUM_PROCESSES and _PROCESS_ID; with none of
    the three there is one process. A process that has not been heard of for
    `heartbeat_seconds` counts as dead, which ends the others.
    """

    job_addresses: str | list[str] | None = None
    num_processes: pydantic.PositiveInt | None = None
    process_id: pydantic.NonNegativeInt | None = None
    heartbeat_seconds: pydantic.PositiveInt = 100


class PhaseRecipe(Section):
    """One of `train.phases`; what it leaves out is what the recipe says elsewhere."""

    epochs: pydantic.PositiveInt
    learning_rate: pydantic.PositiveFloat | None = None
    schedule: Named | None = None
    freeze: list[str] | None = None
    image_size: Size | None = None

    _check_schedule = pydantic.field_validator("schedule")(one_name)


class TrainRecipe(Section):
    """`train`: everything about the optimisation.

    With `phases`, `epochs` is their sum and need not be given. `loss` and
    `class_weights` are a classifier's or a segmenter's, and a part of a sum of losses
    may have `class_weights` of its own; `loss_weights` are a detector's;
    what is left out is the model's own. `validation_freq` is the number of epochs from
    one validation to the next.
    """

    phases: list[PhaseRecipe] | None = pydantic.Field(None, min_length=1)
    epochs: pydantic.PositiveInt | None = None
    optimizer: Named = "adamw"
    learning_rate: pydantic.PositiveFloat = 0.001
    schedule: Named = "constant"
    weight_decay: pydantic.NonNegativeFloat = 0.0
    loss: Named | None = None
    loss_weights: dict[str, pydantic.NonNegativeFloat] | None = None
    class_weights: Literal["balanced"] | dict[str, pydantic.NonNegativeFloat] | None = (
        None
    )
    border_weights: BorderWeightsRecipe | None = None
    clip_norm: pydantic.PositiveFloat | None = None
    accumulation_steps: pydantic.PositiveInt = 1
    ema: float | None = pydantic.Field(None, gt=0, lt=1)
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = "float32"
    jit_compile: Literal["auto"] | bool = "auto"
    distribute: Literal["none", "mirrored", "data_parallel"] = "none"
    cluster: ClusterRecipe | None = None
    monitor: str | None = None
    validation_freq: pydantic.PositiveInt = 1
    early_stopping: EarlyStoppingRecipe | None = None
    checkpoint_steps: pydantic.PositiveInt | None = None
    tensorboard: bool = True
    deterministic: bool = False
    seed: pydantic.NonNegativeInt = 0

    _check_names = pydantic.field_validator("optimizer", "schedule", "loss")(one_name)
    _check_sum = pydantic.field_validator("loss")(check_parts)

    @pydantic.field_validator("epochs")
    @classmethod
    def _sum_of_phases(cls, value, info):
        if "phases" not in info.data:  # they are wrong themselves
            return value
        phases = info.data["phases"]
        if phases is None:
            if value is None:
                raise ValueError("a number of epochs is required, or train.phases")
            return value
        total = sum(phase.epochs for phase in phases)
        if value not in (None, total):
            raise ValueError(
                f"train.phases have {total} epochs together; leave train.epochs out "
                "and change the epochs of a phase, e.g. train.phases.0.epochs=5"
            )
        return total


class ExportRecipe(Section):
    """`export`: the SavedModel."""

    style: Literal[STYLES] = "visionkit"


# What a recipe leaves out and its task decides.
_LOSS = {"classification": "crossentropy", "semantic_segmentation": "crossentropy"}
_MONITOR = {
    "classification": "val_loss",
    "detection": "val_map",
    "instance_segmentation": "val_mask_map",
    "semantic_segmentation": "val_mean_iou",
}

_WITH_LOSS = " and ".join(_LOSS)


class Recipe(Section):
    """A whole recipe. `name` is the file's name unless given."""

    name: str = "recipe"
    task: Literal[TASKS]
    model: ModelRecipe
    data: DataRecipe
    augment: str | list[Named] = pydantic.Field(default_factory=list)
    train: TrainRecipe
    export: ExportRecipe = ExportRecipe()

    @pydantic.model_validator(mode="after")
    def _fill_in(self):
        train = self.train
        if train.loss is None:
            train.loss = _LOSS.get(self.task)
        elif self.task not in _LOSS:
            raise ValueError(
                f"train.loss is for {_WITH_LOSS}; {self.model.name} has its own. "
                "Change their shares by train.loss_weights"
            )
        if self.task in _LOSS and train.loss_weights:
            raise ValueError("train.loss_weights is for models of several losses")
        if self.task not in _LOSS and train.class_weights:
            raise ValueError(f"train.class_weights is for {_WITH_LOSS}")
        if self.task != "semantic_segmentation" and train.border_weights:
            raise ValueError("train.border_weights is for semantic_segmentation")
        if train.cluster and train.distribute != "data_parallel":
            raise ValueError(
                f"train.cluster is for train.distribute: data_parallel; found "
                f"{train.distribute!r}. Leave it out, or distribute so"
            )
        train.monitor = train.monitor or _MONITOR[self.task]
        return self

    def to_yaml(self) -> str:
        """The resolved recipe as YAML text that `load_recipe` reads back."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True)

    def to_dict(self) -> dict:
        """Plain dicts, lists and numbers."""
        raw = self.model_dump(mode="json")
        if self.train.phases:  # so that a phase's epochs can be changed alone
            del raw["train"]["epochs"]
        return raw


def recipe_class(raw: dict) -> type[Recipe]:
    """The kind of `Recipe` that a recipe's raw content asks for.

    Where it names no known task or model that is `Recipe` itself, which will refuse it.
    """
    model = raw.get("model")
    default = next(iter(MODEL_RECIPES.get(raw.get("task"), ())), None)
    name = model.get("name", default) if isinstance(model, dict) else None
    return _recipe_class(str(raw.get("task")), str(name))


@functools.cache
def _recipe_class(task: str, name: str) -> type[Recipe]:
    section = MODEL_RECIPES.get(task, {}).get(name)
    if section is None:
        return Recipe
    return pydantic.create_model("Recipe", __base__=Recipe, model=(section, ...))
