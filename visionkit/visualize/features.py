"""The inside of a network as pictures: feature maps and filters."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

PANEL = 1.1  # inches
GAP = 0.06
TITLE = 0.17
MAPS = 32


def plot_feature_maps(
    maps, channels: Sequence[int] | None = None, *, columns: int | None = None
):
    """Channels of one image's features, each from its least value to its greatest.

    Args:
        maps: (h, w, C).
        channels: Which to show, in this order; default the 32 that vary most over the
            image, the most varying first.
        columns: Panels in a row; default nearly square, at most 8.

    Returns:
        `matplotlib.figure.Figure`.

    Raises:
        ValueError: `maps` is not (h, w, C), or there is no such channel.
    """
    maps = np.asarray(maps, np.float32)
    if maps.ndim != 3 or not maps.size:
        raise ValueError(
            "`maps` must be those of one image, (h, w, C). "
            f"Received: shape {maps.shape}"
        )
    count = maps.shape[-1]
    if channels is None:
        channels = np.argsort(-maps.std(axis=(0, 1)), kind="stable")[:MAPS]
    wrong = [int(channel) for channel in channels if not 0 <= channel < count]
    if wrong or not len(channels):
        raise ValueError(
            f"`channels` must be at least one of 0..{count - 1}. "
            f"Received: {wrong or 'none'}"
        )
    pictures = [maps[..., channel] for channel in channels]
    titles = [str(int(channel)) for channel in channels]
    return _grid(pictures, titles, columns, cmap="viridis")


def plot_filters(kernels, *, columns: int | None = None):
    """The kernels of a first convolution as images; mid-grey is a weight of 0.

    Args:
        kernels: (kernel_height, kernel_width, C, filters), C = 1 or 3.
        columns: Panels in a row; default nearly square, at most 8.

    Returns:
        `matplotlib.figure.Figure`.

    Raises:
        ValueError: The kernels see other than 1 or 3 channels.
    """
    kernels = np.asarray(kernels, np.float32)
    if kernels.ndim != 4 or kernels.shape[2] not in (1, 3) or not kernels.size:
        raise ValueError(
            "`kernels` must be those of a layer that sees an image, (kernel_height, "
            f"kernel_width, 1 or 3, filters). Received: shape {kernels.shape}. Deeper "
            "layers show in `plot_feature_maps`."
        )
    largest = np.abs(kernels).max(axis=(0, 1, 2), keepdims=True)
    shown = 0.5 + 0.5 * kernels / np.where(largest > 0, largest, 1)
    pictures = [
        picture.squeeze(axis=-1) for picture in np.split(shown, shown.shape[-1], -1)
    ]
    if kernels.shape[2] == 1:
        pictures = [picture[..., 0] for picture in pictures]
    return _grid(pictures, None, columns, cmap="gray", vmin=0, vmax=1)


def _grid(pictures, titles, columns, **style):
    """Panels side by side, pixel by pixel."""
    from visionkit.visualize.canvas import Figure

    columns = columns or min(math.ceil(math.sqrt(len(pictures))), 8)
    rows = math.ceil(len(pictures) / columns)
    header = TITLE if titles else 0.0
    panel = PANEL * min(1, pictures[0].shape[0] / pictures[0].shape[1])
    width = columns * (PANEL + GAP) + GAP
    height = rows * (panel + header + GAP) + GAP
    figure = Figure((width, height), layout=None)
    for index, picture in enumerate(pictures):
        row, column = divmod(index, columns)
        left = (GAP + column * (PANEL + GAP)) / width
        bottom = 1 - (row + 1) * (panel + header + GAP) / height
        place = (left, bottom, PANEL / width, panel / height)
        axes = figure.add_axes(place)
        axes.imshow(picture, interpolation="nearest", **style)
        axes.set_axis_off()
        if titles:
            axes.set_title(titles[index], fontsize=7, color="#212121", pad=2)
    return figure
