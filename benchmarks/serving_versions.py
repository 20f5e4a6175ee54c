"""Versions of one model that answer differently, and how they come into a server."""

from __future__ import annotations

import json
import os
import shutil
import time
import urllib.request
from pathlib import Path

import numpy as np

SECONDS = 120  # longest that a server may take to look at a version


def stage(saved_model: str, base: Path, count: int) -> dict[int, Path]:
    """Copies of a version, each of other weights, under names that no server takes.

    Args:
        saved_model: Folder of the version.
        base: The model's folder.
        count: How many.

    Returns:
        Number -> folder, from 1; the first is an unchanged copy.
    """
    staged = {}
    for number in range(1, count + 1):
        staged[number] = base / f".staged-{number}"
        shutil.copytree(saved_model, staged[number])
        if number > 1:
            _change_weights(staged[number], number)
    return staged


def _change_weights(folder: Path, seed: int) -> None:
    """Give the variables of a SavedModel other values, some per cent off."""
    import tensorflow as tf

    rng, prefix = np.random.default_rng(seed), str(folder / "variables" / "variables")
    reader = tf.train.load_checkpoint(prefix)
    names = sorted(reader.get_variable_to_shape_map())
    values = [reader.get_tensor(name) for name in names]
    for index, value in enumerate(values):
        if isinstance(value, np.ndarray) and value.dtype.kind == "f":
            factors = rng.uniform(0.9, 1.1, value.shape)
            values[index] = (value * factors).astype(value.dtype)
    del reader
    for file in (folder / "variables").iterdir():
        file.unlink()
    tf.raw_ops.SaveV2(
        prefix=prefix,
        tensor_names=names,
        shape_and_slices=[""] * len(names),
        tensors=[tf.constant(value) for value in values],
    )


def corrupt(staged: Path, kind: int) -> Path:
    """A copy of a version of which half of one file is missing."""
    folder = staged.with_name(f"{staged.name}-corrupt-{kind}")
    shutil.copytree(staged, folder)
    data = sorted((folder / "variables").glob("variables.data*"))
    file = (folder / "saved_model.pb", *data)[kind % (1 + len(data))]
    with file.open("r+b") as opened:
        opened.truncate(file.stat().st_size // 2)
    return folder


def publish(staged: Path, number: int) -> Path:
    """Give a version its number, by which a server finds it, in one step."""
    target = staged.with_name(str(number))
    os.rename(staged, target)
    return target


def wait_until(target: dict, states: dict[int, str]) -> None:
    """Wait for the server to say that these versions have these states.

    Raises:
        SystemExit: It does not say so in time.
    """
    end = time.monotonic() + SECONDS
    while True:
        url = f"{target['url']}/v1/models/{target['name']}"
        with urllib.request.urlopen(url, timeout=SECONDS) as answer:
            found = json.load(answer)["model_version_status"]
        seen = {int(entry["version"]): entry["state"] for entry in found}
        if all(seen.get(number) == state for number, state in states.items()):
            return
        if time.monotonic() > end:
            raise SystemExit(f"Not within {SECONDS} s: {states}. The server: {seen}")
        time.sleep(0.05)
