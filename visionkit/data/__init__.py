"""Files in, batches of ground truth out; the only package that knows tf.data."""

from __future__ import annotations

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "pipeline": ["Order", "make_dataset", "steps_per_epoch"],
        "report": ["DataReport"],
        "sources": ["SOURCES", "build_source"],
        "sources.balance": ["Oversampled"],
        "split": ["split_source"],
    },
)
