"""Numbers that belong together, as one value that a model's config holds."""

from __future__ import annotations

import dataclasses


class Options:
    """Base of frozen dataclasses that Keras saves: their config is their fields."""

    def get_config(self) -> dict:
        """The constructor's arguments."""
        return dataclasses.asdict(self)

    @classmethod
    def from_config(cls, config: dict):
        """The object of `get_config`.

        Raises:
            TypeError, ValueError: Unknown option, or a value that it cannot have.
        """
        return cls(**config)
