"""What a detector is worth, as figures: precision along recall, kinds of errors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from visionkit.visualize.colors import OKABE_ITO
from visionkit.visualize.figures import BLUE, INK, VERMILION, clean, write_listing
from visionkit.visualize.text import class_name, plain

COLORED_CLASSES = len(OKABE_ITO)  # as many classes have a line of their own colour
LISTED = 10  # classes at either end of a long list
F1_LEVELS = (0.2, 0.4, 0.6, 0.8)
GREY = "#9e9e9e"


def plot_precision_recall(
    curves,
    class_names: Sequence[str],
    *,
    scores=None,
    label: str = "precision at IoU 0.5",
):
    """Precision along recall of each class, and their mean.

    Up to 7 classes have a colour and a place in the legend, the best first; of more
    the lines are grey, and the best and worst are named beside them. Numbers are the
    average precisions. Along the dotted lines F1 is the same. Classes without objects
    are left out.

    Args:
        curves: Dict of "recall" (R,) and "precision" (K, R), NaN or None where a
            class has no object; as `DetectionEvaluator.result` gives it.
        class_names: K names in label order.
        scores: (K,) average precisions, NaN or None without objects; default the means
            of the curves.
        label: What lies along the upright axis.

    Returns:
        `matplotlib.figure.Figure`.

    Raises:
        ValueError: Not one row of precision per class.
    """
    from visionkit.visualize.canvas import Figure

    recall = np.array(curves["recall"], np.float64)
    precision = np.array(curves["precision"], np.float64)
    if precision.shape != (len(class_names), len(recall)) or not recall.size:
        raise ValueError(
            "`precision` must be (K, R) with one name per class beside `recall` (R,). "
            f"Received: precision {precision.shape}, recall {recall.shape}, "
            f"{len(class_names)} names"
        )
    score = precision.mean(axis=1) if scores is None else np.array(scores, np.float64)
    order = np.argsort(-score, kind="stable")
    order = order[~np.isnan(score[order])]
    rows = [f"{score[i]:.3f}  {plain(class_name(class_names, i), 24)}" for i in order]

    many = len(order) > COLORED_CLASSES
    figure = Figure((7.4 if many else 7.0, 4.4))
    axes, beside = figure.subplots(1, 2, width_ratios=(4.4, 2.6))
    _frame(axes, label)
    colors = [[channel / 255 for channel in color] for color in OKABE_ITO]
    for place, i in enumerate(order):
        style = {"color": GREY, "linewidth": 0.6, "alpha": 0.7}
        if not many:
            style = {"color": colors[place], "linewidth": 1.4, "label": rows[place]}
        axes.plot(recall, precision[i], **style)
    if len(order) > 1:
        mean = precision[order].mean(axis=0)
        text = f"{score[order].mean():.3f}  mean of {len(order)} classes"
        axes.plot(recall, mean, color=INK, linewidth=2.4, label=text)
    if many:
        write_listing(beside, _both_ends(rows))
        axes.legend(fontsize=8, frameon=False, loc="lower left")
    elif len(order):
        beside.set_axis_off()
        beside.legend(
            *axes.get_legend_handles_labels(),
            **{"fontsize": 8, "frameon": False, "loc": "upper left"},
            title="average precision",
            title_fontsize=9,
            alignment="left",
            borderaxespad=0,
        ).set_in_layout(False)
    else:
        write_listing(beside, {"No objects": []})
    return figure


def plot_errors(errors):
    """Kinds of a detector's errors: how many, and what mending them would gain.

    Args:
        errors: Dict from a kind to {"count", "ap_gain"}, as
            `DetectionEvaluator.result` gives it.

    Returns:
        `matplotlib.figure.Figure`.

    Raises:
        ValueError: No kinds.
    """
    from visionkit.visualize.canvas import Figure

    if not errors:
        raise ValueError("`errors` must hold at least one kind of error.")
    counts = np.array([error["count"] for error in errors.values()], np.float64)
    gains = np.array([error["ap_gain"] for error in errors.values()], np.float64)
    figure = Figure((7.4, 0.9 + 0.3 * len(errors)))
    left, right = figure.subplots(1, 2, sharey=True)
    names = [plain(kind, 20) for kind in errors]
    texts = [f"{count:,.0f}" for count in counts]
    _bars(left, names, counts, texts, VERMILION, "errors above the score threshold")
    texts = ["–" if np.isnan(gain) else f"{gain:+.3f}" for gain in gains]
    _bars(right, names, gains, texts, BLUE, "average precision gained without them")
    return figure


def _frame(axes, label):
    """The unit square with lines of equal F1."""
    clean(axes)
    axes.set(xlim=(0, 1), ylim=(0, 1.02))
    axes.set_xlabel("recall", fontsize=9)
    axes.set_ylabel(label, fontsize=9)
    for f1 in F1_LEVELS:
        recall = np.linspace(f1 / (2 - f1), 1, 60)
        precision = f1 * recall / (2 * recall - f1)
        axes.plot(recall, precision, color="#bdbdbd", linewidth=0.7, linestyle=":")
        at = {"textcoords": "offset points", "ha": "right", "va": "bottom"}
        place = (1, precision[-1])
        axes.annotate(f"F1 {f1}", place, (-1, 1), fontsize=6, color=GREY, **at)


def _both_ends(rows) -> dict[str, list[str]]:
    if len(rows) <= 2 * LISTED:
        return {"Average precision": rows}
    return {"Highest": rows[:LISTED], "Lowest": rows[-LISTED:]}


def _bars(axes, names, values, texts, color, label):
    clean(axes)
    axes.grid(visible=False, axis="y")
    values = np.nan_to_num(values)
    places = np.arange(len(names))
    bars = axes.barh(places, values, color=color, height=0.7)
    axes.bar_label(bars, texts, padding=3, fontsize=8, color=INK)
    axes.set_yticks(places, names, fontsize=9)
    low, high = min(values.min(), 0), max(values.max(), 0)
    room = 0.18 * (high - low) or 1.0
    axes.set(
        ylim=(len(names) - 0.4, -0.6),
        xlim=(low - room * (low < 0), high + room),
    )
    axes.locator_params(axis="x", nbins=5)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(label, fontsize=9)
