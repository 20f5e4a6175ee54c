"""From a recipe's words to objects: the one place where names are resolved."""

from __future__ import annotations

import inspect
from collections.abc import Sequence

from visionkit._spelling import check_name
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
        min_edge=model.min_edge,
        max_edge=model.max_edge,
    )


def build_sources(recipe: Recipe):
    """The recipe's (train, validation) sources; with `oversample` the first repeats.

    Raises:
        RecipeError: The two splits do not have the same classes.
    """
    train, validation = _build_splits(recipe)
    if recipe.data.oversample:
        from visionkit.data.sources.balance import Oversampled

        train = Oversampled(train, recipe.data.split_seed)
    return train, validation


def _build_splits(recipe: Recipe):
    from visionkit.data.sources import build_source
    from visionkit.data.split import split_source

    data = recipe.data
    common = _common_options(recipe)
    train = build_source(data.source, **common | data.train)
    if isinstance(data.validation, float):
        return split_source(train, data.validation, data.split_seed)
    validation = build_source(data.source, **common | data.validation)
    if train.info.class_names != validation.info.class_names:
        raise RecipeError(
            "data.train and data.validation must have the same classes; found "
            f"{list(train.info.class_names)} and {list(validation.info.class_names)}."
        )
    if train.info.multi_label != validation.info.multi_label:
        raise RecipeError(
            "data.train and data.validation must both have one label per image, or "
            "both any number."
        )
    return train, validation


def build_validation(recipe: Recipe):
    """The recipe's validation source; the training data is read only to split it."""
    from visionkit.data.sources import build_source

    if isinstance(recipe.data.validation, float):
        return build_sources(recipe)[1]
    options = _common_options(recipe) | recipe.data.validation
    return build_source(recipe.data.source, **options)


def _common_options(recipe: Recipe) -> dict:
    """The source's options that both splits have, unless they say otherwise."""
    from visionkit.data.sources import source_class

    takes = inspect.signature(source_class(recipe.data.source)).parameters
    options = {"root": recipe.data.root} if recipe.data.root is not None else {}
    return options | ({"task": recipe.task} if "task" in takes else {})


def build_transforms(recipe: Recipe):
    """The recipe's augmentation, in order."""
    from visionkit.data.transforms import build_transforms as build

    return build(recipe.augment, recipe.task)


def build_model(recipe: Recipe, info, *, pretrained: bool = True):
    """The recipe's model, uncompiled.

    Args:
        recipe: The resolved recipe.
        info: `SourceInfo` of the training data, for its classes.
        pretrained: Whether to load the recipe's weights (`model.weights` or
            `model.start_from`); not where others come anyway.

    Raises:
        RecipeError: What `model.start_from` names is no model that this one can start
            from.
    """
    from visionkit.backbones import build_backbone
    from visionkit.data.transforms import stage_of
    from visionkit.tasks import model_class
    from visionkit.training.start import start_model

    options = recipe.model
    sizes_differ = any(
        stage_of(transform) == "size" for transform in build_transforms(recipe)
    )
    backbone = build_backbone(
        options.backbone,
        (None, None) if sizes_differ else tuple(options.image_size),
        channels=options.channels,
        weights=options.weights if pretrained else None,
        output_stride=getattr(options, "output_stride", 32),
        multi_grid=getattr(options, "multi_grid", None),
        freeze=tuple(options.freeze),
        norm_momentum=options.norm_momentum,
        stochastic_depth=options.stochastic_depth,
        backbone_dropout=options.backbone_dropout,
    )
    own = options.options()
    if recipe.task == "classification":
        own["multi_label"] = info.multi_label
    model = model_class(recipe.task, options.name)(
        backbone,
        info.num_classes,
        preprocessing=build_preprocessing(recipe),
        class_names=info.class_names,
        **own,
    )
    if pretrained and options.start_from:
        model.started_from = start_model(model, options.start_from)
    return model


def build_loss(recipe: Recipe, source):
    """The recipe's loss, with the weights of the classes.

    Args:
        recipe: The resolved recipe.
        source: The training data, whose classes are counted for "balanced".

    Raises:
        RecipeError: Unknown option or class.
    """
    known = {"class_weights": class_weights(recipe.train.class_weights, source)}
    if recipe.task == "classification":
        known["label_smoothing"] = recipe.model.label_smoothing
    return _build_loss(recipe.train.loss, source, known)


def _build_loss(spec, source, known: dict, own: Sequence[str] = ()):
    """A loss by name; of a sum its parts too, which may have other class weights.

    Args:
        spec: A name, or a name with its options.
        source: The training data.
        known: Options that other keys of the recipe say.
        own: Those of them that this loss may have for itself.
    """
    from visionkit.losses import loss_class

    name, options = named_options(spec)
    info = source.info
    loss = loss_class(info.task, name, info.multi_label)
    takes = inspect.signature(loss).parameters.keys()
    legal = takes - ({*known, "name", "kwargs"} - {*own})
    for option in options:
        check_name(f"option of the loss {name!r}", option, sorted(legal), RecipeError)
    if "losses" in options:
        options["losses"] = [
            _build_loss(part, source, known, ["class_weights"])
            for part in options["losses"]
        ]
    if "class_weights" in options:
        weights = class_weights(options.pop("class_weights"), source)
        known = {**known, "class_weights": weights}
    try:
        return loss(**options, **{k: v for k, v in known.items() if k in takes})
    except (TypeError, ValueError) as error:
        raise RecipeError(f"train.loss: {error}") from None


def class_weights(spec, source) -> list[float] | None:
    """A weight per class, as `train.class_weights` says.

    Args:
        spec: None; "balanced"; or a dict from class names to weights, 1 for those left
            out. Balanced is for labels labels / (classes * labels of the class), a
            class without any counting as if it had one, so that the mean over all
            labels is 1; for masks see `median_frequency_weights`.
        source: The training data. Its masks are all read for "balanced".

    Raises:
        RecipeError: Neither of these, or a name that is no class.
    """
    names = source.info.class_names
    if spec is None:
        return None
    if spec == "balanced":
        if source.info.task == "semantic_segmentation":
            return median_frequency_weights(source.mask_counts()[:, :-1])
        counts = source.class_counts()
        return (counts.sum() / (len(names) * counts.clip(min=1))).tolist()
    if not isinstance(spec, dict):
        raise RecipeError(
            "class_weights must be 'balanced', or a table from class names to weights. "
            f"Received: {spec!r}"
        )
    for name in spec:
        check_name("class in train.class_weights", name, names, RecipeError)
    return [float(spec.get(name, 1.0)) for name in names]


def median_frequency_weights(pixels) -> list[float]:
    """Weights by which the classes of masks count alike (Eigen & Fergus 2015).

    The frequency of a class is its share of the pixels of those images that have it;
    its weight is the median of all frequencies over its own, and 1 where no image has
    it. Void is no pixel here.

    Args:
        pixels: (N, K) integers, pixels of each class in each image.
    """
    import numpy as np

    of_image = pixels.sum(axis=1, keepdims=True)
    around = (of_image * (pixels > 0)).sum(axis=0)
    share = pixels.sum(axis=0) / np.maximum(around, 1)
    found = share > 0
    if not found.any():
        return [1.0] * len(share)
    middle = np.median(share[found])
    return np.where(found, middle / np.where(found, share, 1), 1.0).tolist()


def weigh_pixels(dataset, recipe: Recipe, info):
    """Training batches with `train.border_weights` as sample weights, if it is there.

    Raises:
        RecipeError: Its background is no class.
        ValueError: The masks have been mixed.
    """
    options = recipe.train.border_weights
    if options is None:
        return dataset
    from visionkit.data.border_weights import weigh_borders

    background = options.background or info.class_names[0]
    key = "class in train.border_weights.background"
    check_name(key, background, info.class_names, RecipeError)
    number = info.class_names.index(background)
    return weigh_borders(dataset, options.weight, options.sigma, number)


def compile_model(model, recipe: Recipe, source, steps_per_epoch: int) -> None:
    """Compile `model` with the recipe's loss, optimizer and schedule."""
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
    losses = {"loss_weights": train.loss_weights}
    if train.loss:
        losses = {"loss": build_loss(recipe, source)}
    model.compile(optimizer=optimizer, jit_compile=train.jit_compile, **losses)
