"""Components of a detector as its constructor takes them."""

from __future__ import annotations

from collections.abc import Callable


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


def level_sizes(pyramid: dict) -> dict[str, tuple[int, int]]:
    """Level -> (height, width) of its feature map."""
    return {level: tuple(x.shape[1:3]) for level, x in pyramid.items()}
