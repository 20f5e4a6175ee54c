"""The confusion matrix, legible from two classes to a thousand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from visionkit.visualize.figures import INK, write_listing
from visionkit.visualize.text import class_name, plain

COUNTED_CLASSES = 20  # as many classes have their counts printed
NAMED_CLASSES = 60  # as many have their names beside the axes
BLOCKS = 250  # as many cells a side stay wide enough to be seen
LISTED_PAIRS = 24
LISTED_BACKGROUND = 6
NAME_CHARACTERS = 18
LISTING = 4.3  # inches


def plot_confusion_matrix(matrix, class_names: Sequence[str], *, shares: bool = False):
    """Rows are the truth, columns the prediction; colours are shares of the row.

    Up to 20 classes the counts stand in the cells, up to 60 the names stand at the
    axes; above 20 the pairs confused most often are listed beside the matrix. Above
    250 a cell is the largest share in a block of classes. A class without examples
    has a grey row. The colour scale is not linear, so that rare confusions show.

    A detector's matrix has the background as its last class: its row holds detections
    of nothing, its column missed objects.

    Args:
        matrix: (K, K) counts, at least 0; (K + 1, K + 1) with a background.
        class_names: K names in label order.
        shares: Whether percentages of the row stand in the cells in place of counts,
            which are unwieldy where they count pixels.

    Returns:
        `matplotlib.figure.Figure`.

    Raises:
        ValueError: `matrix` is not square or has neither K nor K + 1 rows.
    """
    from matplotlib.colors import PowerNorm

    from visionkit.visualize.canvas import Figure

    matrix = np.asarray(matrix)
    k = len(class_names)
    if not k or matrix.shape not in ((k, k), (k + 1, k + 1)):
        raise ValueError(
            "`matrix` must be (K, K), or (K + 1, K + 1) with a background, with one "
            f"name per class, K at least 1. Received: matrix {matrix.shape}, {k} names"
        )
    background = len(matrix) > k
    if background:
        class_names, k = [*class_names, "background"], k + 1
    support = matrix.sum(axis=1, keepdims=True)
    share = np.where(support > 0, matrix / np.maximum(support, 1), np.nan)
    names = [plain(class_name(class_names, i), NAME_CHARACTERS) for i in range(k)]

    listed = k > COUNTED_CLASSES
    side = min(max(2.4, 0.42 * k) + 0.08 * max(map(len, names)) + 0.4, 8.0)  # inches
    widths = (side + 0.9, LISTING) if listed else (side + 0.9,)
    figure = Figure((sum(widths), side))
    axes, *beside = figure.subplots(
        1, len(widths), width_ratios=widths, squeeze=False
    ).flat
    if listed:
        write_listing(beside[0], _listing(matrix, names, background))
    block = -(-k // BLOCKS)
    picture = axes.imshow(
        _largest(share, block),
        cmap=_colormap(),
        norm=PowerNorm(0.4, vmin=0, vmax=1),
        interpolation="nearest",
        extent=(-0.5, k - 0.5, k - 0.5, -0.5),
    )
    _label_axes(axes, names)
    if not listed:
        _write_cells(axes, _percentages(share) if shares else _counts(matrix), share)
    ticks = [0, 0.01, 0.05, 0.25, 0.5, 1]
    bar = figure.colorbar(
        picture, ax=axes, ticks=ticks, shrink=0.8, aspect=30, pad=0.02
    )
    bar.ax.set_yticklabels([f"{tick:.0%}" for tick in ticks], fontsize=8)
    label = "share of the true class"
    if block > 1:
        label += f", largest in {block} × {block} cells"
    bar.set_label(label, fontsize=8)
    bar.outline.set_visible(False)
    return figure


def _largest(share, block):
    """(K, K) -> the largest share of each `block` × `block`, NaN where all are."""
    if block == 1:
        return share
    margin = -len(share) % block
    padded = np.pad(share, (0, margin), constant_values=np.nan)
    n = len(padded) // block
    blocks = padded.reshape(n, block, n, block)
    return np.fmax.reduce(np.fmax.reduce(blocks, axis=3), axis=1)


def _label_axes(axes, names):
    """Class names along both axes where they can be read, else class numbers."""
    axes.set_xlabel("predicted", fontsize=10)
    axes.set_ylabel("true", fontsize=10)
    if len(names) > NAMED_CLASSES:
        axes.tick_params(labelsize=8)
        return
    size = 8 if len(names) <= 30 else 6
    turn = 0 if max(map(len, names)) <= 2 else 90
    axes.set_xticks(np.arange(len(names)), names, fontsize=size, rotation=turn)
    axes.set_yticks(np.arange(len(names)), names, fontsize=size)
    axes.tick_params(length=0)


def _colormap():
    import matplotlib

    colormap = matplotlib.colormaps["Blues"].copy()
    colormap.set_bad("#e0e0e0")
    return colormap


def _counts(matrix) -> dict:
    """(row, column) -> the count of each cell that is not zero."""
    return {(r, c): f"{matrix[r, c]:,}" for r, c in np.argwhere(matrix > 0)}


def _percentages(share) -> dict:
    """(row, column) -> the share in each cell that has one of note."""
    cells = np.argwhere(np.nan_to_num(share) >= 0.0005)
    return {(r, c): f"{100 * share[r, c]:.1f}" for r, c in cells}


def _write_cells(axes, texts, share):
    """A text in each cell, dark on light and light on dark."""
    longest = max(map(len, texts.values()), default=0)
    size = min(9, 44 / max(longest, 4.5))
    for (row, column), text in texts.items():
        color = "white" if share[row, column] > 0.3 else INK
        style = {"ha": "center", "va": "center", "fontsize": size, "color": color}
        axes.text(column, row, text, **style)


def _listing(matrix, names, background) -> dict[str, list[str]]:
    """The pairs confused most often; those with a background by themselves."""
    if not background:
        return {"Most confused": _worst_pairs(matrix, names, LISTED_PAIRS)}
    parts = {
        "Most confused": np.s_[:-1, :-1],
        "Most missed": np.s_[:-1, -1:],
        "Most found in nothing": np.s_[-1:, :-1],
    }
    return {
        heading: _worst_pairs(matrix, names, LISTED_BACKGROUND, part)
        for heading, part in parts.items()
    }


def _worst_pairs(matrix, names, limit, part=np.s_[:, :]):
    """Lines "count (share) true → predicted" of the largest cells off the diagonal."""
    wrong = np.zeros_like(matrix)
    wrong[part] = matrix[part]
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:limit]
    support = matrix.sum(axis=1)
    return [
        f"{wrong[i, j]:,} ({wrong[i, j] / support[i]:.0%})  {names[i]} → {names[j]}"
        for i, j in zip(*np.unravel_index(order, wrong.shape), strict=True)
        if wrong[i, j]
    ] or ["none"]
