"""Necks: layers from a backbone's levels to those that a head reads.

Names are resolved on use, so importing the package costs nothing.
"""

from __future__ import annotations

import importlib

_MODULES = {
    "FPN": "visionkit.necks.fpn",
    "PAN": "visionkit.necks.pan",
    "SSDExtra": "visionkit.necks.ssd_extra",
}

__all__ = sorted(_MODULES)


def __getattr__(name):
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__():
    return __all__
