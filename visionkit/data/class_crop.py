"""A random window about a pixel of a drawn class."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from visionkit._spelling import check_name
from visionkit.data.draws import check_pair, check_share, split_seed, uniform
from visionkit.data.geometric import cut
from visionkit.data.lazy import tf
from visionkit.types import VOID_CLASS

RARE = "rare"


@dataclasses.dataclass(frozen=True)
class ClassCrop:
    """A window with a random pixel of a drawn class in its middle.

    A window anywhere shows mostly the classes that fill the images. Here the class is
    drawn first, among those in the mask, and then one of its pixels; at the image's
    border the window is moved inside.

    Args:
        size: (height, width) in pixels of the image, at most its own size; None for
            `scale`.
        scale: Smallest and largest share of both of the image's sides.
        classes: Which are drawn: None for all alike; a list of names; "rare" for all,
            each by the inverse of its pixels in the data, which are counted first; or
            a weight for each class of the data.
        p: Probability; else, or where none of the classes is in the mask, the window
            is anywhere.
    """

    size: tuple[int, int] | None = None
    scale: tuple[float, float] = (0.5, 1.0)
    classes: Sequence[str] | Sequence[float] | str | None = None
    p: float = 0.5
    tasks = ("semantic_segmentation",)

    def __post_init__(self):
        check_pair("scale", self.scale, 0, 1)
        check_share("p", self.p)
        sides = self.size if isinstance(self.size, tuple | list) else (0,)
        if self.size is not None and (len(sides) != 2 or min(sides) < 1):
            raise ValueError(
                "`size` must be (height, width) in pixels, both at least 1. "
                f"Received: size={self.size}"
            )
        if isinstance(self.classes, str) and self.classes != RARE:
            raise ValueError(
                "`classes` must be a list of names of classes, or 'rare'. Received: "
                f"classes={self.classes!r}"
            )

    def bind(self, source) -> ClassCrop:
        """The same transform with a weight for each class of `source`.

        Raises:
            ValueError: The source has no class of a name.
        """
        if self.classes is None or self._is_bound():
            return self
        names = source.info.class_names
        if self.classes == RARE:
            counts = source.class_counts()
            counts = np.maximum(counts, 1)
            weights = counts.min() / counts
        else:
            for name in self.classes:
                check_name("class for `class_crop`", name, names)
            weights = np.array([name in self.classes for name in names], float)
        return dataclasses.replace(self, classes=tuple(weights.tolist()))

    def __call__(self, sample, seed):
        """The sample inside the window."""
        if not (self.classes is None or self._is_bound()):
            raise ValueError("`class_crop` by names of classes has to be bound first.")
        draw_seed, side_seed, class_seed, place_seed = split_seed(seed, 4)
        mask = sample["segmentation_masks"]
        size = tf.shape(mask)
        if self.size is None:
            share = uniform(side_seed, *self.scale)
            window = tf.cast(tf.round(share * tf.cast(size, tf.float32)), tf.int32)
        else:
            window = tf.constant(self.size)
        window = tf.clip_by_value(window, 1, size)

        flat = tf.cast(tf.reshape(mask, [-1]), tf.int32)
        present = tf.math.bincount(flat, minlength=256, maxlength=256)[:VOID_CLASS] > 0
        weights = tf.where(present, self._weights(), 0.0)
        sums = tf.cumsum(weights)
        place = uniform(place_seed, 0.0, 1.0, (2,))

        def anywhere():
            return tf.cast(place * tf.cast(size - window + 1, tf.float32), tf.int32)

        def about_a_pixel():
            draw = uniform(class_seed, 0.0, 1.0, (1,)) * sums[-1]
            drawn = tf.searchsorted(sums, draw, side="right")[0]
            last = tf.reduce_max(tf.where(weights > 0)[:, 0])  # rounding, at the end
            drawn = tf.minimum(drawn, tf.cast(last, tf.int32))
            pixels = tf.where(flat == drawn)[:, 0]
            count = tf.cast(tf.size(pixels), tf.float32)
            index = tf.minimum(tf.cast(place[0] * count, tf.int32), tf.size(pixels) - 1)
            pixel = tf.cast(pixels[index], tf.int32)
            middle = tf.stack([pixel // size[1], pixel % size[1]])
            return middle - window // 2

        drawn = (uniform(draw_seed, 0.0, 1.0) < self.p) & (sums[-1] > 0)
        start = tf.cond(drawn, about_a_pixel, anywhere)
        start = tf.clip_by_value(start, 0, size - window)
        return cut(sample, tf.concat([start, window], axis=0))

    def _is_bound(self) -> bool:
        numbers = isinstance(self.classes, tuple | list)
        return numbers and all(isinstance(x, int | float) for x in self.classes)

    def _weights(self):
        """(255,) float32, the weight of each class id."""
        weights = np.ones(VOID_CLASS, np.float32)
        if self.classes is not None:
            weights[:] = 0
            weights[: len(self.classes)] = self.classes
        return tf.constant(weights)
