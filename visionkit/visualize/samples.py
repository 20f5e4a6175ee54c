"""Grids of samples: what the model is shown, and what it answers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from visionkit.paste import paste_masks
from visionkit.types import PADDING_LABEL, VOID_CLASS, Results
from visionkit.visualize.colors import RIGHT, WRONG, label_color
from visionkit.visualize.drawing import (
    draw_annotations,
    segment_names,
    to_image,
)
from visionkit.visualize.text import class_name, plain, shorten

PANEL = 2.2  # inches
PANEL_PIXELS = 360
TITLE_CHARACTERS = 24  # what fits above a panel
LEGEND_CLASSES = 24
LEGEND_ENTRY = 1.45  # inches


def plot_samples(
    images,
    titles: Sequence[str] | None = None,
    *,
    targets=None,
    class_names: Sequence[str] | None = None,
    columns: int | None = None,
):
    """A grid of samples with their labels, as after augmentation.

    Args:
        images: B images, each as `to_image` takes them, of one size or not.
        titles: B texts above the images; default the class for classification.
        targets: What the pipeline yields beside the images: (B,) int labels, (B, H, W)
            class ids or (B, H, W, K) shares of classes, or a dict of "boxes" (B, M, 4)
            xyxy pixels, "labels" (B, M) with -1 as padding and perhaps "masks" (B, M,
            h, w) that fill their boxes. Or B `Results`.
        class_names: Names in label order.
        columns: Images in a row; default nearly square, at most 8.

    Returns:
        `matplotlib.figure.Figure`.

    Raises:
        ValueError: No images, or titles or targets of another number.
    """
    results = _as_results(targets, images, class_names)
    if titles is None and _is_labels(targets):
        titles = [result.label_names[0] for result in results]
    return _grid(images, results, titles, None, columns)


def plot_predictions(
    images,
    truth,
    predicted,
    scores=None,
    class_names: Sequence[str] | None = None,
    *,
    columns: int | None = None,
    titles: Sequence[str] | None = None,
):
    """Predictions beside the truth.

    Classification: a grid whose titles are blue when right; when wrong, vermilion
    with the true class in the second line. Other tasks: pairs of panels, the truth on
    the left, the prediction on the right.

    Args:
        images: B images.
        truth: (B,) int labels, or a target as in `plot_samples`.
        predicted: The same for the prediction.
        scores: (B,) in [0, 1], classification only.
        class_names: Names in label order.
        columns: Panels in a row; an even number for pairs.
        titles: B texts above the predictions of pairs; default "prediction".

    Returns:
        `matplotlib.figure.Figure`.

    Raises:
        ValueError: No images, or answers of another number.
    """
    if not _is_labels(truth):
        left = _as_results(truth, images, class_names)
        right = _as_results(predicted, images, class_names)
        pairs = [result for pair in zip(left, right, strict=True) for result in pair]
        doubled = [image for image in images for _ in range(2)]
        titles = ["prediction"] * len(left) if titles is None else titles
        titles = [text for title in titles for text in ("truth", title)]
        return _grid(doubled, pairs, titles, None, columns or min(4, len(doubled)))
    truth, predicted = np.asarray(truth), np.asarray(predicted)
    if len(truth) != len(images) or predicted.shape != truth.shape:
        raise ValueError(
            "There must be one true and one predicted label per image. Received: "
            f"{len(images)} images, {truth.shape} true, {predicted.shape} predicted"
        )
    titles, colors = [], []
    for index, (true, answer) in enumerate(zip(truth, predicted, strict=True)):
        title = class_name(class_names, int(answer))
        if scores is not None:
            title = f"{shorten(title, TITLE_CHARACTERS - 5)} {float(scores[index]):.0%}"
        if true != answer:
            name = shorten(class_name(class_names, int(true)), TITLE_CHARACTERS - 6)
            title += f"\ntrue: {name}"
        titles.append(title)
        colors.append(RIGHT if true == answer else WRONG)
    return _grid(images, [Results()] * len(images), titles, colors, columns)


def _is_labels(target) -> bool:
    if target is None or isinstance(target, dict) or not len(target):
        return False
    return not isinstance(target[0], Results) and np.ndim(target[0]) == 0


def _as_results(targets, images, class_names) -> list[Results]:
    """One `Results` per image, whatever the task's target looks like."""
    count = len(images)
    if targets is None:
        return [Results()] * count
    if isinstance(targets, dict):
        columns = {key: np.asarray(value) for key, value in targets.items()}
        found = [
            _boxes_result({k: v[i] for k, v in columns.items()}, images[i], class_names)
            for i in range(len(columns["labels"]))
        ]
    elif all(isinstance(target, Results) for target in targets):
        found = list(targets)
    else:
        found = [_dense_result(np.asarray(t), class_names) for t in targets]
    if len(found) != count:
        raise ValueError(
            "There must be one target per image. "
            f"Received: {count} images, {len(found)} targets"
        )
    return found


def _boxes_result(target, image, class_names) -> Results:
    valid = target["labels"] != PADDING_LABEL
    boxes, labels = target["boxes"][valid], target["labels"][valid]
    names = [class_name(class_names, int(label)) for label in labels]
    masks = None
    if "masks" in target:
        size = to_image(image).size[::-1]
        masks = paste_masks(target["masks"][valid], boxes, size)
    return Results(boxes=boxes, labels=labels, label_names=names, masks=masks)


def _dense_result(target, class_names) -> Results:
    if target.ndim == 3:  # shares of classes; where there are none, void
        void = target.sum(axis=-1) == 0
        target = np.where(void, VOID_CLASS, target.argmax(axis=-1))
    labels = np.unique(target)
    names = [class_name(class_names, int(label)) for label in labels]
    segmentation = target if target.ndim == 2 else None
    return Results(segmentation=segmentation, labels=labels, label_names=names)


def _grid(images, results, titles, colors, columns):
    """The figure of B panels; boxes, masks and classes are drawn at panel size."""
    from visionkit.visualize.canvas import Figure

    count = len(images)
    if not count:
        raise ValueError("There must be at least one image. Received: 0 images")
    if titles is not None and len(titles) != count:
        raise ValueError(
            f"There must be one title per image. Received: {count} images, "
            f"{len(titles)} titles"
        )
    pictures, legend = [], {}
    for image, result in zip(images, results, strict=True):
        image = to_image(image)
        pictures.append(draw_annotations(image, result, PANEL_PIXELS / max(image.size)))
        if result.segmentation is not None:
            found = segment_names(result).items()
            legend |= {k: v for k, v in found if v.lower() != "background"}
    legend = dict(sorted(legend.items())[:LEGEND_CLASSES])
    if columns is None:
        columns = count if count <= 4 else min(math.ceil(math.sqrt(count)), 8)
    rows = math.ceil(count / columns)
    lines = 0 if titles is None else 1 + max(str(title).count("\n") for title in titles)
    header = 0.19 * lines + 0.06  # inches
    panel = PANEL * max(p.height for p in pictures) / max(p.width for p in pictures)
    panel = min(panel, PANEL)
    width, height = columns * (PANEL + 0.08) + 0.08, rows * (panel + header) + 0.08
    legend_columns = max(1, int(width / LEGEND_ENTRY))
    footer = 0.18 * math.ceil(len(legend) / legend_columns) + 0.1 * bool(legend)
    figure = Figure((width, height + footer), layout=None)
    for index, picture in enumerate(pictures):
        row, column = divmod(index, columns)
        left = (0.08 + column * (PANEL + 0.08)) / width
        bottom = (footer + height - (row + 1) * (panel + header)) / (height + footer)
        axes = figure.add_axes((left, bottom, PANEL / width, panel / (height + footer)))
        axes.imshow(picture)
        axes.set_axis_off()
        if titles is not None:
            _title(axes, titles[index], colors and colors[index])
    if legend:
        _legend(figure, legend, legend_columns)
    return figure


def _title(axes, title, color):
    text = "\n".join(plain(line, TITLE_CHARACTERS) for line in str(title).split("\n"))
    ink = [channel / 255 for channel in color] if color else "#212121"
    axes.set_title(text, fontsize=9, color=ink, pad=3)


def _legend(figure, names, columns):
    from matplotlib.patches import Patch

    patches = [
        Patch(color=np.array(label_color(label)) / 255, label=plain(names[label], 16))
        for label in names
    ]
    figure.legend(
        handles=patches,
        loc="lower center",
        ncols=min(columns, len(patches)),
        fontsize=8,
        frameon=False,
        borderaxespad=0.2,
    )
