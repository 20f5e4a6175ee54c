"""Figures of a run: training curves and class counts, and how to save any picture."""

from __future__ import annotations

import contextlib
import csv
import io
import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from visionkit.visualize.colors import OKABE_ITO
from visionkit.visualize.text import class_name, plain

BLUE, VERMILION = ("#{:02x}{:02x}{:02x}".format(*OKABE_ITO[i]) for i in (0, 3))
INK, FAINT = "#212121", "#d9d9d9"
RATES = ("learning_rate", "lr")
LOWER_IS_BETTER = ("loss", "error", "entropy", "mae", "mse", "ece")
LISTING_PITCH = 12.5  # points
NAMED_CLASSES = 40  # as many bars carry their names


def save_figure(figure_or_image, path) -> Path:
    """Write a picture; whoever reads `path` sees the old file or the new, whole.

    Args:
        figure_or_image: A matplotlib `Figure` or a `PIL.Image`.
        path: Target; the suffix names the format (.png, .jpg; figures also .pdf,
            .svg). Missing folders are made.

    Returns:
        `path` as a `pathlib.Path`.

    Raises:
        ValueError: The suffix names no known format.
    """
    path = Path(path)
    kind = path.suffix[1:].lower()
    buffer = io.BytesIO()
    if hasattr(figure_or_image, "savefig"):
        figure_or_image.savefig(buffer, format=kind or "png")
    else:
        from PIL import Image

        known = Image.registered_extensions()
        if path.suffix.lower() not in known:
            raise ValueError(
                "The file name must end in a picture format such as .png or .jpg. "
                f"Received: {str(path)!r}"
            )
        figure_or_image.save(buffer, format=known[path.suffix.lower()], quality=95)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}.{path.name[-200:]}")
    try:
        temporary.write_bytes(buffer.getvalue())
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
    return path


def plot_history(history, *, monitor: str | None = None):
    """Training curves: a panel per metric, training and validation together.

    A dashed line marks the best epoch; the legends quote the values there.

    Args:
        history: Dict of lists by metric name (`keras.callbacks.History.history`), or
            the path of a CSV file of the same columns. A column "epoch" gives the
            epochs' numbers; "seconds" and "phase" are left out.
        monitor: Column that decides the best epoch; lowest if its name speaks of a
            loss or an error, else highest. Default: the first "val_" column that is
            not a loss, else "val_loss", else none is marked.

    Returns:
        `matplotlib.figure.Figure`.

    Raises:
        ValueError: No epochs, or `monitor` names no column.
    """
    from visionkit.visualize.canvas import Figure

    columns = _read_history(history)
    epochs = columns.pop("epoch", None)
    for name in ("seconds", "phase"):
        columns.pop(name, None)
    if not columns or not len(next(iter(columns.values()))):
        raise ValueError("The history must hold at least one metric and one epoch.")
    count = len(next(iter(columns.values())))
    epochs = np.arange(1, count + 1) if epochs is None else epochs
    best = _best_epoch(columns, monitor)
    metrics = list(dict.fromkeys(name.removeprefix("val_") for name in columns))
    metrics.sort(key=lambda name: name in RATES)  # stable: the rates come last
    across = min(3, len(metrics))
    down = math.ceil(len(metrics) / across)
    size = (max(4.6, 3.7 * across), 2.9 * down + 0.1)
    figure = Figure(size)
    for index, name in enumerate(metrics):
        axes = figure.add_subplot(down, across, index + 1)
        curves = {
            label: columns[key]
            for label, key in (("training", name), ("validation", f"val_{name}"))
            if key in columns
        }
        _history_panel(axes, name, epochs, curves, best)
    return figure


def plot_class_counts(counts, names: Sequence[str], label: str = "examples"):
    """Examples per class, the most frequent first.

    Up to 40 classes are bars with names and counts; more become a profile on a log
    scale beside the names at both ends.

    Args:
        counts: (K,) int, at least 0.
        names: K class names.
        label: What is counted.

    Returns:
        `matplotlib.figure.Figure`.

    Raises:
        ValueError: No classes, or counts and names of different number.
    """
    counts = np.asarray(counts)
    if counts.ndim != 1 or not len(counts) or len(counts) != len(names):
        raise ValueError(
            "`counts` must be (K,) with one name per class, K at least 1. "
            f"Received: counts {counts.shape}, {len(names)} names"
        )
    order = np.argsort(-counts, kind="stable")
    names = [plain(class_name(names, int(i)), 28) for i in order]
    plot = _count_profile if len(counts) > NAMED_CLASSES else _count_bars
    return plot(counts[order], names, label)


def _count_bars(counts, names, label):
    """A bar, a name and a number per class."""
    from visionkit.visualize.canvas import Figure

    size = (6.4, 0.9 + 0.22 * len(counts))
    figure = Figure(size)
    axes = figure.add_subplot()
    clean(axes)
    axes.grid(visible=False, axis="y")
    bars = axes.barh(np.arange(len(counts)), counts, color=BLUE, height=0.72)
    labels = [f"{count:,}" for count in counts]
    axes.bar_label(bars, labels, padding=3, fontsize=8, color=INK)
    axes.set_yticks(np.arange(len(counts)), names, fontsize=8)
    axes.set(ylim=(len(counts) - 0.4, -0.6), xlim=(0, max(1, counts.max() * 1.12)))
    axes.set_xlabel(label, fontsize=9)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.tick_params(axis="y", length=0)
    return figure


def _count_profile(counts, names, label):
    """The sorted counts as one shape, the names at both ends beside it."""
    from visionkit.visualize.canvas import Figure

    figure = Figure((8.0, 4.2))
    axes, listing = figure.subplots(1, 2, width_ratios=(3, 1.2))
    clean(axes)
    axes.fill_between(np.arange(1, len(counts) + 1), counts, step="mid", color=BLUE)
    axes.set_yscale("symlog", linthresh=1)
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.set(ylim=(0, None), xlim=(0.5, len(counts) + 0.5))
    axes.set_xlabel(f"{len(counts):,} classes, the most frequent first", fontsize=9)
    axes.set_ylabel(label, fontsize=9)
    rows = [f"{count:,}  {name}" for count, name in zip(counts, names, strict=True)]
    write_listing(listing, {"Most frequent": rows[:9], "Rarest": rows[-9:]})
    return figure


def _read_history(history) -> dict[str, np.ndarray]:
    """Columns of floats; what is not a finite number becomes NaN."""
    if not isinstance(history, dict):
        with open(history, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        history = {key: [row[key] for row in rows] for key in (rows[0] if rows else ())}
    columns = {key: np.array([_number(v) for v in h]) for key, h in history.items()}
    if len({len(column) for column in columns.values()}) > 1:
        lengths = {key: len(column) for key, column in columns.items()}
        raise ValueError(
            f"All columns of the history must be of one length. Received: {lengths}"
        )
    return columns


def _number(value) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return math.nan
    return number if math.isfinite(number) else math.nan


def _best_epoch(columns, monitor) -> int | None:
    """Row of the best epoch, None where nothing tells."""
    if monitor is None:
        validation = [name for name in columns if name.startswith("val_")]
        metrics = [name for name in validation if not name.endswith("loss")]
        monitor = next(iter(metrics or validation), None)
        if monitor is None:
            return None
    if monitor not in columns:
        raise ValueError(
            f"`monitor` must be one of {', '.join(columns)}. Received: {monitor!r}"
        )
    values = columns[monitor]
    if np.isnan(values).all():
        return None
    lower = monitor.endswith(LOWER_IS_BETTER)
    return int(np.nanargmin(values) if lower else np.nanargmax(values))


def _history_panel(axes, name, epochs, curves, best):
    """One metric over the epochs."""
    from matplotlib.ticker import FixedLocator, MaxNLocator

    clean(axes)
    marker = "o" if len(epochs) <= 25 else None
    colors = {"training": BLUE, "validation": VERMILION}
    for label, values in curves.items():
        text = "value" if name in RATES else label
        if best is not None:
            text += f" {values[best]:.4g}"
        style = {"color": colors[label], "marker": marker, "markersize": 3}
        axes.plot(epochs, values, label=text, linewidth=1.5, **style)
    if best is not None:
        style = {"color": "#757575", "linewidth": 1, "linestyle": (0, (4, 3))}
        text = f"best epoch {epochs[best]:.0f}"
        axes.axvline(epochs[best], zorder=0, label=text, **style)
    known = np.concatenate([v[np.isfinite(v)] for v in curves.values()])
    if name in RATES and known.size and 0 < 20 * known.min() < known.max():
        axes.set_yscale("log")
    if not known.size:
        axes.set_yticks([])
        middle = {"ha": "center", "va": "center", "transform": axes.transAxes}
        axes.text(0.5, 0.5, "no finite values", color="#757575", **middle)
    axes.set_title(plain(name.replace("_", " "), 32), fontsize=10, color=INK)
    axes.set_xlabel("epoch", fontsize=9)
    axes.set_xlim(epochs.min() - 0.5, epochs.max() + 0.5)
    few = len(epochs) <= 6
    axes.xaxis.set_major_locator(
        FixedLocator(epochs) if few else MaxNLocator(6, integer=True)
    )
    axes.legend(fontsize=8, frameon=False)


def clean(axes):
    """Two spines, a faint grid behind the data."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)
    axes.grid(color=FAINT, linewidth=0.6)
    axes.tick_params(labelsize=8)


def write_listing(axes, sections: dict[str, list[str]]):
    """Headings with lines of text under each, in place of a plot."""
    axes.set_axis_off()
    lines, y = [], 0  # (points below the top, text, style)
    for heading, rows in sections.items():
        lines.append((y, heading, {"fontsize": 9, "fontweight": "bold"}))
        y += 4
        for row in rows:
            y += LISTING_PITCH
            lines.append((y, row, {"fontsize": 8}))
        y += 2 * LISTING_PITCH
    place = {"xycoords": "axes fraction", "textcoords": "offset points", "va": "top"}
    for y, text, style in lines:
        line = axes.annotate(text, (0, 1), (0, -y), color=INK, **place, **style)
        line.set_in_layout(False)  # a wide line must not squeeze the plot beside it
