"""Augmentations that change values and move nothing: Sample, seed -> Sample.

They run behind the resize, on fewer pixels: they commute with what moves pixels.
"""

from __future__ import annotations

import dataclasses
import functools
import math

import numpy as np

from visionkit.data.decode import GREY_WEIGHTS
from visionkit.data.draws import check_pair, check_share, split_seed, uniform
from visionkit.data.geometric import Crop
from visionkit.data.image_ops import select
from visionkit.data.lazy import tf
from visionkit.types import VOID_CLASS


@dataclasses.dataclass(frozen=True)
class Color:
    """Changes brightness, contrast, saturation and hue, as one matrix per image.

    SSD's distortion (Liu et al. 2016, section 2.2) is about brightness 0.125, contrast
    0.5, saturation 0.5 and hue 0.05 with `p` 0.5.

    Args:
        brightness: Largest relative change, factor in [1 - b, 1 + b].
        contrast: Largest relative change, about the image's mean grey.
        saturation: Largest relative change, about each pixel's grey.
        hue: Largest turn, as a share of the colour circle, at most 0.5; a rotation
            about the grey axis that keeps the luma (YIQ).
        p: Probability, of each of the four.
    """

    brightness: float = 0.2
    contrast: float = 0.2
    saturation: float = 0.2
    hue: float = 0.0
    p: float = 1.0
    stage = "input"

    def __post_init__(self):
        for field in dataclasses.fields(self):
            check_share(field.name, getattr(self, field.name))
        if self.hue > 0.5:
            raise ValueError(f"`hue` must be in [0, 0.5]. Received: hue={self.hue}")

    def __call__(self, sample, seed):
        """The sample with other colours; grey images keep saturation and hue."""
        draw = uniform(seed, -1.0, 1.0, (4,))
        chosen = uniform(tf.random.fold_in(seed, 1), 0.0, 1.0, (4,)) < self.p
        largest = [self.brightness, self.contrast, self.saturation, self.hue]
        changes = tf.where(chosen, draw, 0.0) * largest
        return {**sample, "images": _fused(_change_color, sample["images"], changes)}


def _change_color(image, changes):
    """The image (H, W, C) uint8 after (4,) float32 changes, in `Color`'s order."""
    channels = image.shape[-1]
    bright, contrast, saturate = tf.unstack(1 + changes[:3])
    weights = tf.constant(GREY_WEIGHTS if channels == 3 else (1.0,))
    # Every fourth pixel of every fourth row tells the mean well enough.
    few = tf.cast(image[::4, ::4], tf.float32)
    mean = tf.tensordot(tf.reduce_mean(few, axis=(0, 1)), weights, 1)
    matrix = tf.eye(channels) * contrast * bright
    if channels == 3:
        grey = tf.tile(weights[None], (3, 1))
        saturation = saturate * tf.eye(3) + (1 - saturate) * grey
        matrix = _hue_matrix(changes[3]) @ saturation @ matrix
    # The rows of the last two matrices sum to 1: they keep a grey offset.
    offset = (1 - contrast) * bright * mean
    image = tf.cast(image, tf.float32)
    if _is_fused(image):  # a product of matrices would be no part of the one loop
        planes = tf.unstack(image, axis=-1)
        rows = [tf.unstack(row) for row in tf.unstack(matrix)]
        mixed = ([p * w for p, w in zip(planes, row, strict=True)] for row in rows)
        image = tf.stack([tf.add_n(parts) for parts in mixed], axis=-1)
    else:
        image = tf.tensordot(image, matrix, [[2], [1]])
    return tf.cast(tf.clip_by_value(tf.round(image + offset), 0.0, 255.0), tf.uint8)


def _hue_matrix(turns):
    """(3, 3) rotation of RGB about the grey axis in YIQ (NTSC 1953)."""
    to_yiq = np.array(
        [GREY_WEIGHTS, (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112)]
    )
    angle = turns * (2 * math.pi)
    cos, sin = tf.cos(angle), tf.sin(angle)
    rotation = tf.reshape(tf.stack([1.0, 0, 0, 0, cos, -sin, 0, sin, cos]), (3, 3))
    to_yiq, back = to_yiq.astype("float32"), np.linalg.inv(to_yiq).astype("float32")
    return back @ rotation @ to_yiq


def _fused(change, image, *values):
    """`change(image, *values)`; where XLA can, its passes over the image made one."""
    return (_compiled(change) if _is_fused(image) else change)(image, *values)


def _is_fused(image) -> bool:
    """Whether XLA makes one pass of many.

    Not where each size would be compiled anew, nor with a GPU, for which XLA might
    compile it.
    """
    fused = image.shape.is_fully_defined()
    return fused and not tf.config.get_visible_devices("GPU")


@functools.cache
def _compiled(change):
    return tf.function(change, jit_compile=True, autograph=False)


@dataclasses.dataclass(frozen=True)
class HsvJitter:
    """Changes hue, saturation and value in HSV; the defaults are YOLOv8's.

    Args:
        hue: Largest turn, as a share of the colour circle, at most 0.5.
        saturation: Largest relative change, factor in [1 - s, 1 + s].
        value: Largest relative change.
    """

    hue: float = 0.015
    saturation: float = 0.7
    value: float = 0.4
    stage = "input"

    def __post_init__(self):
        for field in dataclasses.fields(self):
            check_share(field.name, getattr(self, field.name))
        if self.hue > 0.5:
            raise ValueError(f"`hue` must be in [0, 0.5]. Received: hue={self.hue}")

    def __call__(self, sample, seed):
        """The sample with other colours; grey images keep hue and saturation."""
        hue, saturation, value = tf.unstack(
            uniform(seed, -1.0, 1.0, (3,)) * [self.hue, self.saturation, self.value]
        )
        image = sample["images"]
        # Sixty passes: as one they take a third of the time.
        image = _fused(_change_hsv, image, hue, saturation, value)
        return {**sample, "images": image}


def _change_hsv(image, hue, saturation, value):
    """The image (H, W, C) uint8 after the three () float32 relative changes."""
    image = tf.cast(image, tf.float32)
    if image.shape[-1] == 3:
        image = _turn_and_saturate(image, 6 * hue, 1 + saturation)
    image = tf.round(image * (1 + value))  # value scales red, green and blue alike
    return tf.cast(tf.clip_by_value(image, 0.0, 255.0), tf.uint8)


def _turn_and_saturate(image, turn, factor):
    """RGB (H, W, 3) with the hue turned by sixths of the circle, and more saturation.

    TensorFlow's own kernels for the two take ten times as long.
    """
    red, green, blue = tf.unstack(image, axis=-1)
    value = tf.maximum(tf.maximum(red, green), blue)
    chroma = value - tf.minimum(tf.minimum(red, green), blue)
    safe = tf.maximum(chroma, 1.0)  # below 1 it is 0: pixels are whole numbers
    hue = tf.where(
        value == red,
        (green - blue) / safe,
        tf.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    chroma = tf.minimum(chroma * factor, value)
    hue += turn + 6  # at least 0, so that the remainder is a subtraction

    def channel(shift):
        k = hue + shift
        k -= 6 * tf.floor(k / 6)
        return value - chroma * tf.clip_by_value(tf.minimum(k, 4 - k), 0.0, 1.0)

    return tf.stack([channel(5), channel(3), channel(1)], axis=-1)


@dataclasses.dataclass(frozen=True)
class Erase:
    """Replaces a random rectangle by noise (Zhong et al. 2017).

    The mask below it becomes `VOID_CLASS`; boxes stay.

    Args:
        p: Probability.
        area: Smallest and largest share of the image.
        ratio: Smallest and largest width / height.
    """

    p: float = 0.5
    area: tuple[float, float] = (0.02, 0.33)
    ratio: tuple[float, float] = (0.3, 3.3)
    stage = "input"

    def __post_init__(self):
        check_share("p", self.p)
        check_pair("area", self.area, 0, 1)
        check_pair("ratio", self.ratio, 1e-3, 1e3)

    def __call__(self, sample, seed):
        """The sample, with or without the rectangle."""
        p_seed, window_seed, noise_seed = split_seed(seed, 3)
        size = tf.shape(sample["images"])[:2]

        def erased():
            window = Crop(self.area, self.ratio).window(size, window_seed)
            rows, columns = (
                (tf.range(size[i]) >= window[i])
                & (tf.range(size[i]) < window[i] + window[i + 2])
                for i in (0, 1)
            )
            inside = rows[:, None] & columns[None, :]
            shape = tf.shape(sample["images"])
            noise = tf.random.stateless_uniform(shape, noise_seed, 0, 256, tf.int32)
            noise = tf.cast(noise, tf.uint8)
            out = {
                **sample,
                "images": select(inside[..., None], noise, sample["images"]),
            }
            if "segmentation_masks" in sample:
                void = tf.constant(VOID_CLASS, tf.uint8)
                mask = tf.where(inside, void, sample["segmentation_masks"])
                out["segmentation_masks"] = mask
            return out

        return tf.cond(uniform(p_seed, 0.0, 1.0) < self.p, erased, lambda: dict(sample))
