"""One training, from a recipe to a run folder that can be resumed."""

from __future__ import annotations

import dataclasses
import functools
import time
from pathlib import Path

import keras

from visionkit.tasks.loading import load
from visionkit.training.files import atomic_write_text
from visionkit.training.recipe import Recipe, load_recipe
from visionkit.training.recipe_files import RecipeError, recipe_of
from visionkit.training.session import TrainingSession


@dataclasses.dataclass
class Run:
    """What a training left behind.

    Attributes:
        folder: The run folder.
        recipe: The resolved recipe.
        history: Log name -> value per epoch.
        metrics: Scores of the best model on the validation data.
    """

    folder: Path
    recipe: Recipe
    history: dict[str, list[float]]
    metrics: dict

    @functools.cached_property
    def model(self):
        """The best model, loaded from the folder."""
        return load(self.folder)


def run(recipe, *, overrides=(), out=None, resume: bool = False, verbose="auto") -> Run:
    """Train a recipe: sources, model, `fit`, checkpoints, scores, pictures.

    Args:
        recipe: A recipe file, the bare name of one of visionkit's, a dict, a `Recipe`,
            or (with `resume`) a run folder.
        overrides: `"key.path=value"` texts.
        out: The run folder; default `runs/<recipe name>-<time>`.
        resume: Go on where the folder's training stopped (without `out`, in the
            newest run of the recipe): same weights, optimizer, schedule, averages,
            random state and data order. Only `train.epochs` (with phases, the epochs
            of the last one) may differ from what the folder's recipe says.
        verbose: As for `fit`; `"auto"` is a progress bar on a terminal or in a
            notebook, else a line per epoch.

    Returns:
        A `Run`.

    Raises:
        RecipeError: The recipe is wrong, or not the one to resume.
        FileExistsError: `out` holds a run already and `resume` is not set.
        TrainingInterrupted: SIGINT or SIGTERM came; a checkpoint was written.
        NonFiniteLossError: The loss is no longer a number; a report was written.
    """
    recipe, folder = _open_folder(recipe, overrides, out, resume)
    policy = keras.config.dtype_policy()
    try:
        keras.config.set_dtype_policy(recipe.train.precision)
        session = TrainingSession(recipe, folder, verbose)
        history = session.train(resume)
        return Run(folder, recipe, history, session.conclude())
    finally:
        keras.config.set_dtype_policy(policy)


def _open_folder(source, overrides, out, resume) -> tuple[Recipe, Path]:
    """The resolved recipe and its folder, which holds `recipe.yaml` afterwards."""
    if resume and out is None and recipe_of(source) is not source:
        out = source
    recipe = load_recipe(recipe_of(source), overrides)
    if resume and out is None:  # the newest; the time is in the name
        runs = sorted(Path("runs").glob(f"{recipe.name}-*/recipe.yaml"))
        out = runs[-1].parent if runs else None
    stamp = time.strftime("%Y%m%d-%H%M%S")
    folder = Path(out) if out else Path("runs") / f"{recipe.name}-{stamp}"
    written = folder / "recipe.yaml"
    if resume:
        if not written.is_file():
            raise RecipeError(
                f"There is no run to resume in {folder}: it has no recipe.yaml. Name "
                "the run folder by --out, or leave --resume out to start a new run."
            )
        _check_same(load_recipe(written), recipe, folder)
    elif any(folder.glob("checkpoints/*.npz")) or (folder / "model.keras").exists():
        raise FileExistsError(
            f"{folder} holds a run already. Add --resume to go on with it, or choose "
            "another --out."
        )
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write_text(written, recipe.to_yaml())
    return recipe, folder


def _check_same(old: Recipe, new: Recipe, folder: Path) -> None:
    """Refuse to resume with another recipe; only the number of epochs may change."""
    before, after = _flat(old.to_dict()), _flat(new.to_dict())
    epochs = "train.epochs"
    if old.train.phases:  # those before the last may be over
        epochs = f"train.phases.{len(old.train.phases) - 1}.epochs"
    changed = [
        f"  {key}: the run has {before.get(key)!r}, now {after.get(key)!r}"
        for key in sorted({*before, *after})
        if before.get(key) != after.get(key) and key not in (epochs, "name")
    ]
    if changed:
        raise RecipeError(
            f"{folder} was started with another recipe; only {epochs} may change "
            "on resume:\n" + "\n".join(changed)
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
