"""Training on several sizes of images, one size after another."""

from __future__ import annotations

import dataclasses

from visionkit.data.lazy import tf
from visionkit.types import BOX_TASKS

SIZE_DRAWS = 2**21
"""What the draws of sizes have beside the run's seed; the shuffle has 0 there."""

YOLOV2_SIZES = tuple((side, side) for side in range(320, 609, 32))


@dataclasses.dataclass(frozen=True)
class MultiScale:
    """Batches of sizes that change (Redmon and Farhadi 2017, YOLOv2, section 2).

    The whole batch is resized, bilinearly and without antialiasing, behind all that
    mixes it, and its boxes with it, but not the masks in them. A model for it takes
    images of any size; what it is validated on, and predicts, keeps the size of the
    model's input.

    Args:
        sizes: The (height, width) of which one is drawn, each as likely as the others;
            by default YOLOv2's, squares of 320 to 608.
        every: Batches until the next draw; 10 in YOLOv2.
    """

    sizes: tuple[tuple[int, int], ...] = YOLOV2_SIZES
    every: int = 10
    stage = "size"
    tasks = BOX_TASKS

    def __post_init__(self):
        sizes = self.sizes if isinstance(self.sizes, list | tuple) else ()
        if not sizes or not all(map(_is_size, sizes)):
            raise ValueError(
                "`sizes` must be a list of [height, width], both at least 1. "
                f"Received: sizes={self.sizes}"
            )
        if not isinstance(self.every, int) or self.every < 1:
            raise ValueError(
                "`every` must be a number of batches, at least 1. "
                f"Received: every={self.every}"
            )

    def __call__(self, images, target, size):
        """The batch at another size.

        Args:
            images: (B, h, w, C) uint8.
            target: Dict with "boxes" (B, M, 4).
            size: (2,) int32, the new height and width.

        Returns:
            (images, target), of a dynamic height and width.
        """
        old = tf.cast(tf.shape(images)[1:3], tf.float32)
        scale = tf.cast(size, tf.float32) / old
        images = tf.cast(tf.round(tf.image.resize(images, size)), images.dtype)
        scale = tf.gather(scale, [1, 0, 1, 0])
        return images, {**target, "boxes": target["boxes"] * scale}


def resize_batches(dataset, multi_scale: MultiScale, order, steps: int):
    """The batches of a training at sizes that are drawn.

    Args:
        dataset: Of (images, target dict), from the place that `order` names.
        multi_scale: Says the sizes.
        order: The training's `Order`.
        steps: Per epoch.

    Returns:
        A data set of the same structure. The sizes are a function of the seed and the
        position in the training alone.
    """
    first = order.start_epoch * steps + order.start_step
    sizes = tf.constant(multi_scale.sizes, tf.int32)

    def resize(step, batch):
        seed = tf.constant([order.seed, SIZE_DRAWS], tf.int64)
        seed = tf.random.fold_in(seed, step // multi_scale.every)
        drawn = tf.random.stateless_uniform([], seed, 0, len(sizes), tf.int32)
        return multi_scale(*batch, tf.gather(sizes, drawn))

    dataset = dataset.enumerate(first)
    return dataset.map(resize, tf.data.AUTOTUNE, deterministic=True)


def _is_size(size) -> bool:
    return (
        isinstance(size, list | tuple)
        and len(size) == 2
        and all(isinstance(side, int) and side >= 1 for side in size)
    )
