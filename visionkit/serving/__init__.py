"""What lies between a trained model and its users: check, publish, serve, call.

    from visionkit.serving import Client

    with Client("http://localhost:8501", "flowers") as client:
        results = client.predict("photos/")

Importing it is cheap, and a client of REST never imports TensorFlow.
"""

from __future__ import annotations

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "client": ["Client"],
        "retries": ["CallError"],
        "server.server": ["Server"],
    },
)
