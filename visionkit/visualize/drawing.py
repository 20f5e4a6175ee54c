"""Answers and truth drawn on one image: boxes, masks and classes."""

from __future__ import annotations

import numpy as np

from visionkit.types import VOID_CLASS, Results
from visionkit.visualize.colors import label_color, text_color
from visionkit.visualize.text import drawable_name, fit, font

FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP")
MASK_OPACITY = 0.45
CLASS_OPACITY = 0.6  # the class has to show, whatever the thing's own colour is
TAG_SHARE = 0.2  # of the picture that tags may cover
MASKED_TAG_SHARE = 0.05  # the same where there are masks to be seen
PIXEL_ART = 64  # images up to this side are enlarged pixel by pixel


def to_image(image):
    """`image` as an RGB `PIL.Image`.

    Args:
        image: `PIL.Image` of any mode, or (H, W), (H, W, 1), (H, W, 3) or (H, W, 4)
            array with values 0..255, integer or float (rounded and clipped). Alpha is
            dropped, as the decoders do.

    Raises:
        ValueError: Another shape, or no pixels.
    """
    from PIL import Image

    if isinstance(image, Image.Image):
        if image.mode.startswith(("I", "F")):  # 16 bits a channel
            high = np.asarray(image).astype(np.float32) / 257
            image = Image.fromarray(high.round().clip(0, 255).astype(np.uint8))
        elif image.mode == "P" and "transparency" in image.info:
            image = image.convert("RGBA")
        return image.convert("RGB")
    array = np.asarray(image)
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or not array.size:
        raise ValueError(
            "An image must be (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) with at least "
            f"one pixel. Received: shape {np.shape(image)}"
        )
    if array.dtype != np.uint8:
        array = np.nan_to_num(array.astype(np.float32)).round().clip(0, 255)
    array = np.broadcast_to(array[..., :3], (*array.shape[:2], 3))
    return Image.fromarray(np.ascontiguousarray(array, np.uint8))


def open_image(path, image_size=None):
    """The upright RGB image of a file: EXIF orientation applied.

    Args:
        path: A JPEG, PNG, GIF, BMP or WebP file.
        image_size: (height, width) that the answer speaks of; an answer given for the
            frame as stored gets the frame as stored.

    Raises:
        ValueError: `path` is None.
        OSError: The file is missing or not one of these formats.
    """
    from PIL import Image, ImageOps

    if path is None:
        raise ValueError(
            "These results name no file. Pass the picture: draw_results(results, image)"
        )
    with Image.open(path, formats=FORMATS) as stored:
        upright = ImageOps.exif_transpose(stored)
        size = None if image_size is None else tuple(image_size)[::-1]
        as_stored = upright.size != size and stored.size == size
        return to_image(stored if as_stored else upright)


def draw_annotations(image, results: Results, scale: float = 1.0):
    """`image` resized by `scale` with everything of `results` that has a place in it.

    Boxes have the colour of their class, boxes with masks one of their own, so that
    neighbours stay apart. Void pixels and a class called "background" stay bare.

    Args:
        image: RGB `PIL.Image`.
        results: In pixels of `image`.
        scale: Factor of the picture's sides.

    Returns:
        RGB `PIL.Image`.
    """
    picture = resize(image, scale)
    rows, columns = (
        np.minimum(np.arange(new) / scale, old - 1).astype(np.int64)
        for new, old in zip(picture.size[::-1], image.size[::-1], strict=True)
    )
    line = max(2, round(max(picture.size) / 320))
    if results.segmentation is not None:
        classes = np.asarray(results.segmentation)[np.ix_(rows, columns)]
        picture = _paint_classes(picture, classes, segment_names(results), line)
    count = 0 if results.labels is None else len(results.labels)
    colors = [label_color(label) for label in results.labels] if count else []
    if results.masks is not None:
        colors = [label_color(index) for index in range(len(results.masks))]
        pixels = np.array(picture)
        for index in reversed(range(len(colors))):  # the surest on top
            crop = results.masks.crop(index)
            _paint_crop(pixels, crop, (rows, columns), colors[index], line)
        picture = _from_array(pixels)
    if results.boxes is not None and count:
        _draw_boxes(picture, results, np.asarray(results.boxes) * scale, colors, line)
    return picture


def segment_names(results: Results) -> dict[int, str]:
    """Class id -> drawable name of the classes in `results.segmentation`, no void."""
    present = np.flatnonzero(np.bincount(np.ravel(results.segmentation)))
    names = {label: f"class {label}" for label in present}
    if results.labels is not None:
        given = zip(results.labels, label_names(results), strict=True)
        names |= {label: name for label, name in given if label in names}
    return {int(label): name for label, name in names.items() if label != VOID_CLASS}


def label_names(results: Results) -> list[str]:
    """A drawable name beside each of `results.labels`."""
    if results.label_names is None:
        return [f"class {label}" for label in results.labels]
    given = zip(results.label_names, results.labels, strict=True)
    return [drawable_name(name, label) for name, label in given]


def font_size(picture_size) -> int:
    """Pixels of text that reads well on a picture of (width, height)."""
    width, height = picture_size
    return max(12, min(round(max(width, height) / 45), width // 18))


def resize(image, scale):
    """A copy of a `PIL.Image` with its sides times `scale`; small ones stay pixels."""
    from PIL import Image

    if scale == 1:
        return image.copy()
    size = tuple(max(1, round(side * scale)) for side in image.size)
    art = scale > 1 and max(image.size) <= PIXEL_ART
    method = Image.Resampling.NEAREST if art else Image.Resampling.LANCZOS
    return image.resize(size, method)


def _from_array(pixels):
    from PIL import Image

    return Image.fromarray(pixels)


def _paint_classes(picture, classes, names, line):
    """The class colours over the picture, (H, W) uint8 `classes`.

    Translucent inside, `line` pixels of solid outline: a class shows on a thing of its
    own colour too.
    """
    from PIL import Image

    colors = np.zeros((256, 3), np.uint8)
    painted = np.zeros(256, bool)
    for label, name in names.items():
        colors[label] = label_color(label)
        painted[label] = name.lower() != "background"
    solid = _from_array(colors[classes])
    mixed = Image.blend(picture, solid, CLASS_OPACITY)
    mixed = Image.composite(mixed, picture, _from_array(painted[classes]))
    edge = _borders(classes, line) & painted[classes]
    return Image.composite(solid, mixed, _from_array(edge))


def _borders(classes, width):
    """(H, W) bool: the pixels within `width` of one of another class, 4-connected."""
    edge = np.zeros(classes.shape, bool)
    down, across = np.diff(classes, axis=0) != 0, np.diff(classes, axis=1) != 0
    edge[1:] |= down
    edge[:-1] |= down
    edge[:, 1:] |= across
    edge[:, :-1] |= across
    for _ in range(width - 1):
        near = edge.copy()
        near[1:] |= edge[:-1]
        near[:-1] |= edge[1:]
        near[:, 1:] |= edge[:, :-1]
        near[:, :-1] |= edge[:, 1:]
        edge = near
    return edge


def _paint_crop(pixels, crop, places, color, line):
    """One instance: translucent inside, `line` / 2 pixels of solid outline.

    Args:
        pixels: (H, W, 3) of the picture, written to.
        crop: A part of the mask in the image's pixels, and where it begins.
        places: For each row and each column of the picture that of the image.
        color: (3,).
        line: Width of other lines.
    """
    mask, *starts = crop
    (top, bottom), (left, right) = (
        np.searchsorted(at, (start, start + length))
        for at, start, length in zip(places, starts, mask.shape, strict=True)
    )
    rows, columns = places[0][top:bottom], places[1][left:right]
    mask = mask[np.ix_(rows - starts[0], columns - starts[1])]
    if not mask.any():  # lost in a reduced picture
        return
    pixels = pixels[top:bottom, left:right]
    inside = np.pad(mask, 1)
    for _ in range(max(1, line // 2)):
        core = inside[1:-1, 1:-1].copy()
        core &= inside[:-2, 1:-1] & inside[2:, 1:-1] & inside[1:-1, :-2]
        inside[1:-1, 1:-1] = core & inside[1:-1, 2:]
    mixed = pixels[mask] * (1 - MASK_OPACITY) + np.array(color) * MASK_OPACITY
    pixels[mask] = mixed.round().astype(np.uint8)
    pixels[mask & ~inside[1:-1, 1:-1]] = color


def _draw_boxes(picture, results, boxes, colors, line):
    """Outlines, then the tags, the highest score first, until they cover too much."""
    from PIL import ImageDraw

    draw = ImageDraw.Draw(picture)
    limit = np.array([*picture.size, *picture.size], np.float64)
    finite = np.isfinite(boxes).all(axis=1)
    # Continuous edges: x2 is where the last pixel ends.
    edges = np.clip(np.nan_to_num(boxes).round(), 0, limit).astype(np.int64)
    edges[:, 2:] = np.maximum(edges[:, 2:] - 1, edges[:, :2])
    edges = np.minimum(edges, limit.astype(np.int64) - 1)
    scores = np.ones(len(boxes)) if results.scores is None else results.scores
    order = [i for i in np.argsort(-scores, kind="stable") if finite[i]]
    for i in reversed(order):
        draw.rectangle(edges[i].tolist(), outline=colors[i], width=line)
    names, size = label_names(results), font_size(picture.size)
    taken = np.zeros((0, 4))
    share = TAG_SHARE if results.masks is None else MASKED_TAG_SHARE
    for i in order:
        covered = np.prod(taken[:, 2:] - taken[:, :2], axis=1).sum()
        if covered > share * np.prod(picture.size):
            break
        text = names[i]
        if results.scores is not None:
            text += f" {results.scores[i]:.2f}"
        taken = _draw_tag(draw, text, edges[i], colors[i], size, taken)


def _draw_tag(draw, text, box, color, size, taken):
    """Write `text` beside `box`, inside the picture and clear of the tags in `taken`.

    Tried in turn: above the box, inside its top, below it, inside its bottom. Where a
    crowd leaves no room the tag is left out; the box's colour still tells the class.

    Returns:
        (N, 4) `taken` with the new tag.
    """
    face = font(size)
    padding = max(2, size // 5)
    width, height = draw.im.size
    text = fit(text, face, width - 2 * padding)
    wide = round(face.getlength(text)) + 2 * padding
    tall = sum(face.getmetrics()) + padding // 2
    left = max(0, min(box[0], width - wide))
    tops = (box[1] - tall + 1, box[1], box[3], box[3] - tall + 1)
    places = [max(0, min(top, height - tall)) for top in tops]
    # `dict.fromkeys`: a place that clipping made equal to another is tried once.
    for top in dict.fromkeys(places):
        tag = np.array([left, top, left + wide - 1, top + tall - 1])
        if not ((taken[:, :2] <= tag[2:]) & (taken[:, 2:] >= tag[:2])).all(1).any():
            draw.rectangle(tag.tolist(), fill=color)
            at = (left + padding, top + padding // 4)
            draw.text(at, text, fill=text_color(color), font=face)
            return np.vstack([taken, tag])
    return taken
