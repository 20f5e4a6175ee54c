"""From a recipe's words to objects: the one place where names are resolved."""

from __future__ import annotations

import inspect

from visionkit.training.recipe import Recipe, named_options
from visionkit.training.recipe_files import RecipeError
from visionkit.types import Preprocessing


def build_preprocessing(recipe: Recipe) -> Preprocessing:
    """The recipe's `Preprocessing`."""
    model = recipe.model
    return Preprocessing(
        model.image_size,
        model.resize,
        model.channels,
        recipe.data.exif,
        crop_fraction=model.crop_fraction,
    )


def build_sources(recipe: Recipe):
    """The recipe's (train, validation) sources.

    Raises:
        RecipeError: The two splits do not have the same classes.
    """
    from visionkit.data.sources import build_source, source_class
    from visionkit.data.split import split_source

    data = recipe.data
    takes = inspect.signature(source_class(data.source)).parameters
    common = {"root": data.root} if data.root is not None else {}
    if "task" in takes:
        common["task"] = recipe.task
    train = build_source(data.source, **common, **data.train)
    if isinstance(data.validation, float):
        return split_source(train, data.validation, data.split_seed)
    validation = build_source(data.source, **common, **data.validation)
    if train.info.class_names != validation.info.class_names:
        raise RecipeError(
            "data.train and data.validation must have the same classes; found "
            f"{list(train.info.class_names)} and {list(validation.info.class_names)}."
        )
    return train, validation


def build_transforms(recipe: Recipe):
    """The recipe's augmentation, in order."""
    from visionkit.data.transforms import build_transforms as build

    return build(recipe.augment)


def build_model(recipe: Recipe, class_names):
    """The recipe's model, uncompiled."""
    from visionkit.backbones import build_backbone
    from visionkit.tasks import model_class

    options = recipe.model
    backbone = build_backbone(
        options.backbone,
        tuple(options.image_size),
        channels=options.channels,
        weights=options.weights,
        output_stride=options.output_stride,
        freeze=tuple(options.freeze),
        norm_momentum=options.norm_momentum,
    )
    return model_class(recipe.task, options.name)(
        backbone,
        len(class_names),
        top=options.top,
        dropout=options.dropout,
        label_smoothing=options.label_smoothing,
        preprocessing=build_preprocessing(recipe),
        class_names=class_names,
    )


def compile_model(model, recipe: Recipe, steps_per_epoch: int) -> None:
    """Compile `model` with the recipe's optimizer and schedule."""
    from visionkit.training.optimizers import build_optimizer
    from visionkit.training.schedules import build_schedule

    train = recipe.train
    name, options = named_options(train.optimizer)
    schedule = build_schedule(
        train.schedule,
        train.learning_rate,
        steps_per_epoch=steps_per_epoch,
        epochs=train.epochs,
    )
    optimizer = build_optimizer(
        name,
        options,
        learning_rate=schedule,
        weight_decay=train.weight_decay,
        clip_norm=train.clip_norm,
        accumulation_steps=train.accumulation_steps,
        ema=train.ema,
    )
    model.compile(optimizer=optimizer, jit_compile=train.jit_compile)
