"""Heat over an image: where a model looks."""

from __future__ import annotations

import numpy as np

from visionkit.visualize.drawing import resize, to_image
from visionkit.visualize.results import (
    INK,
    PAPER,
    READABLE_SIDE,
    caption_size,
    stack,
)
from visionkit.visualize.text import fit, font, printable

OPACITY = 0.7  # of the hottest pixel
COLORMAP = "inferno"  # perceptually uniform, also to colour-blind eyes


def draw_heat(image, heat, caption: str | None = None):
    """The image in grey with the heat in colour, the hotter the more opaque.

    Pictures smaller than 320 pixels are enlarged by a whole factor.

    Args:
        image: `PIL.Image` or (H, W[, C]) array 0..255.
        heat: (H, W) in [0, 1], of the image's size.
        caption: A line of text for below the picture.

    Returns:
        RGB `PIL.Image`.

    Raises:
        ValueError: Heat and image differ in size.
    """
    import matplotlib
    from PIL import Image

    image = to_image(image)
    heat = np.asarray(heat, np.float32)
    if heat.shape != image.size[::-1]:
        raise ValueError(
            "Heat and image must be of one size. Received: heat "
            f"{heat.shape}, an image of {image.size[::-1]}"
        )
    image = resize(image, -(-READABLE_SIDE // max(image.size)))
    heat = Image.fromarray(heat).resize(image.size, Image.Resampling.BILINEAR)
    heat = np.asarray(heat).clip(0, 1)
    colors = matplotlib.colormaps[COLORMAP](heat)[..., :3] * 255
    opacity = OPACITY * heat[..., None]
    grey = np.asarray(image.convert("L"), np.float32)[..., None]
    mixed = grey * (1 - opacity) + colors * opacity
    picture = Image.fromarray(mixed.round().astype(np.uint8))
    return stack(picture, _line(caption, picture)) if caption else picture


def _line(text, picture):
    from PIL import Image, ImageDraw

    width, size = caption_size(picture)
    face, margin = font(size), round(size * 0.8)
    line = Image.new("RGB", (width, 2 * size), PAPER)
    text = fit(printable(text), face, width - 2 * margin)
    ImageDraw.Draw(line).text((margin, size), text, fill=INK, font=face, anchor="lm")
    return line
