"""Anchors, default boxes and the places of a pyramid, for a size of the images.

A level's name says its stride: Pn is 2**n times smaller than the image. All boxes are
(x1, y1, x2, y2) in pixels, centred at (i + 0.5) strides, never clipped, in the order of
the levels from fine to coarse, then y, x, and the anchors of one place.

Sizes are integers, and the answer is a NumPy array; or, where a batch says its size
when it comes, scalar tensors, and the answer is computed in the graph.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import keras
import numpy as np
from keras import ops

from visionkit.ops.pyramid import is_static, level_stride, pyramid_sizes


@keras.saving.register_keras_serializable(package="visionkit")
class AnchorGenerator:
    """Anchors of every scale and aspect ratio at every place of a pyramid.

    Args:
        levels: Names of the pyramid's levels, ascending.
        sizes: Per level, the side in pixels of a square anchor of scale 1.
        scales: Factors of the side. At one place the scales come one after the other,
            each with all aspect ratios.
        aspect_ratios: Height over width; the area stays.

    Raises:
        ValueError: If there are not as many sizes as levels.
    """

    def __init__(
        self,
        levels: Sequence[str] = ("P3", "P4", "P5", "P6", "P7"),
        sizes: Sequence[float] = (32, 64, 128, 256, 512),
        scales: Sequence[float] = (1.0, 2 ** (1 / 3), 2 ** (2 / 3)),
        aspect_ratios: Sequence[float] = (0.5, 1.0, 2.0),
    ):
        self.levels = _check_levels(levels)
        self.sizes = _check_per_level("sizes", sizes, levels)
        self.scales = tuple(float(scale) for scale in scales)
        self.aspect_ratios = tuple(float(ratio) for ratio in aspect_ratios)

    @property
    def num_anchors(self) -> dict[str, int]:
        """Level -> anchors at one place."""
        return dict.fromkeys(self.levels, len(self.scales) * len(self.aspect_ratios))

    def __call__(self, level_sizes: Mapping[str, tuple[int, int]], image_size):
        """The anchors of a pyramid.

        Args:
            level_sizes: Level -> (height, width) of its feature map.
            image_size: (height, width) of the image.

        Returns:
            (A, 4) float32 array or tensor, xyxy pixels.

        Raises:
            ValueError: If a level is missing or has not the size its name says.
        """
        scales, ratios = np.meshgrid(self.scales, self.aspect_ratios, indexing="ij")
        shapes = np.stack([scales / ratios**0.5, scales * ratios**0.5], -1).reshape(
            -1, 2
        )
        boxes = []
        for level, size in zip(self.levels, self.sizes, strict=True):
            stride = level_stride(level)
            found = _level_size(level_sizes, level)
            expected = pyramid_sizes((level,), image_size)[level]
            if is_static(image_size) and found != expected:
                raise ValueError(
                    f"Level {level} of an image of {tuple(image_size)} is {expected}. "
                    f"Received: {found}"
                )
            boxes.append(_boxes_on_grid(found, (stride, stride), size * shapes))
        return _concatenate(boxes)

    def get_config(self):
        """The constructor's arguments."""
        names = ("levels", "sizes", "scales", "aspect_ratios")
        return {name: list(getattr(self, name)) for name in names}

    @classmethod
    def from_config(cls, config):
        """The generator of `get_config`."""
        return cls(**config)


@keras.saving.register_keras_serializable(package="visionkit")
class DefaultBoxes:
    """SSD's default boxes (Liu et al. 2016, section 2.2, and their Caffe code).

    At every place of a level: a square of its `min_size`; a square of
    sqrt(min_size * max_size); and for every aspect ratio r two boxes of the area of
    `min_size`, r times as wide as high and r times as high as wide.

    Args:
        levels: Names of the feature maps, ascending. Here they are names only.
        min_sizes: Per level, pixels in an image of `image_size`.
        max_sizes: Per level, as a rule the next level's `min_size`.
        aspect_ratios: Per level, the ratios besides 1.
        steps: Per level, pixels from one centre to the next in an image of exactly
            `image_size` whose level has the places for it. Elsewhere, and for None,
            the image is divided evenly.
        image_size: The side of the square image that the sizes and steps are made for.
            In another image the sizes follow the root of its area.

    Raises:
        ValueError: If the lists are not as long as `levels`.
    """

    def __init__(
        self,
        levels: Sequence[str],
        min_sizes: Sequence[float],
        max_sizes: Sequence[float],
        aspect_ratios: Sequence[Sequence[float]],
        steps: Sequence[float] | None = None,
        image_size: int = 300,
    ):
        self.levels = tuple(levels)
        self.min_sizes = _check_per_level("min_sizes", min_sizes, levels)
        self.max_sizes = _check_per_level("max_sizes", max_sizes, levels)
        if len(aspect_ratios) != len(levels):
            raise ValueError(
                "`aspect_ratios` must hold a list for each level. Received: "
                f"{len(aspect_ratios)} lists for {len(levels)} levels"
            )
        self.aspect_ratios = tuple(
            tuple(map(float, ratios)) for ratios in aspect_ratios
        )
        self.steps = None if steps is None else _check_per_level("steps", steps, levels)
        self.image_size = int(image_size)

    @property
    def num_anchors(self) -> dict[str, int]:
        """Level -> default boxes at one place."""
        pairs = zip(self.levels, self.aspect_ratios, strict=True)
        return {level: 2 + 2 * len(ratios) for level, ratios in pairs}

    def __call__(self, level_sizes: Mapping[str, tuple[int, int]], image_size):
        """The default boxes of a pyramid; see `AnchorGenerator.__call__`."""
        numpy = is_static(image_size)
        height, width = (x if numpy else ops.cast(x, "float32") for x in image_size)
        root = math.sqrt if numpy else ops.sqrt
        scale = root(height * width) / self.image_size
        boxes = []
        for i, level in enumerate(self.levels):
            size = _level_size(level_sizes, level)
            rows, columns = (x if numpy else ops.cast(x, "float32") for x in size)
            step = (height / rows, width / columns)
            if self.steps is not None:
                own, side = self.steps[i], self.image_size
                # A level with other numbers of places would leave the image by them.
                fits = (height == side) & (abs(rows * own - side) < own)
                fits &= (width == side) & (abs(columns * own - side) < own)
                where = np.where if numpy else ops.where
                step = tuple(where(fits, own, even) for even in step)
            boxes.append(_boxes_on_grid(size, step, scale * self._shapes(i)))
        return _concatenate(boxes)

    def _shapes(self, i):
        """(boxes at one place, 2) widths and heights."""
        small, large = self.min_sizes[i], self.max_sizes[i]
        shapes = [(small, small), (math.sqrt(small * large),) * 2]
        for ratio in self.aspect_ratios[i]:
            root = math.sqrt(ratio)
            shapes += [(small * root, small / root), (small / root, small * root)]
        return np.array(shapes)

    def get_config(self):
        """The constructor's arguments."""
        return {
            "levels": list(self.levels),
            "min_sizes": list(self.min_sizes),
            "max_sizes": list(self.max_sizes),
            "aspect_ratios": [list(ratios) for ratios in self.aspect_ratios],
            "steps": None if self.steps is None else list(self.steps),
            "image_size": self.image_size,
        }

    @classmethod
    def from_config(cls, config):
        """The boxes of `get_config`."""
        return cls(**config)


def anchor_points(level_sizes: Mapping[str, tuple[int, int]]):
    """The places of a pyramid, for detectors without anchors.

    Args:
        level_sizes: Level -> (height, width); the levels are taken from fine to coarse.

    Returns:
        ((A, 2) xy centres in pixels, (A,) strides), float32 arrays or tensors.
    """
    points, strides = [], []
    for level in sorted(level_sizes, key=level_stride):
        stride = level_stride(level)
        centres = _centres(level_sizes[level], (stride, stride))
        points.append(centres)
        # Of the centres' kind and number.
        strides.append(0 * centres[:, 0] + stride)
    return _concatenate(points), _concatenate(strides)


def _check_levels(levels):
    strides = [level_stride(level) for level in levels]
    if not strides or strides != sorted(set(strides)):
        raise ValueError(f"`levels` must ascend. Received: levels={tuple(levels)}")
    return tuple(levels)


def _check_per_level(name, values, levels):
    values = tuple(float(value) for value in values)
    if len(values) != len(levels) or not all(value > 0 for value in values):
        raise ValueError(
            f"`{name}` must hold a positive number for each of {len(levels)} levels. "
            f"Received: {name}={values}"
        )
    return values


def _level_size(level_sizes, level):
    if level not in level_sizes:
        raise ValueError(
            f"The anchors need level {level}. Received: {sorted(level_sizes)}"
        )
    return tuple(level_sizes[level])


def _centres(size, step):
    """(height * width, 2) xy, row by row."""
    if is_static(size):
        y, x = ((np.arange(n) + 0.5) * s for n, s in zip(size, step, strict=True))
        return np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    y, x = (
        (ops.cast(ops.arange(n, dtype="int32"), "float32") + 0.5) * s
        for n, s in zip(size, step, strict=True)
    )
    return ops.reshape(ops.stack(ops.meshgrid(x, y), axis=-1), (-1, 2))


def _boxes_on_grid(size, step, shapes):
    """(height * width * N, 4) of (N, 2) widths and heights at every place."""
    centres = _centres(size, step)[:, None]
    if not is_static(size):
        half = ops.cast(shapes, "float32") / 2
        boxes = ops.concatenate([centres - half, centres + half], axis=-1)
        return ops.reshape(boxes, (-1, 4))
    boxes = np.concatenate([centres - shapes / 2, centres + shapes / 2], axis=-1)
    return boxes.reshape(-1, 4)


def _concatenate(parts: list):
    """(A, ...) float32 of what all levels have, an array or a tensor as they are."""
    if isinstance(parts[0], np.ndarray):
        return np.concatenate(parts).astype("float32")
    return ops.concatenate(parts)


# Lin et al. 2017 (RetinaNet), section 4: nine anchors a place.
RETINANET_ANCHORS = AnchorGenerator()
# Lin et al. 2017 (FPN), section 4.1: three anchors a place on P2-P6.
RPN_ANCHORS = AnchorGenerator(("P2", "P3", "P4", "P5", "P6"), scales=(1.0,))

_FOUR, _SIX = (2.0,), (2.0, 3.0)  # aspect ratios of levels with 4 and with 6 boxes


def _ssd300(sizes):
    return DefaultBoxes(
        ("P3", "P4", "P5", "P6", "P7", "P8"),
        sizes[:-1],
        sizes[1:],
        (_FOUR, _SIX, _SIX, _SIX, _FOUR, _FOUR),
        steps=(8, 16, 32, 64, 100, 300),
        image_size=300,
    )


def _ssd512(sizes):
    return DefaultBoxes(
        ("P3", "P4", "P5", "P6", "P7", "P8", "P9"),
        sizes[:-1],
        sizes[1:],
        (_FOUR, _SIX, _SIX, _SIX, _SIX, _FOUR, _FOUR),
        steps=(8, 16, 32, 64, 128, 256, 512),
        image_size=512,
    )


# The authors' Caffe code: 8,732 boxes at 300 and 24,564 at 512, smaller ones for COCO.
SSD300_BOXES = _ssd300((30, 60, 111, 162, 213, 264, 315))
SSD300_COCO_BOXES = _ssd300((21, 45, 99, 153, 207, 261, 315))
SSD512_BOXES = _ssd512((35.84, 76.8, 153.6, 230.4, 307.2, 384.0, 460.8, 537.6))
SSD512_COCO_BOXES = _ssd512(
    (20.48, 51.2, 133.12, 215.04, 296.96, 378.88, 460.8, 542.72)
)
# torchvision's SSDLite: shares 0.20, 0.35 ... 0.95, 1 of the image; 3,234 boxes at 320.
SSDLITE_BOXES = DefaultBoxes(
    ("P4", "P5", "P6", "P7", "P8", "P9"),
    (64, 112, 160, 208, 256, 304),
    (112, 160, 208, 256, 304, 320),
    (_SIX,) * 6,
    image_size=320,
)
