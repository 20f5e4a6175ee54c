"""What a run was trained on, for its folder."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys

_PACKAGES = (
    "visionkit",
    "keras",
    "tensorflow",
    "jax",
    "numpy",
    "albumentations",
    "pillow",
)


def describe_environment() -> dict:
    """JSON-ready dict of versions, backend and devices; no names of people or hosts."""
    import keras

    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "backend": keras.backend.backend(),
        "devices": keras.distribution.list_devices() or ["cpu"],
        "versions": versions,
        "command": sys.argv[1:],
    }
