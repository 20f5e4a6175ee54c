"""SSD's random patch, which some object overlaps as much as drawn."""

from __future__ import annotations

import dataclasses

from visionkit.data.draws import check_pair, check_share, split_seed, uniform
from visionkit.data.geometric import cut, keep_boxes, visible_boxes
from visionkit.data.lazy import tf
from visionkit.types import BOX_TASKS

TRIALS = 50  # draws per overlap, as in the paper's code


@dataclasses.dataclass(frozen=True)
class MinIoUCrop:
    """A random patch that overlaps an object by a drawn IoU (Liu et al. 2016, 2.2).

    One of these is drawn: the whole image; a patch that has at least the one or the
    other IoU of `ious` with some object; a patch with any overlap. Each patch has an
    object's centre in it, and objects of which it has not the centre are dropped. What
    has no patch in 50 draws is not drawn. An image without objects has any patch.

    Args:
        ious: The smallest overlaps to draw from.
        scale: Smallest and largest share of each of the image's sides.
        ratio: Smallest and largest width / height of the patch.
    """

    ious: tuple[float, ...] = (0.1, 0.3, 0.5, 0.7, 0.9)
    scale: tuple[float, float] = (0.3, 1.0)
    ratio: tuple[float, float] = (0.5, 2.0)
    tasks = BOX_TASKS

    def __post_init__(self):
        if not isinstance(self.ious, tuple | list):
            raise ValueError(
                "`ious` must be a list of numbers in [0, 1]. "
                f"Received: ious={self.ious}"
            )
        for iou in self.ious:
            check_share("ious", iou)
        check_pair("scale", self.scale, 0, 1)
        check_pair("ratio", self.ratio, 1e-3, 1e3)

    def __call__(self, sample, seed):
        """The sample inside the patch, with the boxes that are centred in it."""
        side_seed, place_seed, choice_seed = split_seed(seed, 3)
        boxes, share = visible_boxes(sample, sample["bounding_boxes"]["boxes"])
        counts = share > 0
        if "is_crowd" in sample["bounding_boxes"]:
            counts &= ~sample["bounding_boxes"]["is_crowd"]

        size = tf.cast(tf.shape(sample["images"])[:2], tf.float32)
        shape = (len(self.ious) + 1, TRIALS, 2)
        sides = tf.maximum(tf.round(uniform(side_seed, *self.scale, shape) * size), 1.0)
        start = uniform(place_seed, 0.0, 1.0, shape) * (size - sides + 1)
        start = tf.minimum(tf.floor(start), size - sides)
        ratio = sides[..., 1] / sides[..., 0]
        legal = (ratio >= self.ratio[0]) & (ratio <= self.ratio[1])
        patches = tf.concat([start, start + sides], axis=-1)  # y1, x1, y2, x2

        inside = _holds_centre(patches, boxes) & counts
        overlaps = tf.where(counts, _iou(patches, boxes), 0.0)
        least = tf.constant([*self.ious, 0.0])[:, None]
        fits = tf.reduce_any(inside, axis=-1)
        fits &= tf.reduce_max(overlaps, axis=-1) >= least
        fits = legal & (fits | ~tf.reduce_any(counts) & (least == 0))

        # A draw for each kind that is possible, the whole image as the last of them.
        possible = tf.concat([tf.reduce_any(fits, axis=1), [True]], axis=0)
        draw = tf.where(possible, uniform(choice_seed, 0.0, 1.0, (shape[0] + 1,)), -1.0)
        kind = tf.argmax(draw, output_type=tf.int32)

        def patch():
            trial = tf.argmax(fits[kind], output_type=tf.int32)
            y1, x1, y2, x2 = tf.unstack(patches[kind, trial])
            window = tf.cast(tf.stack([y1, x1, y2 - y1, x2 - x1]), tf.int32)
            centred = _holds_centre(patches[kind, trial], boxes)
            return cut(keep_boxes(sample, centred), window)

        return tf.cond(kind < shape[0], patch, lambda: dict(sample))


def _holds_centre(patches, boxes):
    """(..., N) bool: whether the centre of a box (N, 4) lies in a patch (..., 4)."""
    x, y = (boxes[:, 0] + boxes[:, 2]) / 2, (boxes[:, 1] + boxes[:, 3]) / 2
    y1, x1, y2, x2 = tf.unstack(patches[..., None], axis=-2)
    return (x1 < x) & (x < x2) & (y1 < y) & (y < y2)


def _iou(patches, boxes):
    """(..., N) float32 of patches (..., 4) y1, x1, y2, x2 and boxes (N, 4) xyxy."""
    y1, x1, y2, x2 = tf.unstack(patches[..., None], axis=-2)
    width = tf.minimum(x2, boxes[:, 2]) - tf.maximum(x1, boxes[:, 0])
    height = tf.minimum(y2, boxes[:, 3]) - tf.maximum(y1, boxes[:, 1])
    both = tf.maximum(width, 0.0) * tf.maximum(height, 0.0)
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return both / ((y2 - y1) * (x2 - x1) + area - both)
