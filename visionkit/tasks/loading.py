"""Loading models safely: nothing foreign is imported, nothing is unpickled."""

from __future__ import annotations

import importlib
import json
import os
import zipfile
from pathlib import Path

from visionkit._quiet import import_keras

_MEMBERS = {"metadata.json", "config.json", "model.weights.h5"}
_TRUSTED = ("keras", "visionkit", "builtins")


def load(path: str | os.PathLike):
    """The trained model of a run folder or a `.keras` file, compiled as it was saved.

    Plain `keras.saving.load_model` does the same once the model's class has been
    imported; this also imports it, and refuses archives that name foreign code.

    Args:
        path: A run folder (its `model.keras` is read) or a `.keras` file.

    Returns:
        A `VisionTask`, or any other Keras model the file holds.

    Raises:
        FileNotFoundError: There is no model at `path`.
        ValueError: The archive is damaged or names code outside Keras and visionkit.
    """
    path = Path(path)
    file = path / "model.keras" if path.is_dir() else path
    if not file.is_file():
        hint = ""
        if (path / "recipe.yaml").is_file():
            hint = (
                " The run has not ended its first epoch; go on with it by "
                f"`python -m visionkit.tasks train {path} --resume`."
            )
        elif path.is_dir():
            hint = " Name a run folder, which has one, or a .keras file."
        raise FileNotFoundError(f"There is no model at {file}.{hint}")
    modules = _modules_of(file)
    import_keras()
    for module in sorted(modules):
        if module.partition(".")[0] == "visionkit":
            importlib.import_module(module)

    import keras

    return keras.saving.load_model(file, safe_mode=True)


def _modules_of(file: Path) -> set[str]:
    """Modules that the archive's config names, all of them trusted ones."""
    try:
        with zipfile.ZipFile(file) as archive:
            members = {m for m in archive.namelist() if not m.startswith("assets/")}
            if broken := archive.testzip():
                raise zipfile.BadZipFile(f"{broken} fails its checksum")
            config = json.loads(archive.read("config.json"))
    except (zipfile.BadZipFile, KeyError, UnicodeDecodeError, ValueError) as error:
        raise ValueError(
            f"{file} is not a readable .keras file ({error}). It is damaged or was not "
            "written by Keras 3; take an older checkpoint or train again."
        ) from error
    if unexpected := sorted(members - _MEMBERS):
        raise ValueError(
            f"{file} holds unexpected members: {', '.join(unexpected)}. "
            "A .keras file has config.json, metadata.json, model.weights.h5."
        )
    modules = set(_walk_modules(config))
    foreign = {m for m in modules if m.partition(".")[0] not in _TRUSTED}
    if foreign:
        raise ValueError(
            f"{file} names code outside Keras and visionkit: "
            f"{', '.join(sorted(foreign))}. It is refused. If you trust the file, "
            "import that code yourself and use `keras.saving.load_model`."
        )
    return modules


def _walk_modules(node):
    if isinstance(node, dict):
        if isinstance(node.get("module"), str):
            yield node["module"]
        for value in node.values():
            yield from _walk_modules(value)
    elif isinstance(node, list):
        for value in node:
            yield from _walk_modules(value)
