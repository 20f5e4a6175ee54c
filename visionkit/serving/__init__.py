"""What lies between a trained model and its users: check, publish, serve, call.

    from visionkit.serving import Client

    with Client("http://localhost:8501", "flowers") as client:
        results = client.predict("photos/")

Importing it is cheap, and a client of REST never imports TensorFlow.
"""

from __future__ import annotations

import importlib

_PUBLIC = {
    "Client": "visionkit.serving.client",
    "CallError": "visionkit.serving.retries",
    "Server": "visionkit.serving.server.server",
}

__all__ = sorted(_PUBLIC)


def __getattr__(name: str):
    if name not in _PUBLIC:
        raise AttributeError(f"module 'visionkit.serving' has no attribute {name!r}")
    value = getattr(importlib.import_module(_PUBLIC[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
