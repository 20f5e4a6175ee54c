"""From image files to answers: the graph that an export freezes, and `predict`."""

from __future__ import annotations

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "prediction": ["predict"],
    },
)
