"""`model.start_from`: a training begins with what a trained model has learnt."""

from __future__ import annotations

from visionkit.tasks import MODELS
from visionkit.tasks.loading import load
from visionkit.tasks.task import VisionTask
from visionkit.tasks.transfer import take_weights
from visionkit.training.recipe_files import RecipeError

_KEY = "model.start_from"
_LAYERS_SHOWN = 6


def start_model(model: VisionTask, path: str) -> str:
    """Give a fresh model the weights of a trained one that fit it.

    Args:
        model: Built.
        path: A run folder or a `.keras` file, absolute or from the working directory.

    Returns:
        What was taken and what was not, in words.

    Raises:
        RecipeError: There is no model at `path`, it is damaged, another network, or
            has no weight that fits.
    """
    try:
        trained = load(path)
    except (FileNotFoundError, ValueError) as error:
        raise RecipeError(f"{_KEY}: {error}") from error
    if not isinstance(trained, VisionTask):
        raise RecipeError(
            f"{_KEY}: {path} holds a {type(trained).__name__}, which is no model of a "
            "recipe. Name a run folder, or a .keras file of a model of visionkit."
        )
    theirs, ours = _network(trained), _network(model)
    if theirs != ours:
        raise RecipeError(
            f"{_KEY}: {path} is {theirs}, the recipe's model is {ours}. Weights fit "
            "the same network alone: change model.name and model.backbone, or start "
            "from another model."
        )
    taken, total, fresh = take_weights(model, trained)
    if not taken:
        raise RecipeError(
            f"{_KEY}: none of the {total} weights of the recipe's model has its place "
            f"and shape in {path}. Compare the model's options with those of the "
            "recipe that it was trained by."
        )
    words = f"{path}, {taken} of {total} weights"
    if fresh:
        words += f"; fresh: {', '.join(fresh[:_LAYERS_SHOWN])}"
    if len(fresh) > _LAYERS_SHOWN:
        words += f" and {len(fresh) - _LAYERS_SHOWN} more layers"
    same_number = len(trained.class_names) == len(model.class_names)
    if same_number and trained.class_names != model.class_names:
        words += "; its classes have other names, and are taken by their places"
    return words


def _network(model: VisionTask) -> str:
    """A model's name in recipes, and its backbone's."""
    name = type(model).__name__
    known = {ref.partition(":")[2]: n for t in MODELS.values() for n, ref in t.items()}
    return f"{known.get(name, name)} on {model.backbone.name}"
