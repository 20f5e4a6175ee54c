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
from visionkit.data.resize import boxes_to_input, pad_to, resample, resample_mask
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


def reframe(sample, window):
    """The sample in `window`, which may reach beyond its image.

    Args:
        sample: Has the keys of `start_geometry`.
        window: (4,) int32 [y, x, height, width] in pixels of its image, of which some
            lies in it. The rest becomes `PAD_VALUE`, in masks `VOID_CLASS`.
    """
    size = tf.shape(sample["images"])[:2]
    start, extent = window[:2], window[2:]
    low, high = tf.maximum(start, 0), tf.minimum(start + extent, size)
    inside = tf.concat([low, high - low], axis=0)
    images = slice_window(sample["images"], inside)
    out = {**sample, "images": pad_to(images, low - start, extent, PAD_VALUE)}
    if "segmentation_masks" in sample:
        mask = slice_window(sample["segmentation_masks"], inside)[..., None]
        mask = pad_to(mask, low - start, extent, VOID_CLASS)
        out["segmentation_masks"] = mask[..., 0]
    return move(out, [1.0, 1.0], -start, extent)


def shrink(sample, size):
    """The sample with its image resampled to `size` (2,) int32, (height, width)."""
    old = tf.shape(sample["images"])[:2]
    out = {**sample, "images": resample(sample["images"], size)}
    if "segmentation_masks" in sample:
        mask = resample_mask(sample["segmentation_masks"][..., None], size)
        out["segmentation_masks"] = mask[..., 0]
    scale = tf.cast(size, tf.float32) / tf.cast(old, tf.float32)
    return move(out, scale, [0.0, 0.0], size)


def visible_boxes(sample, boxes):
    """`boxes` (N, 4) xyxy of the original, as they are in the image now.

    Returns:
        (N, 4) float32 in pixels of the image, clipped to it, and (N,) float32, the
        share of each box that is left of it; 0 for a box without area.
    """
    boxes = tf.ensure_shape(boxes, [None, 4])
    y1, x1, y2, x2 = tf.unstack(sample["visible"])
    low, high = tf.stack([x1, y1, x1, y1]), tf.stack([x2, y2, x2, y2])
    clipped = tf.clip_by_value(boxes, low, high)
    share = tf.math.divide_no_nan(_area(clipped), _area(boxes))
    return boxes_to_input(clipped, sample["placement"]), share


def keep_boxes(sample, keep):
    """The sample with the boxes for which `keep` (N,) bool holds, and their rows."""
    rows = sample["bounding_boxes"]
    rows = {key: tf.boolean_mask(value, keep) for key, value in rows.items()}
    out = {**sample, "bounding_boxes": rows}
    if "instance_masks" in sample:
        out["instance_masks"] = tf.boolean_mask(sample["instance_masks"], keep)
    return out


def _area(boxes):
    return tf.reduce_prod(boxes[:, 2:] - boxes[:, :2], axis=1)


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
    before. A range of 0.1 to 2 is the paper's large-scale jitter; 0.5 to 1.5 with
    `translate` 0.1 is YOLOv8's.

    Args:
        range: Smallest and largest factor.
        translate: Largest distance of the image's centre from the frame's, as a share
            of the frame, at most 0.5. None zooms in to a place anywhere in the image,
            and puts a smaller image anywhere in the frame.
    """

    range: tuple[float, float] = (0.8, 1.2)
    translate: float | None = None

    def __post_init__(self):
        check_pair("range", self.range, 0.01, 100)
        if self.translate is not None and not 0 <= self.translate <= 0.5:
            raise ValueError(
                f"`translate` must be in [0, 0.5]. Received: translate={self.translate}"
            )

    def __call__(self, sample, seed):
        """The sample, zoomed."""
        scale_seed, place_seed = split_seed(seed, 2)
        scale = uniform(scale_seed, *self.range)
        place = uniform(place_seed, 0.0, 1.0, (2,))
        size = tf.shape(sample["images"])[:2]
        real = tf.cast(size, tf.float32)

        def start(inner, outer):  # of an inner rectangle in an outer one
            inner, outer = tf.cast(inner, tf.float32), tf.cast(outer, tf.float32)
            start = place * (outer - inner)
            if self.translate is not None:
                # The shift is a share of the frame, which is the one or the other.
                shift = (2 * place - 1) * self.translate * frame
                start = (outer - inner) / 2 + shift
            return tf.cast(tf.round(start), tf.int32)

        window = tf.cast(tf.maximum(tf.round(real / scale), 1.0), tf.int32)
        small = tf.cast(tf.maximum(tf.round(real * scale), 1.0), tf.int32)
        zooms_in = scale >= 1.0
        frame = tf.cast(tf.where(zooms_in, window, size), tf.float32)

        def zoom_in():
            place = tf.concat([start(window, size), window], axis=0)
            return (
                cut(sample, place) if self.translate is None else reframe(sample, place)
            )

        def zoom_out():
            place = tf.concat([-start(small, size), size], axis=0)
            return reframe(shrink(sample, small), place)

        return tf.cond(zooms_in, zoom_in, zoom_out)
