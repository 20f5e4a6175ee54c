"""Measuring a model on a source, with the task's real metrics."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from visionkit._quiet import import_keras
from visionkit.training.build import build_validation
from visionkit.training.recipe import load_recipe
from visionkit.training.recipe_files import RecipeError, as_recipe_error

_OUTPUT_STRIDE = "model.output_stride"


def evaluate(
    run,
    *,
    overrides=(),
    batch_size: int | None = None,
    tile: int | None = None,
    overlap: float = 0.2,
    tta: bool | Sequence[float] = False,
) -> dict:
    """Measure a run on its validation data.

        vk.evaluate("runs/cells", tta=True)     # mirrored and at three scales
        vk.evaluate("runs/streets", tile=512)   # by windows, at full size

    Args:
        run: A run folder, or a `Run`.
        overrides: `key=value` texts for the recipe's `data`, e.g.
            `data.validation.root=...`. With another split, images that the run was
            trained on may be among those it is measured on. And
            `model.output_stride=8` for a DeepLab trained at 16: the same weights, finer
            features (V3, section 4.3).
        batch_size: Default the recipe's.
        tile: As for `predict`: what is measured are the answers that it gives then,
            image by image, at their own size.
        overlap: As for `predict`.
        tta: As for `predict`.

    Returns:
        JSON-ready dict: see `result` of `ClassificationEvaluator`,
        `MultiLabelEvaluator`, `DetectionEvaluator`, `InstanceEvaluator` and
        `SegmentationEvaluator`; and `read`, `used` and `skipped` records, which add up.

    Raises:
        FileNotFoundError: `run` is not a run folder, or has no model yet.
        RecipeError: An override is about something else, or the model cannot have
            this output stride.
        ValueError: `tile`, `overlap` or `tta` is out of range or not for this task.
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
    from visionkit.inference.views import view_options
    from visionkit.tasks.loading import load

    views = view_options(recipe.task, tile, overlap, tta)
    model = load(folder)
    stride = getattr(recipe.model, "output_stride", None)
    if stride != getattr(trained.model, "output_stride", None):
        with as_recipe_error():
            model = model.with_output_stride(stride)
    return evaluate_model(
        model, source, batch_size=batch_size or recipe.data.batch_size, views=views
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
    model,
    source,
    *,
    batch_size: int = 32,
    max_bad: float = 1.0,
    views: dict | None = None,
) -> dict:
    """Measure a model on a source, each readable record once.

    Args:
        model: A `VisionTask`.
        source: A `Source` of the same task and classes.
        batch_size: Images per step.
        max_bad: Share of unreadable records above which it is an error.
        views: Several looks at each image, of `view_options`; None for one.

    Returns:
        As `evaluate`.

    Raises:
        ValueError: The source's classes are not the model's.
    """
    scorer, report = predict_source(
        model, source, batch_size=batch_size, max_bad=max_bad, views=views
    )
    counts = report.to_dict()
    return {
        **scorer.result(),
        "read": counts["read"],
        "used": counts["used"],
        "skipped": sum(map(len, counts["skipped"].values())),
    }


def predict_source(
    model, source, *, batch_size: int, max_bad: float, views: dict | None = None
):
    """The task's scorer, filled with the model's answers, and the `DataReport`."""
    from visionkit.data import DataReport, make_dataset
    from visionkit.tasks.scoring import answer_batches

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
    if views is None:
        for answers, target in answer_batches(model, dataset):
            scorer.update(answers, target)
        return scorer, report
    look = _looks(model, source.origin, batch_size, views)
    for _, target in dataset:
        for image_id in target["image_id"].numpy().tolist():
            scorer.add(image_id, look(image_id))
    return scorer, report


def _looks(model, source, batch_size: int, views: dict):
    """From the index of a record to its `Results` of several views."""
    from visionkit.inference.answerers import build_answerer
    from visionkit.inference.prediction import Options, answer

    answerer = build_answerer(model)
    options = Options(batch_size, top=1, score=0.0, views=views)

    def look(index: int):
        record = source.record(index)
        path = record.get("path")
        image = record["encoded"] if path is None else os.fsdecode(path)
        (result,) = answer([image], answerer, options)
        return result

    return look
