"""What the sections of a recipe are made of.

Nothing here imports TensorFlow or Keras.
"""

from __future__ import annotations

from typing import Any

import pydantic

# A name, or one name with its options: `sgd`, `{sgd: {momentum: 0.9}}`.
Named = str | dict[str, dict[str, Any] | None]
Size = tuple[pydantic.PositiveInt, pydantic.PositiveInt]


def named_options(item: str | dict) -> tuple[str, dict]:
    """`"flip"` and `{"flip": {"p": 0.5}}` alike as (name, options)."""
    if isinstance(item, str):
        return item, {}
    ((name, options),) = item.items()
    return name, dict(options or {})


def one_name(value):
    """A validator: a dict has one key."""
    if isinstance(value, dict) and len(value) != 1:
        raise ValueError("must be a name, or one name with its options")
    return value


class Section(pydantic.BaseModel):
    """A part of a recipe: no unknown keys, no infinite numbers."""

    model_config = pydantic.ConfigDict(
        extra="forbid", validate_default=True, allow_inf_nan=False
    )
