"""Components of a detector as its constructor takes them, and its levels."""

from __future__ import annotations

import functools
from collections.abc import Callable

from visionkit.ops.pyramid import is_static, pyramid_sizes


def resolve(component, make_default: Callable):
    """The component that a constructor's argument means.

    Args:
        component: The object itself, a dict of the options of the default one that
            change, or None for the default.
        make_default: Makes it, an object with `get_config`.

    Raises:
        TypeError, ValueError: An option that the component does not have.
    """
    if component is not None and not isinstance(component, dict):
        return component
    default = make_default()
    if not component:
        return default
    return type(default).from_config({**default.get_config(), **component})


def level_sizes(pyramid: dict, image_size) -> dict[str, tuple]:
    """Level -> (height, width) of its feature map.

    Args:
        pyramid: Level -> (B, h, w, C). Where h and w are static the sizes are these.
        image_size: (height, width), integers or scalar tensors.
    """
    sizes = {level: tuple(x.shape[1:3]) for level, x in pyramid.items()}
    if all(map(is_static, sizes.values())):
        return sizes
    return pyramid_sizes(sizes, image_size)


def per_size(make: Callable) -> Callable:
    """A function of (height, width) that is asked once for each size that is known.

    Args:
        make: The function. Scalar tensors are handed on to it every time, for what it
            returns belongs to the graph they are of.
    """
    known = functools.lru_cache(maxsize=64)(make)
    return lambda size: known(tuple(size)) if is_static(size) else make(size)
