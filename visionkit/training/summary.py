"""What is about to be trained, for the terminal."""

from __future__ import annotations

import math

from rich.table import Table


def summary_table(session, environment: dict) -> Table:
    """Task, model, data, phases and device of a training.

    Args:
        session: A `TrainingSession` whose model is built.
        environment: What `describe_environment` says.
    """
    recipe, model = session.recipe, session.model
    counts = {name: report.to_dict() for name, report in session.reports.items()}
    used = ", ".join(f"{c['used']} of {c['read']} {n}" for n, c in counts.items())
    trainable = sum(math.prod(w.shape) for w in model.trainable_weights)
    kind = ""
    if recipe.task == "classification":
        many = session.source.info.multi_label
        kind = f", {'any number' if many else 'one'} per image"
    devices = ", ".join(environment["devices"])
    table = Table(box=None, show_header=False, title=recipe.name, title_style="bold")
    table.add_row("task", f"{recipe.task}, {len(model.class_names)} classes{kind}")
    table.add_row("model", f"{recipe.model.name} on {recipe.model.backbone}")
    table.add_row("parameters", f"{model.count_params():,}, {trainable:,} trained")
    if model.started_from:
        table.add_row("started from", model.started_from)
    table.add_row("images", used)
    table.add_row(
        "steps", f"{session.steps} of {recipe.data.batch_size} images per epoch"
    )
    if len(session.phases) > 1:
        for number, phase in enumerate(session.phases, 1):
            table.add_row(f"phase {number}", _describe_phase(phase))
    if environment["processes"] > 1:
        devices = f"{environment['processes']} processes with {devices}"
    table.add_row("device", f"{devices} ({environment['backend']})")
    table.add_row("run folder", str(session.folder))
    return table


def _describe_phase(recipe) -> str:
    height, width = recipe.model.image_size
    text = f"{recipe.train.epochs} epochs at {height}x{width}, "
    text += f"learning rate {recipe.train.learning_rate:g}"
    frozen = ", ".join(recipe.model.freeze)
    return f"{text}, {frozen} fixed" if frozen else text
