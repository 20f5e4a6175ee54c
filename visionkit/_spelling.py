"""Names that people type, and what to answer when they are wrong."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(word: str, legal: Iterable[str]) -> str:
    """ " Did you mean ...?" with the nearest legal name, or nothing."""
    match = difflib.get_close_matches(str(word).lower(), [str(k) for k in legal], 1)
    return f" Did you mean {match[0]!r}?" if match else ""


def check_name(
    kind: str, name: str, legal: Iterable[str], error: type[ValueError] = ValueError
) -> None:
    """Refuse a name that is not among the legal ones.

    Args:
        kind: What the name is for, e.g. "optimizer".
        name: As received.
        legal: All legal names.
        error: What to raise.

    Raises:
        ValueError: Naming the nearest spelling and every legal name.
    """
    legal = list(legal)
    if name not in legal:
        raise error(
            f"There is no {kind} {name!r}.{nearest(name, legal)} "
            f"Legal: {', '.join(legal)}."
        )
