"""Recipes: one YAML file, complete in itself, checked before anything slow starts.

Reading and refusing a recipe imports neither TensorFlow nor Keras.
"""

from __future__ import annotations

import contextlib
import copy
import inspect

import pydantic
import yaml

from visionkit._spelling import nearest
from visionkit.training.recipe_base import Section, loss_names, named_options
from visionkit.training.recipe_files import (
    RecipeError,
    find_recipe,
    parse_yaml,
    read_yaml,
)
from visionkit.training.recipe_sections import Recipe, recipe_class

__all__ = ["Recipe", "check_names", "load_recipe", "named_options"]


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
    kind = recipe_class(raw)
    try:
        recipe = kind.model_validate(raw)
    except pydantic.ValidationError as error:
        raise RecipeError(_explain(origin, kind, error)) from None
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
        if isinstance(node, list):
            node = _item(node, parent, override)
            continue
        if not isinstance(node.get(parent), dict | list):
            node[parent] = {}
        node = node[parent]
    if isinstance(node, list):
        _item(node, last, override)
        last = int(last)
    node[last] = value


def _item(items: list, place: str, override: str):
    if not place.isdigit() or int(place) >= len(items):
        raise RecipeError(
            f"{override!r}: {place!r} is no place in a list of {len(items)}; they are "
            "counted from 0."
        )
    return items[int(place)]


def _explain(origin: str, kind, error: pydantic.ValidationError) -> str:
    lines: dict[str, str] = {}
    for fault in error.errors():
        section, parent, keys = kind, kind, []
        for part in map(str, fault["loc"]):
            if section is None:  # what follows names a branch of a union
                break
            keys.append(part)
            if part.isdigit():  # an item of a list of sections
                continue
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
            text = f"{message[0].lower()}{message[1:]}"
            if keys:  # else it is about keys that do not go together, and names them
                text = f"found {fault['input']!r}; {text}"
        lines.setdefault(".".join(keys) or "together", text)
    body = "\n".join(f"  {key}: {text}" for key, text in lines.items())
    return f"{origin} is not a valid recipe:\n{body}"


def _section_in(annotation) -> type[Section] | None:
    """The section that a field holds, also behind `| None` and in a list."""
    if inspect.isclass(annotation) and issubclass(annotation, Section):
        return annotation
    found = map(_section_in, getattr(annotation, "__args__", ()))
    return next(filter(None, found), None)


def check_names(recipe: Recipe, origin: str) -> None:
    """Refuse names that are in none of the tables, without importing what they name.

    Raises:
        RecipeError: Unknown model, backbone, source, source option or transform, or
            holes that the backbone cannot have.
    """
    from visionkit.backbones import BACKBONES
    from visionkit.backbones.limits import check_multi_grid, check_output_stride
    from visionkit.data.sources import SOURCES, source_class
    from visionkit.data.transforms import build_transforms
    from visionkit.losses import LOSSES
    from visionkit.tasks import MODELS
    from visionkit.training.phases import phase_recipes

    def check(key, value, table):
        if value not in table:
            raise RecipeError(
                f"{origin} is not a valid recipe:\n  {key}: found {value!r};"
                f"{nearest(value, table)} Legal: {', '.join(sorted(table))}"
            )

    check("task", recipe.task, MODELS)
    check("model.name", recipe.model.name, MODELS[recipe.task])
    check("model.backbone", recipe.model.backbone, BACKBONES)
    with _about(origin, "model"):
        model = recipe.model
        check_output_stride(model.backbone, getattr(model, "output_stride", 32))
        check_multi_grid(model.backbone, getattr(model, "multi_grid", None))
    check("data.source", recipe.data.source, SOURCES)
    for name in loss_names(recipe.train.loss) if recipe.train.loss else ():
        check("train.loss", name, LOSSES[recipe.task])
    legal = set(inspect.signature(source_class(recipe.data.source)).parameters)
    for split in ("train", "validation"):
        options = getattr(recipe.data, split)
        for option in options if isinstance(options, dict) else ():
            check(f"data.{split}", option, legal - {"task"})
    if recipe.data.root is not None and "root" not in legal:
        check("data", "root", legal)
    sizes = {phase.model.image_size for phase in phase_recipes(recipe)}
    with _about(origin, "augment"):
        build_transforms(recipe.augment, recipe.task)
    if recipe.train.distribute != "none" and recipe.train.accumulation_steps > 1:
        raise RecipeError(
            f"{origin} is not a valid recipe:\n  train.accumulation_steps: found "
            f"{recipe.train.accumulation_steps}; Keras cannot accumulate gradients on "
            "several devices. Use distribute: none, or a larger data.batch_size."
        )
    if len(sizes) > 1 and getattr(recipe.model, "top", "pooled") != "pooled":
        raise RecipeError(
            f"{origin} is not a valid recipe:\n  train.phases: found several "
            f"image_size with model.top={recipe.model.top!r}; a published top has a "
            "fixed size. Use top: pooled, or one size."
        )


@contextlib.contextmanager
def _about(origin: str, key: str):
    """A `ValueError` within it becomes a `RecipeError` about this key."""
    try:
        yield
    except ValueError as error:
        raise RecipeError(
            f"{origin} is not a valid recipe:\n  {key}: {error}"
        ) from None
