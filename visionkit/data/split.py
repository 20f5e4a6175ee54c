"""Splitting a source into a training and a validation part."""

from __future__ import annotations

import numpy as np

from visionkit.data.fingerprints import content_ids
from visionkit.data.sources.base import Source, Subset


def split_source(
    source: Source, fraction: float, seed: int = 0
) -> tuple[Subset, Subset]:
    """A seeded split that never puts one image on both sides.

    Where there are labels, the split is stratified: `round(fraction * n)` of a class's
    n images are held back, at least one, and at least one is left. Images of equal
    bytes (copies, hard and symbolic links) stay on one side; only where such groups
    leave no other choice the counts differ from those above. An image of many labels
    counts as one of its rarest.

    Args:
        source: What to split.
        fraction: Share of the images held back for validation, in (0, 1).
        seed: Decides the split, together with the order of the source.

    Returns:
        (train, validation), both in the order of the source.

    Raises:
        ValueError: `fraction` is not in (0, 1), or a side would be empty.
    """
    if not 0 < fraction < 1:
        raise ValueError(
            "`fraction` is the share held back for validation and must be in (0, 1), "
            f"e.g. 0.2. Received: fraction={fraction}"
        )
    (groups,) = content_ids(source)
    held = stratified_mask(_strata(source), fraction, seed, groups)
    if not held.any() or held.all():
        side = "training" if held.any() else "validation"
        raise ValueError(
            f"Splitting {len(source)} images ({len(np.unique(groups))} different ones) "
            f"with fraction={fraction} leaves the {side} side empty. Use more images, "
            "or name a validation set instead of a fraction."
        )
    train = Subset(source, np.flatnonzero(~held), "train")
    train.skipped, train.remarks = source.skipped, source.remarks  # counted once
    return train, Subset(source, np.flatnonzero(held), "validation")


def _strata(source: Source) -> np.ndarray:
    """(len,) int, the class that each record counts as."""
    labels = source.labels()
    if labels is None:
        return np.zeros(len(source), int)
    if labels.ndim == 1:
        return labels
    # Rarest first; images without any label are a class of their own.
    rarest = np.argsort(source.class_counts(), kind="stable")
    some = labels[:, rarest] > 0
    return np.where(some.any(axis=1), rarest[some.argmax(axis=1)], -1)


def stratified_mask(
    labels: np.ndarray, fraction: float, seed: int, groups: np.ndarray | None = None
) -> np.ndarray:
    """Which records are held back; see `split_source`.

    Args:
        labels: (N,) int, the class of each record.
        fraction: In (0, 1).
        seed: Decides which.
        groups: (N,) int; records of one number stay together, under the class of
            their first. Default: every record is its own group.

    Returns:
        (N,) bool.
    """
    groups = np.arange(len(labels)) if groups is None else groups
    _, first, group, sizes = np.unique(
        groups, return_index=True, return_inverse=True, return_counts=True
    )
    group_labels = np.asarray(labels)[first]
    rng = np.random.default_rng(seed)
    held = np.zeros(len(first), bool)
    for label in np.unique(group_labels):
        members = rng.permutation(np.flatnonzero(group_labels == label))
        if len(members) > 1:
            held[_fill(members, sizes[members], fraction)] = True
    return held[group]


def _fill(members: np.ndarray, sizes: np.ndarray, fraction: float) -> np.ndarray:
    """The first groups, in the order given, that fit into the share of the class."""
    total = int(sizes.sum())
    room = min(max(round(fraction * total), 1), total - 1)
    if sizes.max() == 1:
        return members[:room]
    chosen = []
    for member, size in zip(members, sizes, strict=True):
        if size <= room:
            chosen.append(member)
            room -= size
    return np.array(chosen or [members[sizes.argmin()]])
