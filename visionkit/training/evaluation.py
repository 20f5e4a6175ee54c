"""Measuring a model on a source, with the task's real metrics."""

from __future__ import annotations

from pathlib import Path

from visionkit._quiet import import_keras
from visionkit.training.build import build_validation
from visionkit.training.recipe import load_recipe
from visionkit.training.recipe_files import RecipeError, as_recipe_error

_OUTPUT_STRIDE = "model.output_stride"


def evaluate(run, *, overrides=(), batch_size: int | None = None) -> dict:
    """Measure a run on its validation data.

    Args:
        run: A run folder, or a `Run`.
        overrides: `key=value` texts for the recipe's `data`, e.g.
            `data.validation.root=...`. With another split, images that the run was
            trained on may be among those it is measured on. And
            `model.output_stride=8` for a DeepLab trained at 16: the same weights, finer
            features (V3, section 4.3).
        batch_size: Default the recipe's.

    Returns:
        JSON-ready dict: see `result` of `ClassificationEvaluator`,
        `MultiLabelEvaluator`, `DetectionEvaluator`, `InstanceEvaluator` and
        `SegmentationEvaluator`; and `read`, `used` and `skipped` records, which add up.

    Raises:
        FileNotFoundError: `run` is not a run folder, or has no model yet.
        RecipeError: An override is about something else, or the model cannot have
            this output stride.
    """
    folder = Path(getattr(run, "folder", run))
    if not (folder / "recipe.yaml").is_file():
        raise FileNotFoundError(
            f"{folder} is not a run folder: it has no recipe.yaml. `train` makes one."
        )
    trained = load_recipe(folder / "recipe.yaml")
    _check_overrides(overrides, trained)
    recipe = load_recipe(folder / "recipe.yaml", overrides)
    source = build_validation(recipe)
    import_keras()
    from visionkit.tasks.loading import load

    model = load(folder)
    stride = getattr(recipe.model, "output_stride", None)
    if stride != getattr(trained.model, "output_stride", None):
        with as_recipe_error():
            model = model.with_output_stride(stride)
    return evaluate_model(
        model, source, batch_size=batch_size or recipe.data.batch_size
    )


def _check_overrides(overrides, recipe) -> None:
    """Refuses what is not about data, or an output stride of a model that keeps its."""
    for override in overrides:
        key = override.partition("=")[0]
        if not key.startswith("data.") and key != _OUTPUT_STRIDE:
            raise RecipeError(
                f"Evaluating, only data and {_OUTPUT_STRIDE} can be overridden. "
                f"Received: {override!r}"
            )
        if key == _OUTPUT_STRIDE and recipe.model.name not in (able := _able()):
            raise RecipeError(
                f"{_OUTPUT_STRIDE}: {recipe.model.name} is measured at the output "
                f"stride that it was trained at; {' and '.join(able)} can have "
                f"another. Received: {override!r}"
            )


def _able() -> list[str]:
    """The models that can be had at another output stride."""
    from visionkit.tasks import MODELS, model_class

    import_keras()
    return [
        name
        for task, names in MODELS.items()
        for name in names
        if hasattr(model_class(task, name), "with_output_stride")
    ]


def evaluate_model(
    model, source, *, batch_size: int = 32, max_bad: float = 1.0
) -> dict:
    """Measure a model on a source, each readable record once.

    Args:
        model: A `VisionTask`.
        source: A `Source` of the same task and classes.
        batch_size: Images per step.
        max_bad: Share of unreadable records above which it is an error.

    Returns:
        As `evaluate`.

    Raises:
        ValueError: The source's classes are not the model's.
    """
    scorer, report = predict_source(
        model, source, batch_size=batch_size, max_bad=max_bad
    )
    counts = report.to_dict()
    return {
        **scorer.result(),
        "read": counts["read"],
        "used": counts["used"],
        "skipped": sum(map(len, counts["skipped"].values())),
    }


def predict_source(model, source, *, batch_size: int, max_bad: float):
    """The task's scorer, filled with the model's answers, and the `DataReport`."""
    from visionkit.data import DataReport, make_dataset

    if source.info.task != model.task:
        raise ValueError(
            f"The model is for {model.task}, the data are for {source.info.task}."
        )
    if source.info.multi_label != getattr(model, "multi_label", False):
        words = {True: "any number of labels", False: "one label"}
        raise ValueError(
            f"The model gives an image {words[model.multi_label]}, the data have "
            f"{words[source.info.multi_label]} for each."
        )
    if source.info.class_names != model.class_names:
        raise ValueError(
            "The data's classes are not the model's. Expected: "
            f"{list(model.class_names)}. Found: {list(source.info.class_names)}."
        )
    report = DataReport(source, max_bad=max_bad)
    dataset = make_dataset(
        source,
        model.preprocessing,
        batch_size,
        report=report,
        with_ids=True,
        max_proposals=getattr(model, "num_proposals", None),
    )
    scorer = model.scorer(source)
    for images, target in dataset:
        # Images stay what they are: the predictor casts on the device.
        scorer.update(model.predict_on_batch(images), target)
    return scorer, report
