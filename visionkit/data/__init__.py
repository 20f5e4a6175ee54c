"""Files in, batches of ground truth out; the only package that knows tf.data."""

from __future__ import annotations

import importlib

_PUBLIC = {
    "DataReport": "visionkit.data.report",
    "Order": "visionkit.data.pipeline",
    "Oversampled": "visionkit.data.sources.balance",
    "SOURCES": "visionkit.data.sources",
    "build_source": "visionkit.data.sources",
    "make_dataset": "visionkit.data.pipeline",
    "split_source": "visionkit.data.split",
    "steps_per_epoch": "visionkit.data.pipeline",
}

__all__ = sorted(_PUBLIC)


def __getattr__(name: str):
    if name not in _PUBLIC:
        raise AttributeError(f"module 'visionkit.data' has no attribute {name!r}")
    value = getattr(importlib.import_module(_PUBLIC[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
