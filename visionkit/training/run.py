"""One training, from a recipe to a run folder that can be resumed."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import time
from pathlib import Path

import keras

from visionkit.tasks.loading import load
from visionkit.training.cluster import find_cluster, joined
from visionkit.training.failures import explained
from visionkit.training.files import atomic_write_text
from visionkit.training.lock import locked
from visionkit.training.manifest import FORCE_HINT
from visionkit.training.recipe import Recipe, load_recipe
from visionkit.training.recipe_files import RecipeError, recipe_of
from visionkit.training.session import TrainingSession

# Keys that no --force lets change on a resume.
_FIXED = ("task", "model.", "train.phases")


@dataclasses.dataclass
class Run:
    """What a training left behind.

    Attributes:
        folder: The run folder.
        recipe: The resolved recipe.
        history: Log name -> value per epoch.
        metrics: Scores of the best model on the validation data; empty in a process
            that does not write.
    """

    folder: Path
    recipe: Recipe
    history: dict[str, list[float]]
    metrics: dict

    @functools.cached_property
    def model(self):
        """The best model, loaded from the folder."""
        return load(self.folder)


def run(
    recipe,
    *,
    overrides=(),
    out=None,
    resume: bool = False,
    force: bool = False,
    verbose="auto",
) -> Run:
    """Train a recipe: sources, model, `fit`, checkpoints, scores, pictures.

    With `train.distribute: data_parallel` each process of `train.cluster` calls it,
    with the same recipe and folder; the first one writes and the others read.

    Args:
        recipe: A recipe file, the bare name of one of visionkit's, a dict, a `Recipe`,
            or (with `resume`) a run folder.
        overrides: `"key.path=value"` texts.
        out: The run folder; default `runs/<recipe name>-<time>`.
        resume: Go on where the folder's training stopped (without `out`, in the
            newest run of the recipe): same weights, optimizer, schedule, averages,
            random state and data order. Only `train.epochs` (with phases, the epochs
            of the last one) may differ from what the folder's recipe says, and the
            data must be the same files.
        force: With `resume`, go on with another recipe or other data all the same, as
            far as the checkpoint fits: not with another task, model, phases or
            classes. Where the validation data differ, the best model starts anew.
        verbose: As for `fit`; `"auto"` is a progress bar on a terminal or in a
            notebook, else a line per epoch.

    Returns:
        A `Run`.

    Raises:
        RecipeError: The recipe is wrong, or it or the data are not those to resume.
        FileExistsError: `out` holds a run already and `resume` is not set.
        FolderInUseError: Another process is training in the folder.
        TrainingInterrupted: SIGINT or SIGTERM came; a checkpoint was written.
        NonFiniteLossError: The loss is no longer a number; a report was written.
        OutOfMemoryError: A batch does not fit into the memory.
        DataPipelineError: A transform failed, or too many files cannot be read.
    """
    recipe, folder = _choose_folder(recipe, overrides, out, resume)
    cluster = find_cluster(recipe)
    policy = keras.config.dtype_policy()
    with locked(folder) if cluster.writes else contextlib.nullcontext():
        _open_folder(recipe, folder, resume, force, write=cluster.writes)
        try:
            keras.config.set_dtype_policy(recipe.train.precision)
            with joined(cluster, recipe):
                session = TrainingSession(recipe, folder, verbose, cluster)
                with explained(session):
                    history = session.train(resume, force)
            with explained(session):  # the first process, by itself
                metrics = session.conclude() if cluster.writes else {}
            return Run(folder, recipe, history, metrics)
        finally:
            keras.config.set_dtype_policy(policy)


def _choose_folder(source, overrides, out, resume) -> tuple[Recipe, Path]:
    """The resolved recipe and its folder, which is there where it is to be resumed."""
    if resume and out is None and recipe_of(source) is not source:
        out = source
    recipe = load_recipe(recipe_of(source), overrides)
    if resume and out is None:  # the newest; the time is in the name
        runs = sorted(Path("runs").glob(f"{recipe.name}-*/recipe.yaml"))
        out = runs[-1].parent if runs else None
    stamp = time.strftime("%Y%m%d-%H%M%S")
    folder = Path(out) if out else Path("runs") / f"{recipe.name}-{stamp}"
    if resume and not (folder / "recipe.yaml").is_file():
        raise RecipeError(
            f"There is no run to resume in {folder}: it has no recipe.yaml. Name "
            "the run folder by --out, or leave --resume out to start a new run."
        )
    return recipe, folder


def _open_folder(
    recipe: Recipe, folder: Path, resume: bool, force: bool, *, write: bool
) -> None:
    """Check that the recipe may be trained in `folder`, and write it there."""
    written = folder / "recipe.yaml"
    if resume:
        _check_same(load_recipe(written), recipe, folder, force)
    elif any(folder.glob("checkpoints/*.npz")) or (folder / "model.keras").exists():
        raise FileExistsError(
            f"{folder} holds a run already. Add --resume to go on with it, or choose "
            "another --out."
        )
    if write:
        atomic_write_text(written, recipe.to_yaml())


def _check_same(old: Recipe, new: Recipe, folder: Path, force: bool) -> None:
    """Refuse to resume with another recipe; only the number of epochs may change.

    With `force` more may, but not what the checkpoint's arrays and position are about.
    """
    before, after = _flat(old.to_dict()), _flat(new.to_dict())
    epochs = "train.epochs"
    if old.train.phases:  # those before the last may be over
        epochs = f"train.phases.{len(old.train.phases) - 1}.epochs"
    changed = {
        key: f"  {key}: the run has {before.get(key)!r}, now {after.get(key)!r}"
        for key in sorted({*before, *after})
        if before.get(key) != after.get(key)
        and key not in (epochs, "name")
        and not key.startswith("train.cluster")  # the machines may be others
    }
    fixed = [key for key in changed if key.startswith(_FIXED)]
    hint = f"Another {fixed[0]} needs a new run." if fixed else FORCE_HINT
    if changed and (fixed or not force):
        raise RecipeError(
            f"{folder} was started with another recipe; only {epochs} may change "
            "on resume:\n" + "\n".join(changed.values()) + f"\n{hint}"
        )


def _flat(node, prefix="") -> dict:
    if isinstance(node, list):
        node = dict(enumerate(node))
    if not isinstance(node, dict):
        return {prefix.rstrip("."): node}
    out = {}
    for key, value in node.items():
        out |= _flat(value, f"{prefix}{key}.")
    return out
