"""Measuring a model on a source, with the task's real metrics."""

from __future__ import annotations

from pathlib import Path

from visionkit.metrics.classification import ClassificationEvaluator
from visionkit.training.build import build_sources
from visionkit.training.recipe import load_recipe


def evaluate(run, *, overrides=(), batch_size: int | None = None) -> dict:
    """Measure a run on its validation data.

    Args:
        run: A run folder, or a `Run`.
        overrides: `key=value` texts for the recipe, e.g. `data.validation.root=...`.
        batch_size: Default the recipe's.

    Returns:
        JSON-ready dict: see `ClassificationEvaluator.result`; and `read`, `used` and
        `skipped` records, which add up.
    """
    from visionkit.tasks.loading import load

    folder = Path(getattr(run, "folder", run))
    model = load(folder)
    recipe = load_recipe(folder / "recipe.yaml", overrides)
    _, source = build_sources(recipe)
    return evaluate_model(
        model, source, batch_size=batch_size or recipe.data.batch_size
    )


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
    evaluator, report = predict_source(
        model, source, batch_size=batch_size, max_bad=max_bad
    )
    counts = report.to_dict()
    return {
        **evaluator.result(),
        "read": counts["read"],
        "used": counts["used"],
        "skipped": sum(map(len, counts["skipped"].values())),
    }


def predict_source(model, source, *, batch_size: int, max_bad: float):
    """The task's evaluator, filled with the model's answers, and the `DataReport`."""
    from visionkit.data import DataReport, make_dataset

    if source.info.class_names != model.class_names:
        raise ValueError(
            "The data's classes are not the model's. Expected: "
            f"{list(model.class_names)}. Found: {list(source.info.class_names)}."
        )
    report = DataReport(source, max_bad=max_bad)
    dataset = make_dataset(
        source, model.preprocessing, batch_size, report=report, with_ids=True
    )
    evaluator = ClassificationEvaluator(model.class_names)
    for images, target in dataset:
        # Images stay what they are: the predictor casts on the device.
        answers = model.predict_on_batch(images)
        evaluator.update(
            answers["probabilities"],
            target["labels"].numpy(),
            target["image_id"].numpy(),
        )
    return evaluator, report
