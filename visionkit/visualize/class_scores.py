"""A score of each class, such as its average precision, as one figure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from visionkit.visualize.figures import BLUE, INK, NAMED_CLASSES, clean, write_listing
from visionkit.visualize.text import class_name, plain


def plot_class_scores(scores, names: Sequence[str], label: str):
    """Scores of the classes, the highest first, with a dashed line at their mean.

    Up to 40 classes are bars with names and values; more become a profile beside the
    names at both ends. A class without a score (NaN or None) comes last.

    Args:
        scores: K numbers in [0, 1], NaN or None.
        names: K class names.
        label: What the score is.

    Returns:
        `matplotlib.figure.Figure`.

    Raises:
        ValueError: No classes, or scores and names of different number.
    """
    scores = np.array(scores, np.float64)
    if scores.ndim != 1 or not len(scores) or len(scores) != len(names):
        raise ValueError(
            "`scores` must be (K,) with one name per class, K at least 1. "
            f"Received: scores {scores.shape}, {len(names)} names"
        )
    order = np.argsort(-scores, kind="stable")  # NaN last
    names = [plain(class_name(names, int(i)), 28) for i in order]
    scores = scores[order]
    texts = ["no example" if np.isnan(score) else f"{score:.3f}" for score in scores]
    known = scores[~np.isnan(scores)]
    mean = known.mean() if known.size else None
    plot = _profile if len(scores) > NAMED_CLASSES else _bars
    return plot(np.nan_to_num(scores), names, texts, mean, label)


def _bars(scores, names, texts, mean, label):
    from visionkit.visualize.canvas import Figure

    figure = Figure((6.4, 0.9 + 0.22 * len(scores)))
    axes = figure.add_subplot()
    clean(axes)
    axes.grid(visible=False, axis="y")
    places = np.arange(len(scores))
    bars = axes.barh(places, scores, color=BLUE, height=0.72)
    axes.bar_label(bars, texts, padding=3, fontsize=8, color=INK)
    axes.set_yticks(places, names, fontsize=8)
    axes.set(ylim=(len(scores) - 0.4, -0.6), xlim=(0, 1.14))
    axes.set_xticks(np.linspace(0, 1, 6))
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(_label(label, mean), fontsize=9)
    if mean is not None:
        axes.axvline(mean, color="#757575", linewidth=1, linestyle=(0, (4, 3)))
    return figure


def _profile(scores, names, texts, mean, label):
    from visionkit.visualize.canvas import Figure

    figure = Figure((8.0, 4.2))
    axes, listing = figure.subplots(1, 2, width_ratios=(3, 1.2))
    clean(axes)
    axes.fill_between(np.arange(1, len(scores) + 1), scores, step="mid", color=BLUE)
    axes.set(ylim=(0, 1.02), xlim=(0.5, len(scores) + 0.5))
    axes.set_xlabel(f"{len(scores):,} classes, the highest first", fontsize=9)
    axes.set_ylabel(_label(label, mean), fontsize=9)
    if mean is not None:
        axes.axhline(mean, color="#757575", linewidth=1, linestyle=(0, (4, 3)))
    rows = [f"{text}  {name}" for text, name in zip(texts, names, strict=True)]
    write_listing(listing, {"Highest": rows[:9], "Lowest": rows[-9:]})
    return figure


def _label(label: str, mean) -> str:
    return label if mean is None else f"{label} (mean {mean:.3f})"
