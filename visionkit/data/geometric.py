"""Augmentations that move pixels: Sample, seed -> Sample, in TensorFlow's graph.

Pixels and masks are changed at once. Boxes and instance
masks stay in original pixels until the end; what every geometric step did to them is
in two more keys of the sample:

    placement: (4,) float32 [scale_y, scale_x, offset_y, offset_x]:
        current = original * scale + offset; a negative scale is a flip.
    visible: (4,) float32 [y1, x1, y2, x2], the part of the original still in the image.
"""

from __future__ import annotations

import dataclasses
import math

from visionkit.data.decode import slice_window
from visionkit.data.draws import check_pair, check_share, split_seed, uniform
from visionkit.data.lazy import tf
from visionkit.data.resize import pad_to, resample, resample_mask
from visionkit.types import PAD_VALUE, VOID_CLASS

CROP_ATTEMPTS = 10  # draws before a crop falls back to the centre, as in torchvision


def start_geometry(image_size) -> dict:
    """`placement` and `visible` of an image of (2,) int32 that nothing has moved."""
    size = tf.cast(image_size, tf.float32)
    return {
        "placement": tf.constant([1.0, 1.0, 0.0, 0.0]),
        "visible": tf.concat([[0.0, 0.0], size], axis=0),
    }


def move(sample, scale, offset, size):
    """The sample after its pixels went to `position * scale + offset`.

    Args:
        sample: Has `placement` and `visible`; its pixels are the caller's affair.
        scale: (2,) float32, y and x; negative for a flip.
        offset: (2,) float32, pixels of the new image.
        size: (2,), (height, width) of the new image; the rest is cut off.
    """
    scale, offset = tf.cast(scale, tf.float32), tf.cast(offset, tf.float32)
    old_scale, old_offset = sample["placement"][:2], sample["placement"][2:]
    scale, offset = old_scale * scale, old_offset * scale + offset
    corners = tf.stack([-offset, tf.cast(size, tf.float32) - offset]) / scale
    low, high = tf.reduce_min(corners, axis=0), tf.reduce_max(corners, axis=0)
    visible = tf.concat(
        [
            tf.maximum(sample["visible"][:2], low),
            tf.minimum(sample["visible"][2:], high),
        ],
        axis=0,
    )
    placement = tf.concat([scale, offset], axis=0)
    return {**sample, "placement": placement, "visible": visible}


def cut(sample, window):
    """The sample inside `window` (4,) int32 [y, x, height, width] of its image."""
    pixels = {
        key: slice_window(sample[key], window)
        for key in ("images", "segmentation_masks")
        if key in sample
    }
    return move({**sample, **pixels}, [1.0, 1.0], -window[:2], window[2:])


@dataclasses.dataclass(frozen=True)
class Crop:
    """A random window of the image (Szegedy et al. 2014, section 6).

    Always the first transform: it is fused with the decoding, so that only the window
    is decoded (see `decode.decode_and_crop`).

    Args:
        scale: Smallest and largest share of the image's area.
        ratio: Smallest and largest width / height.
    """

    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    stage = "decode"

    def __post_init__(self):
        check_pair("scale", self.scale, 0, 1)
        check_pair("ratio", self.ratio, 1e-3, 1e3)

    def window(self, image_size, seed):
        """[y, x, height, width] (4,) int32 in an image of `image_size` (2,) int32."""
        area_seed, ratio_seed, place_seed = split_seed(seed, 3)
        size = tf.cast(image_size, tf.float32)
        shape = (CROP_ATTEMPTS,)
        area = uniform(area_seed, *self.scale, shape) * tf.reduce_prod(size)
        low, high = self.ratio
        ratio = tf.exp(uniform(ratio_seed, math.log(low), math.log(high), shape))
        sides = tf.round(tf.sqrt(tf.stack([area / ratio, area * ratio], axis=1)))
        fits = tf.reduce_all((sides >= 1) & (sides <= size), axis=1)
        # The largest centred window of a legal ratio, if no draw fits.
        ratio = tf.clip_by_value(size[1] / size[0], low, high)
        widest = [
            tf.minimum(size[0], size[1] / ratio),
            tf.minimum(size[1], size[0] * ratio),
        ]
        fallback = tf.maximum(tf.round(tf.stack(widest)), 1.0)
        window = tf.where(tf.reduce_any(fits), sides[tf.argmax(fits)], fallback)
        place = uniform(place_seed, 0.0, 1.0, (2,))
        place = tf.where(tf.reduce_any(fits), place, 0.5)
        start = tf.minimum(tf.floor(place * (size - window + 1)), size - window)
        return tf.cast(tf.concat([start, window], axis=0), tf.int32)


@dataclasses.dataclass(frozen=True)
class Flip:
    """Mirrors left and right, or top and bottom, with probability `p`."""

    p: float = 0.5
    vertical: bool = False

    def __post_init__(self):
        check_share("p", self.p)

    def __call__(self, sample, seed):
        """The sample, mirrored or not."""
        axis = 0 if self.vertical else 1
        flips = uniform(seed, 0.0, 1.0) < self.p
        size = tf.shape(sample["images"])[:2]
        for key in ("images", "segmentation_masks"):
            if key in sample:
                pixels = sample[key]
                pixels = tf.cond(
                    flips, lambda x=pixels: tf.reverse(x, [axis]), lambda x=pixels: x
                )
                sample = {**sample, key: pixels}
        on_axis = tf.one_hot(axis, 2) * tf.cast(flips, tf.float32)
        return move(sample, 1 - 2 * on_axis, tf.cast(size, tf.float32) * on_axis, size)


@dataclasses.dataclass(frozen=True)
class ScaleJitter:
    """Zooms by a random factor, at a random place (Ghiasi et al. 2021, section 3).

    Zooming in is a window of the image, resampled only by the resize that follows
    anyway; zooming out is the smaller image in a frame of `PAD_VALUE` as large as
    before.

    Args:
        range: Smallest and largest factor.
    """

    range: tuple[float, float] = (0.8, 1.2)

    def __post_init__(self):
        check_pair("range", self.range, 0.01, 100)

    def __call__(self, sample, seed):
        """The sample, zoomed."""
        scale_seed, place_seed = split_seed(seed, 2)
        scale = uniform(scale_seed, *self.range)
        place = uniform(place_seed, 0.0, 1.0, (2,))
        size = tf.shape(sample["images"])[:2]
        real = tf.cast(size, tf.float32)

        def at(room):
            return tf.cast(tf.round(place * tf.cast(room, tf.float32)), tf.int32)

        def zoom_in():
            window = tf.cast(tf.maximum(tf.round(real / scale), 1.0), tf.int32)
            return cut(sample, tf.concat([at(size - window), window], axis=0))

        def zoom_out():
            small = tf.cast(tf.maximum(tf.round(real * scale), 1.0), tf.int32)
            offset = at(size - small)
            images = resample(sample["images"], small)
            out = {**sample, "images": pad_to(images, offset, size, PAD_VALUE)}
            if "segmentation_masks" in sample:
                mask = resample_mask(sample["segmentation_masks"][..., None], small)
                mask = pad_to(mask, offset, size, VOID_CLASS)
                out["segmentation_masks"] = mask[..., 0]
            return move(out, tf.cast(small, tf.float32) / real, offset, size)

        return tf.cond(scale >= 1.0, zoom_in, zoom_out)
