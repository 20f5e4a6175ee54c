"""The phases of a training: each is a recipe of its own, without phases.

Feature extraction with fine-tuning behind it, or growing images, are lists of phases;
a recipe without any is one phase.
"""

from __future__ import annotations

from visionkit.training.recipe_sections import Recipe

# Key of a phase -> section where it takes the place of the recipe's own.
_SECTIONS = {
    "epochs": "train",
    "learning_rate": "train",
    "schedule": "train",
    "freeze": "model",
    "image_size": "model",
}


def phase_recipes(recipe: Recipe) -> list[Recipe]:
    """The recipe of each phase, in order; at least one."""
    return [_of_phase(recipe, phase) for phase in recipe.train.phases or ()] or [recipe]


def _of_phase(recipe: Recipe, phase) -> Recipe:
    changes: dict[str, dict] = {"train": {"phases": None}, "model": {}}
    for key, section in _SECTIONS.items():
        value = getattr(phase, key)
        if value is not None:
            changes[section][key] = value
    return recipe.model_copy(
        update={
            name: getattr(recipe, name).model_copy(update=values)
            for name, values in changes.items()
        }
    )
