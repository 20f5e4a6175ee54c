"""Recipes: one YAML file, complete in itself, checked before anything slow starts.

Reading and refusing a recipe imports neither TensorFlow nor Keras.
"""

from __future__ import annotations

import copy
import inspect
from typing import Any, Literal

import pydantic
import yaml

from visionkit._spelling import nearest
from visionkit.training.recipe_files import (
    RecipeError,
    find_recipe,
    parse_yaml,
    read_yaml,
)
from visionkit.types import RESIZE_MODES, TASKS


class _Section(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(
        extra="forbid", validate_default=True, allow_inf_nan=False
    )


class ModelRecipe(_Section):
    """`model`: the keywords of `build_backbone` and of the task's constructor."""

    name: str = "classifier"
    backbone: str
    weights: str | None = None
    freeze: list[str] = []
    output_stride: Literal[8, 16, 32] = 32
    norm_momentum: float | None = pydantic.Field(None, ge=0, lt=1)
    image_size: tuple[pydantic.PositiveInt, pydantic.PositiveInt]
    resize: Literal[RESIZE_MODES] = "center_crop"
    crop_fraction: float = pydantic.Field(0.875, gt=0, le=1)
    channels: Literal[1, 3] = 3
    top: Literal["pooled", "paper"] = "pooled"
    dropout: float = pydantic.Field(0.0, ge=0, lt=1)
    label_smoothing: float = pydantic.Field(0.0, ge=0, lt=1)


class DataRecipe(_Section):
    """`data`: a source, its splits and how it is read.

    `train` and `validation` are options of the source, `root` and `task` are passed
    where it takes them. `validation` may be a share of the training set instead.
    """

    source: str
    root: str | None = None
    train: dict[str, Any] = {}
    validation: float | dict[str, Any] = 0.2
    split_seed: pydantic.NonNegativeInt = 0
    batch_size: pydantic.PositiveInt = 32
    exif: Literal["apply", "ignore"] = "apply"
    max_bad: float = pydantic.Field(0.01, ge=0, le=1)

    @pydantic.field_validator("validation")
    @classmethod
    def _share(cls, value):
        if isinstance(value, float) and not 0 < value < 1:
            raise ValueError("a share of the training set must be in (0, 1)")
        return value


class EarlyStoppingRecipe(_Section):
    """`train.early_stopping`: stop when `train.monitor` no longer improves."""

    patience: pydantic.PositiveInt = 10
    min_delta: float = pydantic.Field(0.0, ge=0)


class TrainRecipe(_Section):
    """`train`: everything about the optimisation."""

    epochs: pydantic.PositiveInt
    optimizer: str | dict[str, dict[str, Any] | None] = "adamw"
    learning_rate: pydantic.PositiveFloat = 0.001
    schedule: str | dict[str, dict[str, Any] | None] = "constant"
    weight_decay: pydantic.NonNegativeFloat = 0.0
    clip_norm: pydantic.PositiveFloat | None = None
    accumulation_steps: pydantic.PositiveInt = 1
    ema: float | None = pydantic.Field(None, gt=0, lt=1)
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = "float32"
    jit_compile: Literal["auto"] | bool = "auto"
    distribute: Literal["none"] = "none"
    monitor: str = "val_loss"
    early_stopping: EarlyStoppingRecipe | None = None
    checkpoint_steps: pydantic.PositiveInt | None = None
    tensorboard: bool = True
    deterministic: bool = False
    seed: pydantic.NonNegativeInt = 0

    @pydantic.field_validator("optimizer", "schedule")
    @classmethod
    def _one_name(cls, value):
        if isinstance(value, dict) and len(value) != 1:
            raise ValueError("must be a name, or one name with its options")
        return value


class ExportRecipe(_Section):
    """`export`: the SavedModel."""

    style: Literal["visionkit"] = "visionkit"


class Recipe(_Section):
    """A whole recipe. `name` is the file's name unless given."""

    name: str = "recipe"
    task: Literal[TASKS]
    model: ModelRecipe
    data: DataRecipe
    augment: list[str | dict[str, dict[str, Any] | None]] = []
    train: TrainRecipe
    export: ExportRecipe = ExportRecipe()

    def to_yaml(self) -> str:
        """The resolved recipe as YAML text that `load_recipe` reads back."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True)

    def to_dict(self) -> dict:
        """Plain dicts, lists and numbers."""
        return self.model_dump(mode="json")


def named_options(item: str | dict) -> tuple[str, dict]:
    """`"flip"` and `{"flip": {"p": 0.5}}` alike as (name, options)."""
    if isinstance(item, str):
        return item, {}
    ((name, options),) = item.items()
    return name, dict(options or {})


def load_recipe(source, overrides: list[str] | tuple[str, ...] = ()) -> Recipe:
    """Read and check a recipe.

    Args:
        source: A path, the bare name of one of visionkit's recipes, a dict, or a
            `Recipe`.
        overrides: `"key.path=value"` texts, values spelled as in YAML.

    Raises:
        RecipeError: Naming file, key, value found, and what was expected.
    """
    if isinstance(source, Recipe):
        origin, raw = source.name, source.to_dict()
    elif isinstance(source, dict):
        origin, raw = "recipe", copy.deepcopy(source)
    else:
        path = find_recipe(source)
        origin, raw = str(path), read_yaml(path)
        raw.setdefault("name", path.parent.name if path.stem == "recipe" else path.stem)
    for override in overrides:
        _override(raw, override)
    try:
        recipe = Recipe.model_validate(raw)
    except pydantic.ValidationError as error:
        raise RecipeError(_explain(origin, error)) from None
    check_names(recipe, origin)
    return recipe


def _override(raw: dict, override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise RecipeError(
            f"Overrides are spelled key=value, e.g. train.epochs=5. Found {override!r}."
        )
    try:
        value = parse_yaml(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"{override!r}: the value is not YAML: {error}") from None
    *parents, last = key.split(".")
    node = raw
    for parent in parents:
        if not isinstance(node.get(parent), dict):
            node[parent] = {}
        node = node[parent]
    node[last] = value


def _explain(origin: str, error: pydantic.ValidationError) -> str:
    lines: dict[str, str] = {}
    for fault in error.errors():
        section, parent, keys = Recipe, Recipe, []
        for part in map(str, fault["loc"]):
            if section is None:  # what follows names a branch of a union
                break
            keys.append(part)
            parent = section
            field = parent.model_fields.get(part)
            section = _section_in(field.annotation) if field else None
        if fault["type"] == "extra_forbidden":
            legal = list(parent.model_fields)
            text = f"unknown key.{nearest(keys[-1], legal)} Legal: {', '.join(legal)}"
        elif fault["type"] == "missing":
            text = "this key is required and missing"
        else:
            message = fault["msg"].removeprefix("Value error, ")
            text = f"found {fault['input']!r}; {message[0].lower()}{message[1:]}"
        lines.setdefault(".".join(keys), text)
    body = "\n".join(f"  {key}: {text}" for key, text in lines.items())
    return f"{origin} is not a valid recipe:\n{body}"


def _section_in(annotation) -> type[_Section] | None:
    """The section that a field holds, also behind `| None`."""
    for kind in (annotation, *getattr(annotation, "__args__", ())):
        if isinstance(kind, type) and issubclass(kind, _Section):
            return kind
    return None


def check_names(recipe: Recipe, origin: str) -> None:
    """Refuse names that are in none of the tables, without importing what they name.

    Raises:
        RecipeError: Unknown model, backbone, source, source option or transform.
    """
    from visionkit.backbones import BACKBONES
    from visionkit.data.sources import SOURCES, source_class
    from visionkit.data.transforms import build_transforms
    from visionkit.tasks import MODELS

    def check(key, value, table):
        if value not in table:
            raise RecipeError(
                f"{origin} is not a valid recipe:\n  {key}: found {value!r};"
                f"{nearest(value, table)} Legal: {', '.join(sorted(table))}"
            )

    check("task", recipe.task, MODELS)
    check("model.name", recipe.model.name, MODELS[recipe.task])
    check("model.backbone", recipe.model.backbone, BACKBONES)
    check("data.source", recipe.data.source, SOURCES)
    legal = set(inspect.signature(source_class(recipe.data.source)).parameters)
    for split in ("train", "validation"):
        options = getattr(recipe.data, split)
        for option in options if isinstance(options, dict) else ():
            check(f"data.{split}", option, legal - {"task"})
    if recipe.data.root is not None and "root" not in legal:
        check("data", "root", legal)
    try:
        build_transforms(recipe.augment)
    except ValueError as error:
        raise RecipeError(
            f"{origin} is not a valid recipe:\n  augment: {error}"
        ) from None
