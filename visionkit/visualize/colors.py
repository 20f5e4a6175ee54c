"""Colours that stay apart, also for colour-blind readers."""

from __future__ import annotations

import functools

import numpy as np

from visionkit.types import VOID_CLASS

# Okabe and Ito 2008, "Color Universal Design", without black.
OKABE_ITO = (
    (0, 114, 178),
    (230, 159, 0),
    (0, 158, 115),
    (213, 94, 0),
    (204, 121, 167),
    (86, 180, 233),
    (240, 228, 66),
)
RIGHT, WRONG = OKABE_ITO[0], OKABE_ITO[3]  # blue and vermilion: not red and green
VOID_COLOR = (224, 224, 192)  # that of PASCAL VOC's masks

# Linear sRGB -> OKLab (Ottosson 2020, "A perceptual color space").
_RGB_TO_LMS = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_LMS_TO_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)
# What a full deuteranope sees, linear RGB (Machado et al. 2009, severity 1).
_DEUTERANOPIA = np.array(
    [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ]
)


def palette(n: int) -> np.ndarray:
    """`n` deterministic colours; a longer palette begins with the shorter one.

    The first seven are Okabe and Ito's. Each further colour is the one farthest from
    all before it, in OKLab, to normal and to deuteranope eyes, whichever is less.
    Very dark and very pale colours are left out, so that all show on a photograph.

    Args:
        n: Number of colours, at least 0. Beyond some 2,000 the colours repeat.

    Returns:
        (n, 3) uint8 RGB.

    Raises:
        ValueError: `n` is negative.
    """
    if n < 0:
        raise ValueError(f"`n` must be at least 0. Received: n={n}")
    colors = _palette(max(16, 1 << (n - 1).bit_length()) if n else 16)
    return colors[np.arange(n) % len(colors)]


def label_color(label: int) -> tuple[int, int, int]:
    """The colour of one class, as Pillow takes it."""
    return tuple(palette(int(label) + 1)[-1].tolist())


def index_palette(label_names: dict[int, str] | None = None) -> np.ndarray:
    """(256, 3) uint8: the colours of a picture whose pixels are class ids.

    Args:
        label_names: Names by class id; one called "background" is black.
    """
    colors = palette(256)
    for label, name in (label_names or {}).items():
        if name.lower() == "background":
            colors[label] = 0
    colors[VOID_CLASS] = VOID_COLOR
    return colors


def text_color(background) -> tuple[int, int, int]:
    """Black or white, whichever contrasts more with `background` (WCAG 2.1)."""
    luminance = _linear(np.asarray(background)) @ (0.2126, 0.7152, 0.0722)
    # Where the contrast ratios to black and to white are equal.
    return (0, 0, 0) if luminance > 0.179 else (255, 255, 255)


@functools.lru_cache
def _palette(n: int) -> np.ndarray:
    levels = np.linspace(0, 255, 16)
    grid = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(-1, 3)
    lightness = _perceived(grid)[:, 0]
    grid = grid[(lightness > 0.45) & (lightness < 0.92)]
    colors = np.concatenate([np.array(OKABE_ITO, np.float64), grid])
    n = min(n, len(colors))
    features = _perceived(colors)
    chosen = list(range(len(OKABE_ITO)))
    distance = np.min([_distance(features, features[i]) for i in chosen], axis=0)
    while len(chosen) < n:
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, _distance(features, features[chosen[-1]]))
    return colors[chosen].round().astype(np.uint8)


def _distance(features, one):
    """Lesser distance of the two eyes; -1 keeps a chosen colour from coming again."""
    square = (features - one) ** 2
    nearest = np.minimum(square[:, :3].sum(1), square[:, 3:].sum(1))
    return np.where(square.sum(1) == 0, -1.0, nearest)


def _perceived(rgb):
    """(N, 3) sRGB 0..255 -> (N, 6): OKLab to normal and to deuteranope eyes."""
    linear = _linear(rgb)
    both = (linear, np.clip(linear @ _DEUTERANOPIA.T, 0, 1))
    return np.hstack([np.cbrt(x @ _RGB_TO_LMS.T) @ _LMS_TO_LAB.T for x in both])


def _linear(rgb):
    """SRGB 0..255 -> linear 0..1 (IEC 61966-2-1)."""
    x = np.asarray(rgb, np.float64) / 255
    return np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)
