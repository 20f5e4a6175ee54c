"""The parts of one training, and the order in which they work."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import keras
from rich.console import Console
from rich.table import Table

from visionkit.data import DataReport, Order, make_dataset, steps_per_epoch
from visionkit.data.check import check_source, check_splits
from visionkit.data.determinism import make_deterministic
from visionkit.metrics import to_json_safe
from visionkit.tasks.loading import load
from visionkit.training import figures
from visionkit.training.build import (
    build_model,
    build_sources,
    build_transforms,
    compile_model,
)
from visionkit.training.callbacks import (
    BestModel,
    Checkpointer,
    EarlyStopping,
    EmaWeights,
    History,
    Interrupts,
    NonFiniteGuard,
    arrange,
)
from visionkit.training.checkpoint import CheckpointStore
from visionkit.training.environment import describe_environment
from visionkit.training.evaluation import evaluate_model
from visionkit.training.files import atomic_write_json
from visionkit.training.recipe import Recipe


class TrainingSession:
    """One training of a recipe in its run folder.

    Args:
        recipe: The resolved recipe.
        folder: The run folder.
        verbose: As for `keras.Model.fit`, or "auto".
    """

    def __init__(self, recipe: Recipe, folder: Path, verbose="auto"):
        keras.utils.set_random_seed(recipe.train.seed)
        if recipe.train.deterministic:
            make_deterministic()
        self.recipe, self.folder = recipe, folder
        self.verbose = _verbosity(verbose)
        self.console = Console(highlight=False, quiet=not self.verbose)

        self.source, self.validation = build_sources(recipe)
        self.reports = {
            "train": DataReport(self.source, recipe.data.max_bad),
            "validation": DataReport(self.validation, recipe.data.max_bad),
        }
        self.examine_data()
        self.transforms = build_transforms(recipe)
        self.model = build_model(recipe, self.source.info.class_names)
        self.steps = steps_per_epoch(self.source, recipe.data.batch_size)
        compile_model(self.model, recipe, self.steps)

    def examine_data(self) -> None:
        """The cheap part of the doctor; unreadable files are left out from here on."""
        splits = {"train": self.source, "validation": self.validation}
        found = [
            check_source(source, name=name, report=self.reports[name])
            for name, source in splits.items()
        ]
        found.append(check_splits(self.source, self.validation))
        for report in found:
            report.print_urgent(self.console)
        self.write_data_report()

    def train(self, resume: bool) -> dict[str, list[float]]:
        """Fit to the end, from the last checkpoint where `resume` says so.

        Returns:
            Log name -> value per epoch, of the whole training.
        """
        options = self.recipe.train
        store = CheckpointStore(self.folder / "checkpoints")
        checkpointer = Checkpointer(
            store, every_steps=options.checkpoint_steps, extra_state=self.data_state
        )
        history = History(self.folder / "history.csv")
        interrupts = Interrupts(checkpointer)
        callbacks = arrange(
            [checkpointer, history, interrupts, *self.callbacks(checkpointer)]
        )
        epoch, step = (0, 0)
        if resume:
            epoch, step = checkpointer.resume(self.model)
            for name, state in checkpointer.extra.get("data", {}).items():
                self.reports[name].restore(state)
        self.describe(epoch, step, checkpointer.skipped)
        if epoch == step == 0:
            figures.draw_data(self.dataset(), self.source, self.folder / "figures")
        stopped = any(getattr(c, "exhausted", False) for c in callbacks)
        if epoch < options.epochs and not stopped:
            try:
                with interrupts:
                    self.model.fit(
                        self.dataset(epoch, step),
                        initial_epoch=epoch,
                        epochs=options.epochs,
                        steps_per_epoch=self.steps,
                        validation_data=self.dataset(training=False),
                        callbacks=callbacks,
                        shuffle=False,  # the data set already is
                        verbose=self.verbose,
                    )
            finally:
                self.write_data_report()
        names = dict.fromkeys(name for row in history.rows for name in row)
        return {n: [row.get(n, float("nan")) for row in history.rows] for n in names}

    def callbacks(self, checkpointer: Checkpointer) -> list:
        """What the recipe asks for beside what every training has."""
        options, monitor = self.recipe.train, self.recipe.train.monitor
        callbacks = [
            EmaWeights(),
            BestModel(self.folder / "model.keras", monitor),
            NonFiniteGuard(
                self.batch_names, self.folder / "non_finite.json", checkpointer
            ),
        ]
        if stopping := options.early_stopping:
            callbacks.append(
                EarlyStopping(monitor, stopping.patience, min_delta=stopping.min_delta)
            )
        if options.tensorboard:
            folder = str(self.folder / "tensorboard")
            callbacks.append(keras.callbacks.TensorBoard(folder, write_graph=False))
        return callbacks

    def dataset(self, epoch: int = 0, step: int = 0, training: bool = True):
        """Batches from a place in the training, or of the validation data."""
        options = {}
        if training:
            order = Order(self.recipe.train.seed, epoch, step)
            options = {"transforms": self.transforms, "order": order}
        return make_dataset(
            self.source if training else self.validation,
            self.model.preprocessing,
            self.recipe.data.batch_size,
            report=self.reports["train" if training else "validation"],
            **options,
        )

    def batch_names(self, epoch: int, step: int) -> list[str]:
        """The files of one training batch."""
        from visionkit.data.order import batch_names

        return batch_names(
            self.source,
            Order(self.recipe.train.seed),
            step,
            epoch,
            self.recipe.data.batch_size,
            self.reports["train"],
        )

    def data_state(self) -> dict:
        """What a checkpoint carries about the data."""
        return {"data": {name: r.to_dict() for name, r in self.reports.items()}}

    def write_data_report(self) -> None:
        """Write `data_report.json`: what was read, used and skipped, and why."""
        reports = {name: report.to_dict() for name, report in self.reports.items()}
        atomic_write_json(self.folder / "data_report.json", reports)

    def describe(self, epoch: int, step: int, skipped: list[str]) -> None:
        """Say what is about to be trained, and write `environment.json`."""
        environment = describe_environment()
        atomic_write_json(self.folder / "environment.json", environment)
        recipe, model = self.recipe, self.model
        counts = {name: report.to_dict() for name, report in self.reports.items()}
        used = ", ".join(f"{c['used']} of {c['read']} {n}" for n, c in counts.items())
        trainable = sum(math.prod(w.shape) for w in model.trainable_weights)
        table = Table(
            box=None, show_header=False, title=recipe.name, title_style="bold"
        )
        table.add_row("task", f"{recipe.task}, {len(model.class_names)} classes")
        table.add_row("model", f"{recipe.model.name} on {recipe.model.backbone}")
        table.add_row("parameters", f"{model.count_params():,}, {trainable:,} trained")
        table.add_row("images", used)
        table.add_row(
            "steps", f"{self.steps} of {recipe.data.batch_size} images per epoch"
        )
        table.add_row(
            "device", f"{', '.join(environment['devices'])} ({environment['backend']})"
        )
        table.add_row("run folder", str(self.folder))
        if epoch or step:
            table.add_row("resumed", f"in epoch {epoch + 1}, after {step} steps")
        for reason in skipped:
            table.add_row("checkpoint left out", reason)
        self.console.print("", table, "")

    def conclude(self) -> dict:
        """Score the best model on the validation data and draw the pictures.

        Returns:
            JSON-ready metrics, also in `metrics.json`.
        """
        model = load(self.folder)
        metrics = to_json_safe(
            evaluate_model(
                model, self.validation, batch_size=self.recipe.data.batch_size
            )
        )
        atomic_write_json(self.folder / "metrics.json", metrics)
        figures.draw_results(
            model,
            self.validation,
            self.folder / "history.csv",
            metrics,
            self.folder / "figures",
        )
        return metrics


def _verbosity(verbose):
    """A bar where somebody watches, a line per epoch in a log file."""
    if verbose != "auto":
        return verbose
    return 1 if sys.stdout.isatty() or "ipykernel" in sys.modules else 2
