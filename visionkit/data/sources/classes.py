"""Names of classes: read, chosen, and told apart from their positions."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from visionkit._spelling import check_name
from visionkit.data.sources.files import read_text, repeated


def read_classes(
    classes: Sequence[str] | str | os.PathLike | None, base: Path
) -> tuple[str, ...] | None:
    """Names from a list, or from a text file with one on each line.

    Args:
        classes: The list, or the file.
        base: Where the file's path begins.

    Raises:
        ValueError: A name is there twice.
    """
    if classes is None:
        return None
    if isinstance(classes, str | os.PathLike):
        lines = read_text(base / classes, kind="file of classes").splitlines()
        classes = [line.strip() for line in lines if line.strip()]
    names = tuple(str(name) for name in classes)
    twice = repeated(names)
    if twice:
        raise ValueError(f"`classes` must be different names. Twice: {twice}")
    return names


def choose_classes(
    names: Sequence[str], chosen: Sequence[str] | None
) -> tuple[tuple[str, ...], np.ndarray]:
    """Which classes are used, and in which order.

    Args:
        names: All that the data know, in their order.
        chosen: Those to use; None for all.

    Returns:
        (class names, (len(names),) int32: the label of each of `names`, -1 where it is
        not chosen).

    Raises:
        ValueError: A chosen name is unknown; names the nearest.
    """
    if chosen is None:
        return tuple(names), np.arange(len(names), dtype=np.int32)
    for name in chosen:
        check_name("class in the data", name, names)
    label = {name: i for i, name in enumerate(chosen)}
    return tuple(chosen), np.array([label.get(n, -1) for n in names], np.int32)


def sort_key(name: str):
    """Numbers by value and before names, names by code point."""
    number = name.isascii() and name.isdigit()
    return (not number, int(name) if number else 0, name)
