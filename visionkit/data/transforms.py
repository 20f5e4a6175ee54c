"""The table of augmentations, and how a recipe's list becomes objects.

A transform draws from its `seed` (2,) alone, so a sample depends only on the run's
seed, the epoch and the record.
"""

from __future__ import annotations

import dataclasses
import difflib

from visionkit.data.geometric import Crop, Flip, ScaleJitter
from visionkit.data.photometric import Color, Erase

TRANSFORMS = {
    "crop": Crop,
    "flip": Flip,
    "scale_jitter": ScaleJitter,
    "color": Color,
    "erase": Erase,
}


def build_transforms(items) -> tuple:
    """The transforms that a recipe lists.

    Args:
        items: Names, or one-key dicts from a name to its options:
            `["crop", {"flip": {"p": 0.5}}]`.

    Raises:
        ValueError: Unknown name or option, or `crop` not in the first place.
    """
    transforms = tuple(_build(item) for item in items or ())
    check_order(transforms)
    return transforms


def check_order(transforms) -> None:
    """Raises a ValueError where `crop` is not the first transform."""
    names = [type(transform).__name__.lower() for transform in transforms]
    if "crop" in names[1:]:
        raise ValueError(
            "`crop` must be the first transform, since it is done while decoding, and "
            f"there can be only one. Received: {', '.join(names)}"
        )


def _build(item):
    name, options = item, {}
    if isinstance(item, dict) and len(item) == 1:
        ((name, options),) = item.items()
    if not isinstance(name, str) or not isinstance(options or {}, dict):
        raise ValueError(
            "A transform is a name or a dict of one name with its options, such as "
            f"{{flip: {{p: 0.5}}}}. Received: {item}"
        )
    if name not in TRANSFORMS:
        near = difflib.get_close_matches(name.lower(), TRANSFORMS, 1)
        hint = f" Did you mean `{near[0]}`?" if near else ""
        raise ValueError(
            f"No transform is called `{name}`.{hint} Only these lower-case transforms "
            f"are available: {', '.join(TRANSFORMS)}."
        )
    cls = TRANSFORMS[name]
    legal = [field.name for field in dataclasses.fields(cls)]
    unknown = sorted(set(options or {}) - set(legal))
    if unknown:
        raise ValueError(
            f"`{name}` has no option {', '.join(unknown)}. "
            f"Its options are {', '.join(legal)}."
        )
    options = {
        k: tuple(v) if isinstance(v, list) else v for k, v in (options or {}).items()
    }
    try:
        return cls(**options)
    except (TypeError, ValueError) as error:
        raise ValueError(f"Transform `{name}`: {error}") from error
