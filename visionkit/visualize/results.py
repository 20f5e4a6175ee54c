"""One answer as one picture."""

from __future__ import annotations

import textwrap

import numpy as np

from visionkit.types import Results
from visionkit.visualize.colors import OKABE_ITO, label_color
from visionkit.visualize.drawing import (
    draw_annotations,
    font_size,
    label_names,
    open_image,
    segment_names,
    to_image,
)
from visionkit.visualize.text import fit, font, printable

READABLE_SIDE = 320  # pixels: smaller pictures are enlarged to carry text
TOP_K = 5
LEGEND_CLASSES = 24
PAPER, INK, FAINT = (255, 255, 255), (33, 33, 33), (228, 228, 228)
CARD = (480, 270)


def draw_results(results: Results, image=None, classes: dict[int, str] | None = None):
    """The picture of one answer, ready for a README or a paper.

    Classification: the best five classes with score bars below the picture. Boxes:
    outline and tag in the colour of the class. Instances: translucent masks, each in
    a colour of its own. Segmentation: translucent classes and a legend below. An
    error: a grey card with its text. Pictures smaller than 320 pixels are enlarged by
    a whole factor so that the text is readable; others keep their size and the text
    grows with them.

    Args:
        results: One answer, in pixels of the original image.
        image: `PIL.Image` or (H, W[, C]) array 0..255; read from `results.path` when
            omitted.
        classes: Segmentation: names by class id that the legend lists, whatever there
            is in this image; frames of a video so have one size. Default the classes
            present, with their shares.

    Returns:
        RGB `PIL.Image`.

    Raises:
        ValueError: No image and no path, or an image of another size than
            `results.image_size`.
        OSError: The file of `results.path` cannot be read.
    """
    if not results.ok:
        return _error_card(results)
    if image is None:
        image = open_image(results.path, results.image_size)
    else:
        image = to_image(image)
    if results.image_size is not None and image.size[::-1] != tuple(results.image_size):
        raise ValueError(
            "The answer and the picture must be of one size. Received: results for "
            f"(height, width) {tuple(results.image_size)}, a picture of "
            f"{image.size[::-1]}. Pass the original image, not the resized one."
        )
    scale = -(-READABLE_SIDE // max(image.size)) if max(image.size) else 1
    picture = draw_annotations(image, results, scale)
    if results.segmentation is not None:
        if classes is None:
            classes = _classes_with_shares(results)
        return stack(picture, _legend(classes, *caption_size(picture)))
    if results.boxes is None and results.masks is None:
        names, scores = _best_classes(results)
        if names:
            width, size = caption_size(picture)
            return stack(picture, _score_bars(names, scores, width, size))
    return picture


def caption_size(picture):
    """Width of the caption and its font size: wide enough under a narrow picture."""
    width = max(picture.width, READABLE_SIDE)
    return width, font_size((width, picture.height))


def _best_classes(results):
    """Names and scores of the best classes, best first."""
    if results.labels is None and results.probabilities is not None:
        order = np.argsort(-results.probabilities, kind="stable")[:TOP_K]
        return [f"class {label}" for label in order], results.probabilities[order]
    if results.labels is None or results.scores is None:
        return [], []
    return label_names(results)[:TOP_K], results.scores[:TOP_K]


def _score_bars(names, scores, width, size):
    """(name, bar, percent) per line; the best class stands out."""
    from PIL import Image, ImageDraw

    face, pitch, margin = font(size), round(size * 1.6), round(size * 0.8)
    caption = Image.new("RGB", (width, len(names) * pitch + margin), PAPER)
    draw = ImageDraw.Draw(caption)
    percent = round(face.getlength("100.0%"))
    longest = max(face.getlength(name) for name in names)
    bar_left = round(min(2 * margin + longest, width * 0.6))
    bar_right = width - percent - 2 * margin
    for row, (name, score) in enumerate(zip(names, scores, strict=True)):
        middle = margin // 2 + row * pitch + pitch // 2
        name = fit(name, face, bar_left - 2 * margin)
        ink = INK if row == 0 else (110, 110, 110)
        draw.text((margin, middle), name, fill=ink, font=face, anchor="lm")
        text = f"{100 * score:.1f}%"
        draw.text((width - margin, middle), text, fill=ink, font=face, anchor="rm")
        top, bottom = middle - round(size * 0.35), middle + round(size * 0.35)
        draw.rectangle([bar_left, top, bar_right, bottom], fill=FAINT)
        filled = round((bar_right - bar_left) * min(max(np.nan_to_num(score), 0), 1))
        if filled:
            color = OKABE_ITO[0 if row == 0 else 5]
            draw.rectangle([bar_left, top, bar_left + filled, bottom], fill=color)
    return caption


def _classes_with_shares(results) -> dict[int, str]:
    """Class id -> name and share of the image, the largest first."""
    names = segment_names(results)
    share = np.bincount(np.ravel(results.segmentation), minlength=256) / np.size(
        results.segmentation
    )
    return {
        label: names[label]
        if names[label].lower() == "background"
        else f"{names[label]} {_percent(share[label])}"
        for label in sorted(names, key=lambda label: -share[label])
    }


def _legend(classes, width, size):
    """Swatch and text of each class but the background, in flowing lines."""
    from PIL import Image, ImageDraw

    shown = {k: text for k, text in classes.items() if text.lower() != "background"}
    more = len(shown) - LEGEND_CLASSES
    entries = [
        (label_color(label), text)
        for label, text in list(shown.items())[:LEGEND_CLASSES]
    ]
    if more > 0:
        entries.append((PAPER, f"and {more} more"))
    face, pitch, margin = font(size), round(size * 1.7), round(size * 0.8)
    places, x, y = [], margin, margin // 2
    for color, text in entries:
        text = fit(text, face, width - 3 * margin - size)
        advance = size + margin // 2 + round(face.getlength(text)) + 2 * margin
        if x > margin and x + advance - margin > width:
            x, y = margin, y + pitch
        places.append((x, y, color, text))
        x += advance
    height = y + pitch + margin // 2 if entries else 0
    caption = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(caption)
    for x, y, color, text in places:
        middle = y + pitch // 2
        draw.rectangle(
            [x, middle - size // 2, x + size - 1, middle + size // 2], fill=color
        )
        at = (x + size + margin // 2, middle)
        draw.text(at, text, fill=INK, font=face, anchor="lm")
    return caption


def _percent(share):
    return "<1%" if share < 0.01 else f"{share:.0%}"


def stack(picture, caption):
    """The picture, centred, above its caption."""
    from PIL import Image

    width = max(picture.width, caption.width)
    out = Image.new("RGB", (width, picture.height + caption.height), PAPER)
    out.paste(picture, ((width - picture.width) // 2, 0))
    out.paste(caption, (0, picture.height))
    return out


def _error_card(results):
    """A grey card that says which file has no answer, and why."""
    from PIL import Image, ImageDraw

    card = Image.new("RGB", CARD, (236, 236, 236))
    draw = ImageDraw.Draw(card)
    draw.rectangle([0, 0, 7, CARD[1]], fill=OKABE_ITO[3])
    left, width = 28, CARD[0] - 56
    draw.text((left, 24), "No answer", fill=INK, font=font(22))
    y = 64
    if results.path is not None:
        name = printable(str(results.path).replace("\\", "/").rsplit("/", 1)[-1])
        draw.text((left, y), fit(name, font(15), width), fill=INK, font=font(15))
        y += 30
    lines = textwrap.wrap(printable(results.error), 52)
    shown = lines[: (CARD[1] - 24 - y) // 21]
    if len(lines) > len(shown):
        shown[-1] = shown[-1][:50] + " …"
    for line in shown:
        draw.text(
            (left, y), fit(line, font(15), width), fill=(90, 90, 90), font=font(15)
        )
        y += 21
    return card
