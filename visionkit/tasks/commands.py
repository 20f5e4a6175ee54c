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


def make_console() -> Console:
    """A console for people; lines are not wrapped where nobody watches."""
    watched = sys.stdout.isatty()
    width = None if watched else 160  # tables fold at some width, a file has none
    return Console(highlight=False, soft_wrap=not watched, width=width)


def make_table(title: str, *columns: str) -> Table:
    """An empty table."""
    table = Table(title=title, title_justify="left", title_style="bold", box=None)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def write_json(path: str, value) -> None:
    """Write what a machine reads."""
    from visionkit.training.checkpoint import atomic_write_json

    Path(path).parent.mkdir(parents=True, exist_ok=True)
    atomic_write_json(path, value)


# ------------------------------------------------------------------------ list, new


def list_command(arguments) -> None:
    """Print the tables of what there is."""
    console = make_console()
    tables = {
        "models": _list_models,
        "backbones": _list_backbones,
        "recipes": _list_recipes,
        "sources": _list_sources,
        "augmentations": _list_augmentations,
        "losses": _list_losses,
    }
    for kind in [arguments.kind] if arguments.kind else tables:
        console.print(tables[kind](), "")


def _list_models() -> Table:
    from visionkit.tasks import MODELS

    table = make_table("Models", "task", "model.name", "class")
    for task, models in MODELS.items():
        for name, target in models.items():
            table.add_row(task, name, target.partition(":")[2])
    return table


def _list_backbones() -> Table:
    from visionkit.backbones import BACKBONES, CLASSIFICATION_ONLY

    table = make_table("Backbones", "model.backbone", "serves")
    for name in BACKBONES:
        only = name in CLASSIFICATION_ONLY
        table.add_row(name, "classification" if only else "every task")
    return table


def _list_losses() -> Table:
    from visionkit.losses import LOSSES

    table = make_table("Losses", "task", "train.loss", "class of visionkit.losses")
    for task, losses in LOSSES.items():
        for name, targets in losses.items():
            targets = [targets] if isinstance(targets, str) else targets
            classes = ", ".join(target.partition(":")[2] for target in targets)
            table.add_row(task, name, classes)
    return table


def _list_recipes() -> Table:
    from visionkit.training.recipe_files import list_recipes

    table = make_table("Recipes", "recipe", "task", "what")
    for name, path in list_recipes().items():
        first = path.read_text("utf-8").partition("\n")[0].lstrip("# ")
        table.add_row(name, path.parent.name, first)
    return table


def _list_sources() -> Table:
    from visionkit.data.sources import SOURCES, source_class

    table = make_table("Sources", "data.source", "options", "what")
    for name in SOURCES:
        kind = source_class(name)
        options = ", ".join(inspect.signature(kind).parameters)
        table.add_row(name, options, inspect.getdoc(kind).partition("\n")[0])
    return table


def _list_augmentations() -> Table:
    from visionkit.data.transforms import TRANSFORMS

    table = make_table("Augmentations", "augment", "options", "what")
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
    console = make_console()
    for report in reports.values():
        report.print(console)
    if arguments.json:
        write_json(arguments.json, {k: r.to_dict() for k, r in reports.items()})
    if arguments.html:
        from visionkit.data.check_html import write_html

        sources = {"train": train, "validation": validation}
        write_html(arguments.html, reports, sources)
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
        force=arguments.force,
    )
    if not done.metrics:  # another process of the cluster tells
        return
    console = make_console()
    console.print(_metricstable(f"{done.recipe.name}: best model", done.metrics))
    console.print(f"pictures  {done.folder / 'figures'}")
    verbs = ("predict", "export") if not isinstance(done.model.input, dict) else ()
    for verb in verbs:  # a Fast R-CNN reads more than images
        image = " IMAGE" if verb == "predict" else ""
        console.print(
            f"next      python -m visionkit.tasks {verb} {done.folder}{image}"
        )


def _metricstable(title: str, metrics: dict) -> Table:
    table = make_table(title, "metric", "value")
    for name, value in metrics.items():
        if isinstance(value, float):
            table.add_row(name, f"{value:.4f}")
        elif isinstance(value, (int, str)):
            table.add_row(name, str(value))
    return table


_COLUMNS = 11  # of a table beside the name: what a terminal holds


def _number(value) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def evaluate_command(arguments) -> None:
    """Measure a run on its validation data."""
    check_exists(arguments.run)

    with quiet_start():
        from visionkit.training.evaluation import evaluate

    metrics = evaluate(
        arguments.run,
        overrides=arguments.overrides,
        tile=arguments.tile,
        overlap=arguments.overlap,
        tta=arguments.tta,
    )
    console = make_console()
    console.print(_metricstable(f"{arguments.run}: validation", metrics))
    if rows := metrics.get("per_class"):
        name, *keys = rows[0]
        for start in range(0, len(keys), _COLUMNS):
            shown = [name, *keys[start : start + _COLUMNS]]
            table = make_table("per class", *shown)
            for row in rows:
                table.add_row(*(_number(row[key]) for key in shown))
            console.print("", table)
    for name in ("errors", "mask_errors"):
        if kinds := metrics.get(name):
            table = make_table(
                name.replace("_", " "), "kind", *next(iter(kinds.values()))
            )
            for kind, row in kinds.items():
                table.add_row(kind, *map(_number, row.values()))
            console.print("", table)
    if arguments.json:
        write_json(arguments.json, metrics)


def check_exists(path: str) -> None:
    """Refuse a path before anything slow is imported."""
    if not Path(path).exists():
        raise FileNotFoundError(
            f"There is nothing at {path}. Name a run folder, as `train` makes them, a "
            ".keras file, or where it serves a SavedModel folder."
        )


# --------------------------------------------------------------------------- export


def export_command(arguments) -> None:
    """Write the next version of a SavedModel, or of a smaller format."""
    check_exists(arguments.run)
    # Whatever backend trained the weights, TensorFlow writes the export.
    os.environ["KERAS_BACKEND"] = "tensorflow"
    if arguments.format != "saved_model":
        from visionkit.tasks.porting import port_command

        return port_command(arguments)

    with quiet_start():
        from visionkit.exporting import export
        from visionkit.tasks.loading import load

    folder = Path(arguments.run)
    model = load(folder)
    metadata, name, style = {}, folder.stem, arguments.style
    if (folder / "metrics.json").is_file():
        metadata["metrics"] = json.loads((folder / "metrics.json").read_text("utf-8"))
    if (folder / "recipe.yaml").is_file():
        from visionkit.training.recipe import load_recipe

        recipe = load_recipe(folder / "recipe.yaml")
        name, style = recipe.name, style or recipe.export.style
    path = export(
        model,
        arguments.out or Path("saved_models") / name,
        version=arguments.version,
        style=style or "visionkit",
        gate=not arguments.no_gate,
        metadata=metadata,
    )
    console = make_console()
    console.print(f"exported  {path}")
    _print_unchecked(console, path)
    console.print(f"next      python -m visionkit.tasks predict {path} IMAGE")


def _print_unchecked(console: Console, path: Path) -> None:
    """Say what nothing proves of an export, and why."""
    from visionkit.serving.gate import CHECKS

    described = json.loads((path / "model.json").read_text("utf-8"))
    for check, reason in described["unchecked"].items():
        console.print(f"[yellow]unchecked[/] {check}: {CHECKS[check]} ({reason})")


def kit_command(arguments) -> None:
    """Write the files of a deployment."""
    from visionkit.serving.kit import choose_versions, write_kit

    in_use = Path(arguments.out) / "models.config"
    models = choose_versions(arguments.models, canary=arguments.canary, replaces=in_use)
    keys = ("batch", "cpus", "gpu", "image", "namespaces")
    options = {key: getattr(arguments, key) for key in keys}
    console = make_console()
    for file in write_kit(arguments.out, models, **options):
        console.print(f"written  {file}")
    for model in models:
        labels = ", ".join(f"{k} {n}" for k, n in model.labels.items())
        console.print(f"serves   {model.name}: {labels}")
    console.print(f"next     docker compose -f {arguments.out}/compose.yaml up")
