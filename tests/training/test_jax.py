"""Optimizers, resuming and averages on JAX, in a process without TensorFlow."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

TESTS = ("test_optimizers.py", "test_callbacks.py", "test_state.py")
CHOSEN = (
    "fifty_steps or accumulating or average or state_has or guard"
    " or mixed_precision or logs_and_states and 5"
)


def test_training_on_jax_without_tensorflow():
    files = [str(Path(__file__).with_name(name)) for name in TESTS]
    options = ["-q", "-x", "--noconftest", "-p", "no:cacheprovider", "-k", CHOSEN]
    code = (
        "import sys, pytest; sys.modules['tensorflow'] = None; "
        f"sys.exit(pytest.main({[*options, *files]}))"
    )
    environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
