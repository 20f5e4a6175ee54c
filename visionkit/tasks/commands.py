"""What each verb of the command line does."""

from __future__ import annotations

import inspect
import json
import os
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from visionkit._quiet import quiet_start


def _console() -> Console:
    return Console(highlight=False, soft_wrap=not sys.stdout.isatty())


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _write_json(path: str, value) -> None:
    from visionkit.training.checkpoint import atomic_write_json

    Path(path).parent.mkdir(parents=True, exist_ok=True)
    atomic_write_json(path, value)


# ------------------------------------------------------------------------ list, new


def list_command(arguments) -> None:
    """Print the tables of what there is."""
    console = _console()
    tables = {
        "models": _list_models,
        "backbones": _list_backbones,
        "recipes": _list_recipes,
        "sources": _list_sources,
        "augmentations": _list_augmentations,
    }
    for kind in [arguments.kind] if arguments.kind else tables:
        console.print(tables[kind](), "")


def _list_models() -> Table:
    from visionkit.tasks import MODELS

    table = _table("Models", "task", "model.name", "class")
    for task, models in MODELS.items():
        for name, target in models.items():
            table.add_row(task, name, target.partition(":")[2])
    return table


def _list_backbones() -> Table:
    from visionkit.backbones import BACKBONES, CLASSIFICATION_ONLY

    table = _table("Backbones", "model.backbone", "serves")
    for name in BACKBONES:
        only = name in CLASSIFICATION_ONLY
        table.add_row(name, "classification" if only else "every task")
    return table


def _list_recipes() -> Table:
    from visionkit.training.recipe_files import list_recipes

    table = _table("Recipes", "recipe", "task", "what")
    for name, path in list_recipes().items():
        first = path.read_text("utf-8").partition("\n")[0].lstrip("# ")
        table.add_row(name, path.parent.name, first)
    return table


def _list_sources() -> Table:
    from visionkit.data.sources import SOURCES, source_class

    table = _table("Sources", "data.source", "options", "what")
    for name in SOURCES:
        kind = source_class(name)
        options = ", ".join(inspect.signature(kind).parameters)
        table.add_row(name, options, inspect.getdoc(kind).partition("\n")[0])
    return table


def _list_augmentations() -> Table:
    from visionkit.data.transforms import TRANSFORMS

    table = _table("Augmentations", "augment", "options", "what")
    for name, kind in TRANSFORMS.items():
        options = ", ".join(
            f"{p.name}={p.default}" for p in inspect.signature(kind).parameters.values()
        )
        table.add_row(name, options, inspect.getdoc(kind).partition("\n")[0])
    return table


def new_command(arguments) -> None:
    """Print a recipe for a folder of data."""
    from visionkit.training.new import new_recipe

    print(
        new_recipe(
            arguments.task,
            arguments.data,
            model=arguments.model,
            backbone=arguments.backbone,
        ),
        end="",
    )


# ---------------------------------------------------------------------------- check


def check_command(arguments) -> int:
    """Examine the data of a recipe; status 1 when there are errors."""
    from visionkit.data.check import check_data
    from visionkit.training.build import build_sources
    from visionkit.training.recipe import load_recipe
    from visionkit.training.recipe_files import recipe_of

    recipe = load_recipe(recipe_of(arguments.recipe), arguments.overrides)
    train, validation = build_sources(recipe)
    reports = check_data(train, validation, deep=arguments.deep)
    console = _console()
    for report in reports.values():
        report.print(console)
    if arguments.json:
        _write_json(arguments.json, {k: r.to_dict() for k, r in reports.items()})
    ok = all(report.ok for report in reports.values())
    console.print("[green]no errors[/]" if ok else "[red]errors found: see above[/]")
    return 0 if ok else 1


# ------------------------------------------------------- train, evaluate, predict


def train_command(arguments) -> None:
    """Train a recipe and say where everything is."""
    from visionkit.training.recipe import load_recipe

    if not arguments.resume:  # a wrong recipe is refused before anything slow
        load_recipe(arguments.recipe, arguments.overrides)
    with quiet_start():
        from visionkit.training.run import run

    done = run(
        arguments.recipe,
        overrides=arguments.overrides,
        out=arguments.out,
        resume=arguments.resume,
    )
    console = _console()
    console.print(_metrics_table(f"{done.recipe.name}: best model", done.metrics))
    console.print(f"pictures  {done.folder / 'figures'}")
    console.print(f"next      python -m visionkit.tasks predict {done.folder} IMAGE")
    console.print(f"          python -m visionkit.tasks export {done.folder}")


def _metrics_table(title: str, metrics: dict) -> Table:
    table = _table(title, "metric", "value")
    for name, value in metrics.items():
        if isinstance(value, float):
            table.add_row(name, f"{value:.4f}")
        elif isinstance(value, (int, str)):
            table.add_row(name, str(value))
    return table


def evaluate_command(arguments) -> None:
    """Measure a run on its validation data."""
    _check_exists(arguments.run)

    with quiet_start():
        from visionkit.training.evaluation import evaluate

    metrics = evaluate(arguments.run, overrides=arguments.overrides)
    console = _console()
    console.print(_metrics_table(f"{arguments.run}: validation", metrics))
    if rows := metrics.get("per_class"):
        table = _table("per class", *rows[0])
        for row in rows:
            table.add_row(
                *(f"{v:.3f}" if isinstance(v, float) else str(v) for v in row.values())
            )
        console.print("", table)
    if arguments.json:
        _write_json(arguments.json, metrics)


def predict_command(arguments) -> int:
    """Answer images; status 1 when some could not be read."""
    if not 0 <= arguments.score <= 1:
        raise ValueError(f"--score must be in [0, 1]. Received: {arguments.score}")
    _check_exists(arguments.model)

    with quiet_start():
        from visionkit.inference import predict

    model, explanations = arguments.model, None
    if arguments.explain:
        from visionkit.explaining import explain
        from visionkit.explaining.explanation import explainable

        model = explainable(model)
        explanations = explain(model, arguments.images, arguments.explain)
    results = predict(model, arguments.images, score=arguments.score)
    table = _table("", "image", "answer", "score")
    for result in results:
        if not result.ok:
            table.add_row(_printable(result.path), f"[red]{result.error}[/]", "")
        elif result.label_names:
            best = result.label_names[0], f"{result.scores[0]:.3f}"
            table.add_row(_printable(result.path), *map(_printable, best))
        else:
            table.add_row(_printable(result.path), "nothing above --score", "")
    console = _console()
    console.print(table)
    if arguments.json:
        _write_json(arguments.json, [result.to_dict() for result in results])
    if arguments.out:
        folder = _write_pictures(results, explanations, Path(arguments.out))
        console.print(f"pictures  {folder}")
    failed = sum(not result.ok for result in results)
    if failed:
        console.print(f"[red]{failed} of {len(results)} images could not be read[/]")
    return 1 if failed else 0


def _check_exists(path: str) -> None:
    """Refuse a path before anything slow is imported."""
    if not Path(path).exists():
        raise FileNotFoundError(
            f"There is nothing at {path}. Name a run folder, as `train` makes them, a "
            ".keras file, or where it serves a SavedModel folder."
        )


def _printable(text) -> str:
    from rich.markup import escape

    return escape(str(text).encode("utf-8", "backslashreplace").decode())


def _write_pictures(results, explanations, folder: Path) -> Path:
    """A picture per answer, and its heat beside it."""
    from visionkit.visualize import save_figure

    folder.mkdir(parents=True, exist_ok=True)
    written = set()
    for index, result in enumerate(results):
        if not result.ok:
            continue
        stem = Path(result.path).stem if result.path else f"image_{index}"
        if stem in written:  # two inputs may share a name
            stem = f"{stem}-{index}"
        written.add(stem)
        save_figure(result.plot(), folder / f"{stem}.png")
        if explanations and explanations[index].ok:
            method = explanations[index].method
            save_figure(explanations[index].plot(), folder / f"{stem}.{method}.png")
    return folder


# --------------------------------------------------------------------------- export


def export_command(arguments) -> None:
    """Write the next version of a SavedModel."""
    _check_exists(arguments.run)
    # Whatever backend trained the weights, TensorFlow writes the export.
    os.environ["KERAS_BACKEND"] = "tensorflow"

    with quiet_start():
        from visionkit.exporting import export
        from visionkit.tasks.loading import load

    folder = Path(arguments.run)
    model = load(folder)
    metadata, name = {}, folder.stem
    if (folder / "metrics.json").is_file():
        metadata["metrics"] = json.loads((folder / "metrics.json").read_text("utf-8"))
    if (folder / "recipe.yaml").is_file():
        from visionkit.training.recipe import load_recipe

        name = load_recipe(folder / "recipe.yaml").name
    path = export(
        model,
        arguments.out or Path("saved_models") / name,
        version=arguments.version,
        gate=not arguments.no_gate,
        metadata=metadata,
    )
    console = _console()
    console.print(f"exported  {path}")
    if arguments.no_gate:
        console.print(
            "[yellow]unchecked: nothing was proved about how this version loads and "
            "answers in a server[/]"
        )
    console.print(f"next      python -m visionkit.tasks predict {path} IMAGE")
