"""Scenes of handwritten digits over photographs, for boxes, masks and instances."""

from __future__ import annotations

import colorsys
import dataclasses
import functools
import io

import numpy as np
from PIL import Image
from scipy import ndimage

from visionkit.data.rle import encode_rle

SCENE_SIZE = (256, 320)
"""(height, width) in pixels."""

MAX_DIGITS = 6
MIN_HEIGHT, MAX_HEIGHT = 32, 128
"""Height of a digit's strokes after the rotation, in pixels."""

MAX_ANGLE = 20
"""Largest rotation, in degrees, either way."""

MAX_OVERLAP = 0.3
"""Largest intersection of two digits' whole boxes over the area of the smaller, and
the largest share of a digit's strokes that later digits cover."""

MIN_CONTRAST = 0.3
"""Least difference of luminance (0..1) between strokes and what is below them."""

# Of a full pixel. The first keeps small holes open; the others are for digits whose
# strokes it would break.
_THRESHOLDS = (0.48, 0.4, 0.3)
_FIELD_SIDE = 80  # pixels at which a digit is rotated and measured
_TRIES = 40


@dataclasses.dataclass(frozen=True)
class Scene:
    """A rendered scene.

    Attributes:
        encoded: The image, JPEG of `SCENE_SIZE`.
        owner: (H, W) uint8, 0 = background, i + 1 = visible stroke of digit i.
        labels: (N,) int32, the digits in the order in which they are drawn.
        boxes: (N, 4) float32 xyxy, tight around each digit's visible strokes.
        area: (N,) float32, the number of those pixels.
    """

    encoded: bytes
    owner: np.ndarray
    labels: np.ndarray
    boxes: np.ndarray
    area: np.ndarray

    def semantic_png(self) -> bytes:
        """Grey PNG of class ids: 0 = background, digit + 1 on its strokes."""
        classes = np.concatenate([[0], self.labels + 1]).astype(np.uint8)
        return _encode(classes[self.owner], "PNG")

    def instance_rles(self) -> list[bytes]:
        """Compressed COCO RLE of each digit's visible strokes."""
        return [encode_rle(self.owner == i + 1) for i in range(len(self.labels))]


def render_scene(
    digits: np.ndarray, labels: np.ndarray, rng: np.random.Generator
) -> Scene:
    """A random scene.

    Args:
        digits: (N, 8, 8) uint8 0..255, those to choose from.
        labels: (N,) int32.
        rng: Decides everything.
    """
    canvas = _background(rng)
    owner = np.zeros(SCENE_SIZE, np.uint8)
    placed: list[tuple[int, int, int, int]] = []
    drawn: list[int] = []
    strokes: list[int] = []  # pixels of each digit, covered or not
    for choice in rng.choice(len(digits), rng.integers(1, MAX_DIGITS, endpoint=True)):
        height = MIN_HEIGHT * (MAX_HEIGHT / MIN_HEIGHT) ** rng.random()
        opacity = _glyph(digits[choice], rng.uniform(-MAX_ANGLE, MAX_ANGLE), height)
        box = _place(opacity > 0.5, placed, owner, strokes, rng)
        if box is None:  # no room: a scene with fewer digits
            continue
        x1, y1, x2, y2 = box
        region = canvas[y1:y2, x1:x2]
        color = _contrasting_color(region[opacity > 0.5].mean(axis=0), rng)
        region += opacity[..., None] * (color - region)
        placed.append(box)
        drawn.append(choice)
        strokes.append(np.count_nonzero(opacity > 0.5))
        owner[y1:y2, x1:x2][opacity > 0.5] = len(placed)
    image = np.rint(canvas * 255).astype(np.uint8)
    boxes = [_tight_box(owner == i + 1) for i in range(len(placed))]
    area = np.bincount(owner.reshape(-1), minlength=len(placed) + 1)[1:]
    return Scene(
        encoded=_encode(image, "JPEG", quality=95, subsampling=0),
        owner=owner,
        labels=labels[drawn].astype(np.int32),
        boxes=np.array(boxes, np.float32),
        area=area.astype(np.float32),
    )


def _glyph(digit: np.ndarray, angle: float, height: float) -> np.ndarray:
    """(h, w) float32 opacity 0..1 of a digit's strokes; h is `height` within 1 pixel.

    The 8x8 grey levels are a coverage; enlarged smoothly they are a field whose level
    line is the outline of the strokes.
    """
    field = Image.fromarray(np.pad(digit, 2).astype(np.float32) / 255)
    field = field.resize((_FIELD_SIDE, _FIELD_SIDE), Image.Resampling.BICUBIC)
    field = field.rotate(angle, Image.Resampling.BICUBIC)
    for threshold in _THRESHOLDS:
        strokes = np.asarray(field) > threshold
        if ndimage.label(strokes)[1] == 1:
            break
    x1, y1, x2, y2 = _tight_box(strokes)
    scale = height / (y2 - y1)
    size = (max(round((x2 - x1) * scale), 1), round(height))
    field = field.resize(size, Image.Resampling.BICUBIC, box=(x1, y1, x2, y2))
    # One pixel of the result wide: an outline without steps.
    softness = 6 / _FIELD_SIDE / scale
    return np.clip((np.asarray(field) - threshold) / softness + 0.5, 0, 1)


def _place(mask, placed, owner, strokes, rng) -> tuple[int, int, int, int] | None:
    """A free xyxy place for a digit's mask, or None."""
    (height, width), (rows, columns) = mask.shape, SCENE_SIZE
    for _ in range(_TRIES):
        x1 = int(rng.integers(0, columns - width, endpoint=True))
        y1 = int(rng.integers(0, rows - height, endpoint=True))
        box = (x1, y1, x1 + width, y1 + height)
        if any(_overlap(box, other) > MAX_OVERLAP for other in placed):
            continue
        after = owner.copy()
        after[y1 : y1 + height, x1 : x1 + width][mask] = 0
        visible = np.bincount(after.reshape(-1), minlength=len(strokes) + 1)[1:]
        if (visible >= (1 - MAX_OVERLAP) * np.array(strokes)).all():
            return box
    return None


def _overlap(a, b) -> float:
    """Intersection of two xyxy boxes over the area of the smaller."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    smaller = min((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return max(width, 0) * max(height, 0) / smaller


def _contrasting_color(below: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A strong RGB color (0..1) that stands out from the mean color `below`."""
    ground = _luminance(below)
    best = None
    for _ in range(_TRIES):
        hsv = (rng.random(), rng.uniform(0.6, 1.0), rng.uniform(0.3, 1.0))
        color = np.array(colorsys.hsv_to_rgb(*hsv), np.float32)
        contrast = abs(_luminance(color) - ground)
        if best is None or contrast > best[0]:
            best = (contrast, color)
        if contrast >= MIN_CONTRAST:
            break
    return best[1]


def _luminance(rgb: np.ndarray) -> float:
    """Rec. 601 luma of an RGB color, 0..1."""
    return float(rgb @ np.array([0.299, 0.587, 0.114], np.float32))


def _background(rng: np.random.Generator) -> np.ndarray:
    """(H, W, 3) float32 0..1: a crop of a photograph with its contrast reduced."""
    photo = _photographs()[rng.integers(2)]
    height, width = SCENE_SIZE
    scale = rng.uniform(0.6, photo.height / height)
    crop_height, crop_width = round(height * scale), round(width * scale)
    left = int(rng.integers(0, photo.width - crop_width, endpoint=True))
    top = int(rng.integers(0, photo.height - crop_height, endpoint=True))
    crop = photo.resize(
        (width, height),
        Image.Resampling.BILINEAR,
        box=(left, top, left + crop_width, top + crop_height),
    )
    pixels = np.asarray(crop, np.float32) / 255
    pixels = pixels[:, ::-1] if rng.random() < 0.5 else pixels
    mean = pixels.mean(axis=(0, 1))
    return mean + rng.uniform(0.4, 0.7) * (pixels - mean)


@functools.cache
def _photographs() -> list[Image.Image]:
    from sklearn.datasets import load_sample_images

    return [Image.fromarray(image) for image in load_sample_images().images]


def _tight_box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """xyxy of the true pixels, edges continuous: one pixel is 1 wide."""
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    return columns[0], rows[0], columns[-1] + 1, rows[-1] + 1


def _encode(image: np.ndarray, kind: str, **options) -> bytes:
    out = io.BytesIO()
    Image.fromarray(image).save(out, kind, **options)
    return out.getvalue()
