"""Recipe files: where they are, and reading them without YAML's traps."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

import yaml

from visionkit._spelling import nearest
from visionkit.data.sources.yaml_file import StrictLoader

_MAX_BYTES = 1_000_000


class RecipeError(ValueError):
    """A recipe that cannot be run; the text names file, key, value and expectation."""


@contextlib.contextmanager
def as_recipe_error():
    """A `ValueError` within it becomes a `RecipeError`: the recipe asked for it."""
    try:
        yield
    except RecipeError:
        raise
    except ValueError as error:
        raise RecipeError(str(error)) from error


def recipe_of(source):
    """The recipe file of a run folder; anything else as it is."""
    file = Path(source) / "recipe.yaml" if isinstance(source, (str, Path)) else None
    return file if file is not None and file.is_file() else source


def recipe_folders() -> list[Path]:
    """Where bare recipe names are looked up: in the wheel, or beside the package."""
    package = Path(__file__).resolve().parents[1]
    return [f for f in (package / "recipes", package.parent / "tasks") if f.is_dir()]


def list_recipes() -> dict[str, Path]:
    """Name -> file of every recipe that comes with visionkit."""
    files = (f for folder in recipe_folders() for f in sorted(folder.rglob("*.yaml")))
    return {file.stem: file for file in files}


def find_recipe(name: str | os.PathLike) -> Path:
    """The recipe's file, given its path or the bare name of one of ours.

    Raises:
        RecipeError: There is no such file; the nearest names are listed.
    """
    path = Path(name)
    if path.is_file():
        return path
    known = list_recipes()
    if str(name) in known:
        return known[str(name)]
    if recipe_of(path) is not path:
        raise RecipeError(
            f"{path} is a run folder: add --resume to go on with it, or name its "
            "recipe.yaml to train it anew."
        )
    raise RecipeError(
        f"There is no recipe {str(name)!r}: neither a file nor one of visionkit's "
        f"own.{nearest(str(name), known)} `python -m visionkit.tasks list recipes` "
        "shows them, `new` writes one."
    )


class _RecipeLoader(StrictLoader):
    """As strict, and with numbers that YAML 1.1 takes for texts."""


def read_yaml(path: Path) -> dict:
    """The mapping in a YAML file, read with the safe and strict loader.

    Raises:
        RecipeError: Too large, not YAML, or not a mapping.
    """
    size = path.stat().st_size
    if size > _MAX_BYTES:
        raise RecipeError(f"{path}: {size} bytes; a recipe has at most {_MAX_BYTES}.")
    try:
        raw = parse_yaml(path.read_text("utf-8-sig"))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise RecipeError(f"{path}: not a readable YAML file: {error}") from None
    if not isinstance(raw, dict):
        raise RecipeError(
            f"{path}: a recipe is a mapping with the keys task, model, data, augment, "
            f"train and export; found {type(raw).__name__}."
        )
    return raw


# YAML 1.1 takes 1e-3 for a text; everybody means the number.
_RecipeLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+"),
    list("-+.0123456789"),
)


def parse_yaml(text: str):
    """The value that a YAML text spells, read strictly.

    Raises:
        yaml.YAMLError: Not YAML, an alias, a key twice, or nested too deep.
    """
    try:
        return yaml.load(text, Loader=_RecipeLoader)
    except (AttributeError, OverflowError, RecursionError, ValueError) as error:
        # Of a value that does not fit its tag, e.g. the date 2001-99-99.
        raise yaml.YAMLError(f"{type(error).__name__}: {error}") from error
