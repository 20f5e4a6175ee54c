"""What the sections of a recipe are made of.

Nothing here imports TensorFlow or Keras.
"""

from __future__ import annotations

from typing import Any

import pydantic

# A name, or one name with its options: `sgd`, `{sgd: {momentum: 0.9}}`.
Named = str | dict[str, dict[str, Any] | None]
_PARTS = pydantic.TypeAdapter(list[Named])
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


def check_parts(value):
    """A validator: the parts of a sum of losses are names, with options or without."""
    if value is not None:
        _, options = named_options(value)
        if "losses" in options:
            try:
                parts = _PARTS.validate_python(options["losses"])
            except pydantic.ValidationError:
                parts = ()
            if not parts or any(len(p) != 1 for p in parts if isinstance(p, dict)):
                raise ValueError(
                    "losses must be a list of names, or of names with their options, "
                    "e.g. {sum: {losses: [dice, {crossentropy: {}}]}}"
                )
            for part in parts:
                check_parts(part)
    return value


def loss_names(spec: str | dict) -> list[str]:
    """The name of a loss, and those of its parts where it is a sum."""
    name, options = named_options(spec)
    return [name, *(n for part in options.get("losses", ()) for n in loss_names(part))]


class Section(pydantic.BaseModel):
    """A part of a recipe: no unknown keys, no infinite numbers."""

    model_config = pydantic.ConfigDict(
        extra="forbid", validate_default=True, allow_inf_nan=False
    )
