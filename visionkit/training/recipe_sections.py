"""What a recipe may say: its sections, their keys and values.

Nothing here imports TensorFlow or Keras.
"""

from __future__ import annotations

from typing import Any, Literal

import pydantic
import yaml

from visionkit.types import RESIZE_MODES, TASKS

# A name, or one name with its options: `sgd`, `{sgd: {momentum: 0.9}}`.
Named = str | dict[str, dict[str, Any] | None]
Size = tuple[pydantic.PositiveInt, pydantic.PositiveInt]


def named_options(item: str | dict) -> tuple[str, dict]:
    """`"flip"` and `{"flip": {"p": 0.5}}` alike as (name, options)."""
    if isinstance(item, str):
        return item, {}
    ((name, options),) = item.items()
    return name, dict(options or {})


def _one_name(value):
    if isinstance(value, dict) and len(value) != 1:
        raise ValueError("must be a name, or one name with its options")
    return value


class Section(pydantic.BaseModel):
    """A part of a recipe: no unknown keys, no infinite numbers."""

    model_config = pydantic.ConfigDict(
        extra="forbid", validate_default=True, allow_inf_nan=False
    )


class ModelRecipe(Section):
    """`model`: the keywords of `build_backbone` and of the task's constructor."""

    name: str = "classifier"
    backbone: str
    weights: str | None = None
    freeze: list[str] = []
    output_stride: Literal[8, 16, 32] = 32
    norm_momentum: float | None = pydantic.Field(None, ge=0, lt=1)
    stochastic_depth: float | None = pydantic.Field(None, ge=0, lt=1)
    image_size: Size
    resize: Literal[RESIZE_MODES] = "center_crop"
    crop_fraction: float = pydantic.Field(0.875, gt=0, le=1)
    channels: Literal[1, 3] = 3
    top: Literal["pooled", "paper", "paper+auxiliary"] = "pooled"
    dropout: float = pydantic.Field(0.0, ge=0, lt=1)
    label_smoothing: float = pydantic.Field(0.0, ge=0, lt=1)


class DataRecipe(Section):
    """`data`: a source, its splits and how it is read.

    `train` and `validation` are options of the source, `root` and `task` are passed
    where it takes them. `validation` may be a share of the training set instead.
    `oversample` repeats the training images of rare classes.
    """

    source: str
    root: str | None = None
    train: dict[str, Any] = {}
    validation: float | dict[str, Any] = 0.2
    split_seed: pydantic.NonNegativeInt = 0
    oversample: bool = False
    batch_size: pydantic.PositiveInt = 32
    exif: Literal["apply", "ignore"] = "apply"
    max_bad: float = pydantic.Field(0.01, ge=0, le=1)

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


class PhaseRecipe(Section):
    """One of `train.phases`; what it leaves out is what the recipe says elsewhere."""

    epochs: pydantic.PositiveInt
    learning_rate: pydantic.PositiveFloat | None = None
    schedule: Named | None = None
    freeze: list[str] | None = None
    image_size: Size | None = None

    _check_schedule = pydantic.field_validator("schedule")(_one_name)


class TrainRecipe(Section):
    """`train`: everything about the optimisation.

    With `phases`, `epochs` is their sum and need not be given.
    """

    phases: list[PhaseRecipe] | None = pydantic.Field(None, min_length=1)
    epochs: pydantic.PositiveInt | None = None
    optimizer: Named = "adamw"
    learning_rate: pydantic.PositiveFloat = 0.001
    schedule: Named = "constant"
    weight_decay: pydantic.NonNegativeFloat = 0.0
    loss: Named = "crossentropy"
    class_weights: Literal["balanced"] | dict[str, pydantic.NonNegativeFloat] | None = (
        None
    )
    clip_norm: pydantic.PositiveFloat | None = None
    accumulation_steps: pydantic.PositiveInt = 1
    ema: float | None = pydantic.Field(None, gt=0, lt=1)
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = "float32"
    jit_compile: Literal["auto"] | bool = "auto"
    distribute: Literal["none", "mirrored"] = "none"
    monitor: str = "val_loss"
    early_stopping: EarlyStoppingRecipe | None = None
    checkpoint_steps: pydantic.PositiveInt | None = None
    tensorboard: bool = True
    deterministic: bool = False
    seed: pydantic.NonNegativeInt = 0

    _check_names = pydantic.field_validator("optimizer", "schedule", "loss")(_one_name)

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

    style: Literal["visionkit"] = "visionkit"


class Recipe(Section):
    """A whole recipe. `name` is the file's name unless given."""

    name: str = "recipe"
    task: Literal[TASKS]
    model: ModelRecipe
    data: DataRecipe
    augment: str | list[Named] = []
    train: TrainRecipe
    export: ExportRecipe = ExportRecipe()

    def to_yaml(self) -> str:
        """The resolved recipe as YAML text that `load_recipe` reads back."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True)

    def to_dict(self) -> dict:
        """Plain dicts, lists and numbers."""
        raw = self.model_dump(mode="json")
        if self.train.phases:  # so that a phase's epochs can be changed alone
            del raw["train"]["epochs"]
        return raw
