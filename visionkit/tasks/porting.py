"""What `export --format` does beyond a SavedModel."""

from __future__ import annotations

import json
from pathlib import Path

from visionkit._quiet import quiet_start
from visionkit.tasks.commands import make_console, make_table


class TooMuchLost(ValueError):
    """The file is further below the model than was allowed; nothing is published."""


def port_command(arguments) -> None:
    """Write the next version of a run as LiteRT or ONNX, and say what it costs."""
    folder = Path(arguments.run)
    if not (folder / "recipe.yaml").is_file():
        raise ValueError(
            f"--format {arguments.format} measures what is lost, and takes a run "
            f"folder, whose recipe names the data. Received: {folder}"
        )
    from visionkit.training.build import build_sources
    from visionkit.training.recipe import load_recipe

    recipe = load_recipe(folder / "recipe.yaml")
    with quiet_start():
        from visionkit.portable.exporting import export_portable
        from visionkit.portable.formats import check_format
        from visionkit.tasks.loading import load
        from visionkit.training.portable import calibration_images, measure_portable

    check_format(arguments.format, recipe.task)  # before anything slow
    model, console = load(folder), make_console()
    train, validation = build_sources(recipe)

    def evaluate(runtime) -> dict:
        found = measure_portable(
            model, runtime, validation, batch_size=recipe.data.batch_size
        )
        console.print(comparison_table(arguments.format, found))
        if not found["drop"] <= arguments.max_drop:
            raise TooMuchLost(
                f"{arguments.format} loses {found['drop']:.4f} of {found['metric']}, "
                f"allowed are {arguments.max_drop:g} (--max-drop); nothing is published"
            )
        return found

    metadata, metrics = {}, folder / "metrics.json"
    if metrics.is_file():
        metadata["metrics"] = json.loads(metrics.read_text("utf-8"))
    integers = arguments.format == "litert-int8"
    out = Path("portable_models") / f"{recipe.name}-{arguments.format}"
    path = export_portable(
        model,
        arguments.out or out,
        arguments.format,
        version=arguments.version,
        calibration=calibration_images(model, train) if integers else None,
        evaluate=evaluate,
        metadata=metadata,
    )
    console.print(f"exported  {path}")


def comparison_table(format: str, found: dict):
    """A table of what `measure_portable` returns."""
    title = f"{found['images']} validation images, one image at a time"
    table = make_table(title, "", found["metric"], "drop", "size", "latency")
    for name, side, drop in (("Keras", "model", 0.0), (format, "file", found["drop"])):
        row = found[side]
        table.add_row(
            name,
            f"{row['value']:.4f}",
            f"{drop:.4f}",
            f"{row['bytes'] / 1e6:.2f} MB",
            f"{1e3 * row['seconds']:.1f} ms",
        )
    return table
