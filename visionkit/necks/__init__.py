"""Necks: layers from a backbone's levels to those that a head reads.

Names are resolved on use, so importing the package costs nothing.
"""

from __future__ import annotations

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "fpn": ["FPN"],
        "pan": ["PAN"],
        "ssd_extra": ["SSDExtra"],
    },
)
