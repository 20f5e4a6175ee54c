"""Augmentations that put the image into another frame: Sample, seed -> Sample."""

from __future__ import annotations

import dataclasses

from visionkit.data.draws import check_share, split_seed, uniform
from visionkit.data.geometric import reframe, shrink
from visionkit.data.lazy import tf

MAX_FRAME = 2048
"""Longest side of a zoomed-out frame in pixels, or the image's own. The published four
times 500 pixels fit; photographs of a camera do not grow to hundreds of megabytes."""


@dataclasses.dataclass(frozen=True)
class ZoomOut:
    """Puts the image anywhere into a larger frame (Liu et al. 2016, section 3.6).

    Objects become small, down to `1 / max_scale` of their size. The rest of the frame
    is `PAD_VALUE`. Of a frame beyond `MAX_FRAME` pixels all becomes smaller.

    Args:
        p: Probability.
        max_scale: The largest frame's side, in sides of the image.
    """

    p: float = 0.5
    max_scale: float = 4.0

    def __post_init__(self):
        check_share("p", self.p)
        if not 1 <= self.max_scale <= 100:
            raise ValueError(
                f"`max_scale` must be in [1, 100]. Received: max_scale={self.max_scale}"
            )

    def __call__(self, sample, seed):
        """The sample, in a larger frame or as it was."""
        p_seed, scale_seed, place_seed = split_seed(seed, 3)

        def zoomed():
            size = tf.cast(tf.shape(sample["images"])[:2], tf.float32)
            frame = uniform(scale_seed, 1.0, self.max_scale) * size
            longest = tf.maximum(tf.reduce_max(size), float(MAX_FRAME))
            fit = tf.minimum(longest / tf.reduce_max(frame), 1.0)
            size = tf.maximum(tf.round(size * fit), 1.0)
            frame = tf.maximum(tf.round(frame * fit), size)
            start = tf.floor(uniform(place_seed, 0.0, 1.0, (2,)) * (frame - size + 1))
            window = tf.concat([-tf.minimum(start, frame - size), frame], axis=0)
            small = shrink(sample, tf.cast(size, tf.int32))
            return reframe(small, tf.cast(window, tf.int32))

        return tf.cond(uniform(p_seed, 0.0, 1.0) < self.p, zoomed, lambda: dict(sample))


@dataclasses.dataclass(frozen=True)
class PadCrop:
    """Pads all sides, then cuts the old size anywhere (He et al. 2016, section 4.2).

    So the image moves by up to `padding` pixels. The border is `PAD_VALUE`, close to
    the mean, which the paper pads with.

    Args:
        padding: Pixels of the model's input.
    """

    padding: int = 4
    stage = "input"

    def __post_init__(self):
        if not isinstance(self.padding, int) or self.padding < 0:
            raise ValueError(
                "`padding` must be a whole number of pixels. "
                f"Received: padding={self.padding}"
            )

    def __call__(self, sample, seed):
        """The sample, moved; its image keeps its size."""
        old = {key: sample[key].shape for key in _PIXELS if key in sample}
        size = tf.shape(sample["images"])[:2]
        # Some of the image stays, however small it is.
        padding = tf.minimum(self.padding, size - 1)
        draw = uniform(seed, 0.0, 1.0, (2,)) * tf.cast(2 * padding + 1, tf.float32)
        start = tf.minimum(tf.cast(draw, tf.int32), 2 * padding) - padding
        out = reframe(sample, tf.concat([start, size], axis=0))
        return {**out, **{k: tf.ensure_shape(out[k], old[k]) for k in old}}


_PIXELS = ("images", "segmentation_masks")
