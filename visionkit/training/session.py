"""The parts of one training, and the order in which they work."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import keras
from rich.console import Console

from visionkit.data import DataReport, Order, make_dataset, steps_per_epoch
from visionkit.data.check import check_data
from visionkit.data.determinism import make_deterministic
from visionkit.metrics import to_json_safe
from visionkit.tasks.loading import load
from visionkit.training import figures
from visionkit.training.build import (
    build_model,
    build_sources,
    build_transforms,
    compile_model,
    weigh_pixels,
)
from visionkit.training.callbacks import BestModel, Checkpointer, History, Interrupts
from visionkit.training.checkpoint import CheckpointStore
from visionkit.training.cluster import Cluster, Preemption
from visionkit.training.distribution import device_scope
from visionkit.training.environment import describe_environment
from visionkit.training.evaluation import evaluate_model
from visionkit.training.files import atomic_write_json
from visionkit.training.manifest import keep_manifest
from visionkit.training.monitors import check_monitor, restart_monitors
from visionkit.training.phase_callbacks import phase_callbacks
from visionkit.training.phases import phase_recipes
from visionkit.training.recipe import Recipe
from visionkit.training.recipe_files import as_recipe_error
from visionkit.training.state import carry_weights, check_weights_fit, number
from visionkit.training.summary import summary_table


class TrainingSession:
    """One training of a recipe in its run folder, phase by phase.

    At a phase's start the model is built for its image size and frozen stages, has the
    weights of the phase before (their averages, with `train.ema`), and a fresh
    optimizer and schedule. Data order, history and the best model go on. Where the
    image size changes, though, the best model starts anew, since scores at another size
    say little: the saved model has the last phase's size.

    Args:
        recipe: The resolved recipe.
        folder: The run folder.
        verbose: As for `keras.Model.fit`, or "auto".
        cluster: Of several processes all train, and the first one writes.
    """

    def __init__(
        self,
        recipe: Recipe,
        folder: Path,
        verbose="auto",
        cluster: Cluster | None = None,
    ):
        keras.utils.set_random_seed(recipe.train.seed)
        if recipe.train.deterministic:
            make_deterministic()
        self.recipe, self.folder = recipe, folder
        self.cluster = cluster or Cluster()
        writes = self.cluster.writes
        self.verbose = _verbosity(verbose) if writes else 0
        self.console = Console(highlight=False, quiet=not self.verbose)

        self.source, self.validation = build_sources(recipe)
        self.reports = {
            "train": DataReport(self.source, recipe.data.max_bad),
            "validation": DataReport(self.validation, recipe.data.max_bad),
        }
        self.examine_data()
        self.transforms = build_transforms(recipe)
        self.steps = steps_per_epoch(self.source, recipe.data.batch_size)

        self.phases = phase_recipes(recipe)
        self.phase, self.phase_start = 0, 0  # the present one, and its first epoch
        self.model = None
        self.checkpointer = Checkpointer(
            CheckpointStore(folder / "checkpoints", writable=writes),
            every_steps=recipe.train.checkpoint_steps,
            extra_state=self.state,
        )
        many = self.cluster.processes > 1
        self.interrupts = (Preemption if many else Interrupts)(self.checkpointer)
        self.history = History(folder / "history.csv" if writes else None)
        with as_recipe_error():
            path = folder / "model.keras"
            self.best = BestModel(path, recipe.train.monitor, writes=writes)

    def examine_data(self) -> None:
        """The cheap part of the doctor; unreadable files are left out from here on."""
        found = check_data(self.source, self.validation, reports=self.reports)
        for report in found.values():
            report.print_urgent(self.console)
        images, batch = len(self.source), self.recipe.data.batch_size
        if images < batch:
            self.console.print(
                f"[yellow]data.batch_size is {batch}, there are {images} training "
                "images: they are repeated to fill a batch; lower it[/]"
            )
        self.write_data_report()

    def train(self, resume: bool, force: bool = False) -> dict[str, list[float]]:
        """Fit to the end, from the last checkpoint where `resume` says so.

        With `force` on other data than those of the run's start, if need be.

        Returns:
            Log name -> value per epoch, of the whole training.
        """
        sources = {"train": self.source, "validation": self.validation}
        options = {"resume": resume, "force": force, "write": self.cluster.writes}
        changed = keep_manifest(self.folder, sources, **options)
        checkpoint = self.checkpointer.store.load() if resume else None
        extra = checkpoint.state["extra"] if checkpoint else {}
        self.phase = extra.get("phase", 0)
        self.phase_start = extra.get("phase_start", 0)
        self.build(pretrained=checkpoint is None)
        callbacks = phase_callbacks(self)
        epoch = step = 0
        if checkpoint:
            rate = number(self.model.optimizer.learning_rate)
            epoch, step = self.checkpointer.resume(self.model, checkpoint)
            if force:
                with contextlib.suppress(TypeError):  # a schedule is not saved
                    self.model.optimizer.learning_rate = rate
            for name, state in extra.get("data", {}).items():
                if name not in changed:
                    self.reports[name].restore(state)
            if "validation" in changed:
                restart_monitors(callbacks)
        else:
            self.check_later_phases()
        self.cluster.check_same(self.facts())
        self.describe(epoch, step)
        if epoch == step == 0 and self.cluster.writes:
            figures.draw_data(self.dataset(), self.source, self.folder / "figures")
        try:
            with self.interrupts:
                epoch = self.fit(callbacks, epoch, step)
                while self.phase + 1 < len(self.phases):
                    self.begin_next_phase(epoch)
                    epoch = self.fit(phase_callbacks(self), epoch)
        except BaseException:
            # A full disk, say, must not hide what went wrong first.
            with contextlib.suppress(OSError):
                self.write_data_report()
            raise
        self.write_data_report()
        rows = self.history.rows
        names = dict.fromkeys(name for row in rows for name in row)
        return {n: [row.get(n, float("nan")) for row in rows] for n in names}

    def build(self, *, pretrained: bool = False) -> None:
        """The present phase's model, compiled, with the weights of the one before."""
        recipe, before = self.phases[self.phase], self.model
        scope = device_scope(recipe.train.distribute, recipe.data.batch_size)
        with as_recipe_error(), scope:
            model = build_model(recipe, self.source.info, pretrained=pretrained)
            compile_model(model, recipe, self.source, self.steps)
            check_monitor(recipe.train.monitor, model)
            if model.logged_scores:
                model.truth = self.validation
            model.optimizer.build(model.trainable_variables)
            if before is not None:
                carry_weights(before, model)
        self.model = model

    def check_later_phases(self) -> None:
        """Refuse a phase that cannot be built before the first one is trained."""
        for recipe in self.phases[1:]:
            later = build_model(recipe, self.source.info, pretrained=False)
            check_weights_fit(self.model, later)

    def begin_next_phase(self, epoch: int) -> None:
        """Go on to the next phase, whose first epoch is `epoch`."""
        self.phase, self.phase_start = self.phase + 1, epoch
        size = self.model.preprocessing.image_size
        self.build()
        if self.model.preprocessing.image_size != size:
            self.best.restart()

    def fit(self, callbacks: list, epoch: int, step: int = 0) -> int:
        """Train what is left of the present phase.

        Args:
            callbacks: What `phase_callbacks` has returned.
            epoch: Epochs of the training that are done.
            step: Batches of the next one that are done.

        Returns:
            Epochs of the training that are done afterwards.
        """
        end = self.phase_start + self.phases[self.phase].train.epochs
        stopped = any(getattr(c, "exhausted", False) for c in callbacks)
        if epoch >= end or stopped:
            return epoch
        self.model.fit(
            weigh_pixels(self.dataset(epoch, step), self.recipe, self.source.info),
            initial_epoch=epoch,
            epochs=end,
            steps_per_epoch=self.steps,
            validation_data=self.dataset(training=False),
            validation_freq=self.validated_epochs(end),
            callbacks=callbacks,
            shuffle=False,  # the data set already is
            verbose=self.verbose,
        )
        return self.checkpointer.progress.epoch

    def validated_epochs(self, end: int) -> list[int]:
        """The epochs, from 1, after which to validate; the last of a phase always."""
        every = self.recipe.train.validation_freq
        return [e for e in range(1, end + 1) if e % every == 0 or e == end]

    def dataset(self, epoch: int = 0, step: int = 0, training: bool = True):
        """Batches from a place in the training, or of the validation data."""
        options: dict = {"max_proposals": getattr(self.model, "num_proposals", None)}
        options["with_ids"] = not training and bool(self.model.logged_scores)
        if training:
            train, limit = self.recipe.train, self.recipe.data.max_boxes
            options |= {
                "transforms": self.transforms,
                "order": Order(
                    train.seed,
                    epoch,
                    step,
                    train.epochs,
                    self.cluster.process,
                    self.cluster.processes,
                ),
                "max_boxes": None if limit == "auto" else limit,
            }
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

    def state(self) -> dict:
        """What a checkpoint carries beside the model and the callbacks."""
        return {
            "data": {name: r.to_dict() for name, r in self.reports.items()},
            "phase": self.phase,
            "phase_start": self.phase_start,
        }

    def facts(self) -> dict:
        """What must be the same in all processes of a cluster."""
        recipe = self.recipe.to_dict()
        del recipe["train"]["cluster"]  # each process has its own number in it
        return {
            **{f"recipe, {key}": recipe[key] for key in ("model", "augment", "train")},
            "data.batch_size": self.recipe.data.batch_size,
            "training images": len(self.source),
            "steps done": self.checkpointer.progress.global_step,
        }

    def write_data_report(self) -> None:
        """Write `data_report.json`: what was read, used and skipped, and why."""
        if not self.cluster.writes:
            return
        reports = {name: report.to_dict() for name, report in self.reports.items()}
        atomic_write_json(self.folder / "data_report.json", reports)

    def describe(self, epoch: int, step: int) -> None:
        """Say what is about to be trained, and write `environment.json`."""
        if not self.cluster.writes:
            return
        environment = describe_environment()
        environment["processes"] = self.cluster.processes
        atomic_write_json(self.folder / "environment.json", environment)
        table = summary_table(self, environment)
        if epoch or step:
            table.add_row("resumed", f"in epoch {epoch + 1}, after {step} steps")
        for reason in self.checkpointer.skipped:
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
        folder = self.folder / "figures"
        monitor = self.recipe.train.monitor
        figures.draw_curves(self.folder / "history.csv", monitor, folder)
        figures.draw_results(model, self.validation, metrics, folder)
        return metrics


def _verbosity(verbose):
    """A bar where somebody watches, a line per epoch in a log file."""
    if verbose != "auto":
        return verbose
    return 1 if sys.stdout.isatty() or "ipykernel" in sys.modules else 2
