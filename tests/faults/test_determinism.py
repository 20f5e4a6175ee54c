"""`train.deterministic: true`: the same recipe gives the same bits, in any process."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

CHANGES = [
    "train.epochs=1",
    "train.tensorboard=false",
    "model.dropout=0.4",
    "augment=[{crop: {scale: [0.7, 1.0]}}, {color: {brightness: 0.3}}, {erase: {}}]",
]


def train(folder: Path, *changes: str) -> str:
    """The sha256 of everything that a training in its own process has changed."""
    command = [sys.executable, "-m", "visionkit.tasks", "train", "digits_lenet5"]
    command += [*CHANGES, *changes, "--out", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    (file,) = folder.glob("checkpoints/*.npz")
    digest = hashlib.sha256()
    with np.load(file, allow_pickle=False) as arrays:
        for name in sorted(set(arrays.files) - {"meta.json"}):
            digest.update(name.encode() + arrays[name].tobytes())
    return digest.hexdigest()


@pytest.mark.faults
def test_a_recipe_gives_the_same_bits_again_and_others_from_another_seed(tmp_path):
    first = train(tmp_path / "first", "train.deterministic=true")
    assert train(tmp_path / "second", "train.deterministic=true") == first
    other = train(tmp_path / "other", "train.deterministic=true", "train.seed=7")
    assert other != first
