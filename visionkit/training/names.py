"""Names that people type, and what to answer when they are wrong."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def check_name(kind: str, name: str, legal: Iterable[str]) -> None:
    """Refuse a name that is not among the legal ones.

    Args:
        kind: What the name is for, e.g. "optimizer".
        name: As received.
        legal: All legal names.

    Raises:
        ValueError: Naming the nearest spelling and every legal name.
    """
    legal = list(legal)
    if name not in legal:
        match = difflib.get_close_matches(str(name), legal, 1)
        nearest = f" Did you mean {match[0]!r}?" if match else ""
        raise ValueError(
            f"There is no {kind} {name!r}.{nearest} Legal: {', '.join(legal)}"
        )
