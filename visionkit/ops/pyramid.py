"""Sizes of a pyramid's levels, as their names say them.

A size is (height, width): integers, or scalar tensors where only a batch says it.
"""

from __future__ import annotations

import numbers
from collections.abc import Sequence


def pyramid_sizes(levels: Sequence[str], image_size) -> dict:
    """Level -> (height, width) of its feature map, ceil(image_size / 2**n) for Pn."""
    return {
        level: tuple(-(-side // level_stride(level)) for side in image_size)
        for level in levels
    }


def is_static(size) -> bool:
    """Whether (height, width) are integers, and not scalar tensors."""
    return all(isinstance(side, numbers.Integral) for side in size)


def level_stride(level: str) -> int:
    """How many times smaller than the image a level is, by its name: 8 for "P3"."""
    if not (level[:1] == "P" and level[1:].isdecimal()):
        raise ValueError(f"A level is called 'P3', 'P4' ... Received: {level!r}")
    return 2 ** int(level[1:])
