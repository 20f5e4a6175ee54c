"""Augmentations that put several images of a batch into one, with all their boxes.

Graph code on the finished batch, padded: what is left of the boxes comes first, own
ones before those of the others, and what finds no room in the target is dropped.
`ops/mixing.py` is the same on the device, for backends without tf.data.
"""

from __future__ import annotations

import dataclasses

from visionkit.data.draws import check_pair, check_share, split_seed, uniform
from visionkit.data.image_ops import select
from visionkit.data.instance_mixing import follow_boxes, paste_instances
from visionkit.data.lazy import tf
from visionkit.data.resize import boxes_to_input
from visionkit.data.targets import MIN_VISIBLE, is_large, pack_rows
from visionkit.types import BOX_TASKS, PAD_VALUE

MIN_PASTED = 0.5
"""Share of a box that must be pasted, or nobody expects the object to be found."""


@dataclasses.dataclass(frozen=True)
class Mosaic:
    """Four images around a random point (Bochkovskiy et al. 2020, section 3.3).

    Each image and the three before it in the batch lie about a point as in YOLOv8,
    with a corner of each at the point, all zoomed by one random factor; the frame
    keeps its size, and where it is not covered it is `PAD_VALUE`. Nothing is decoded
    more than once.

    Args:
        p: Probability, of each image.
        scale: Smallest and largest zoom; below 0.5 the interpolation skips pixels.
        off_last_epochs: Epochs at the end of the training without it.
    """

    p: float = 1.0
    scale: tuple[float, float] = (0.5, 1.5)
    off_last_epochs: int = 0
    stage = "batch"
    tasks = BOX_TASKS
    images = 4

    def __post_init__(self):
        check_share("p", self.p)
        check_pair("scale", self.scale, 0.05, 20)
        check_epochs(self)

    def __call__(self, images, target, seed):
        """The batch, mixed; see `mixing.mix_batches`."""
        batch = images.shape[0] or tf.shape(images)[0]
        p_seed, scale_seed, place_seed = split_seed(seed, 3)
        drawn = uniform(p_seed, 0.0, 1.0, (batch,)) < self.p
        scale = uniform(scale_seed, *self.scale, (batch,))
        # The point moves with the zoom, since a window of a larger mosaic is shown.
        point = 0.5 + scale[:, None] * uniform(place_seed, -0.5, 0.5, (batch, 2))
        return mosaic(images, target, drawn, scale, point)


@dataclasses.dataclass(frozen=True)
class CopyPaste:
    """Pastes objects of its partner into each image (Ghiasi et al. 2021, section 3).

    An object is pasted where it is in the partner, the image before it in the batch:
    `scale_jitter` before makes the places differ. With masks it is pasted by its
    pixels, what it covers leaves the masks below it, and their boxes shrink to what
    is left; without, as the rectangle of its box. Objects of which less than a tenth
    is left uncovered are dropped. In a batch of one there is nothing to paste.

    Args:
        p: Probability, of each image.
        share: Probability, of each of the partner's objects.
        off_last_epochs: Epochs at the end of the training without it.
    """

    p: float = 0.5
    share: float = 0.5
    off_last_epochs: int = 0
    stage = "batch"
    tasks = BOX_TASKS
    images = 2

    def __post_init__(self):
        check_share("p", self.p)
        check_share("share", self.share)
        check_epochs(self)

    def __call__(self, images, target, seed):
        """The batch, mixed; see `mixing.mix_batches`."""
        p_seed, share_seed = split_seed(seed, 2)
        rows = tf.shape(target["labels"])
        drawn = uniform(p_seed, 0.0, 1.0, rows[:1])[:, None] < self.p
        chosen = drawn & (uniform(share_seed, 0.0, 1.0, rows) < self.share)
        return copy_paste(images, target, chosen)


def mosaic(images, target, drawn, scale, point):
    """Mosaics of given draws.

    Args:
        images: (B, h, w, C) uint8.
        target: Dict with "boxes" (B, M, 4) and "labels" (B, M), and perhaps "masks"
            (B, M, MASK_SIZE, MASK_SIZE) uint8.
        drawn: (B,) bool; other images stay.
        scale: (B,) float32, zoom.
        point: (B, 2) float32 (y, x), where the four meet, as shares of the frame.

    Returns:
        (images, target) of the same shapes.
    """
    size = tf.shape(images)[1:3]
    tiles = _tiles(size, scale, point)
    batch = tf.shape(images)[0]
    indices = (tf.range(batch)[:, None] - tf.range(4)) % batch

    def compose(arguments):
        index, drawn, *tiles = arguments

        def composed():
            return _compose(tf.gather(images, index), size, *tiles)

        return tf.cond(drawn, composed, lambda: images[index[0]])

    spec = tf.TensorSpec(images.shape[1:], images.dtype)
    mixed = tf.map_fn(compose, (indices, drawn, *tiles), fn_output_signature=spec)

    own = tf.gather(target["boxes"], indices)  # (B, 4, M, 4)
    labels = tf.gather(target["labels"], indices)
    seen, boxes, keep = _boxes_in_tiles(own, *tiles)
    stays = tf.concat([~drawn[:, None], tf.zeros((batch, 3), tf.bool)], axis=1)
    keep = tf.where(drawn[:, None, None], keep, stays[..., None]) & (labels >= 0)
    changed = drawn[:, None, None, None]
    boxes, seen = (tf.where(changed, new, own) for new in (boxes, seen))
    columns = {"boxes": boxes, "labels": labels}
    if "masks" not in target:
        return mixed, {**target, **pack_rows(columns, keep)}
    rows = labels.shape[2]
    source = indices[..., None] * rows + tf.range(rows)
    columns |= {"own": own, "seen": seen, "source": source}
    return mixed, follow_boxes(target, pack_rows(columns, keep))


def _tiles(size, scale, point):
    """Which part of each image goes where, in whole pixels.

    Returns:
        Source start and extent, target start and extent, each (B, 2, 2) int32 for
        [before, behind] the point and (y, x).
    """
    real = tf.cast(size, tf.float32)
    centre = tf.clip_by_value(tf.round(point * real), 1.0, real - 1)
    scale = scale[:, None, None]
    room = tf.stack([centre, real - centre], axis=1)
    extent = tf.minimum(room, tf.maximum(tf.round(scale * real), 1.0))
    source = tf.clip_by_value(tf.round(extent / scale), 1.0, real)
    before = tf.constant([[1.0], [0.0]])  # its last pixels meet the point
    start = (real - source) * before
    target = centre[:, None] - extent * before
    return [tf.cast(part, tf.int32) for part in (start, source, target, extent)]


def _compose(images, size, start, source, target, extent):
    """One mosaic (h, w, C) of images (4, h, w, C); the tiles' rows are of `_tiles`."""
    rows = []
    for i in range(2):
        row = []
        for j in range(2):
            corner = tf.stack([start[i, 0], start[j, 1]])
            end = corner + tf.stack([source[i, 0], source[j, 1]])
            tile = images[2 * i + j, corner[0] : end[0], corner[1] : end[1]]
            # No antialiasing, as in YOLO's: at half the size it would change nothing.
            shape = tf.stack([extent[i, 0], extent[j, 1]])
            tile = tf.cast(tf.round(tf.image.resize(tile, shape)), images.dtype)
            row.append(_towards(tile, j, 1, target[j, 1], size[1]))
        rows.append(_towards(tf.concat(row, axis=1), i, 0, target[i, 0], size[0]))
    return tf.ensure_shape(tf.concat(rows, axis=0), images.shape[1:])


def _towards(tile, behind, axis, start, side):
    """`tile` with the border between it and the frame, before or behind it."""
    rest = side - start - tf.shape(tile)[axis] if behind else start
    pads = [[0, 0], [0, 0], [0, 0]]
    pads[axis] = [0, rest] if behind else [rest, 0]
    return tf.pad(tile, pads, constant_values=tf.cast(PAD_VALUE, tile.dtype))


def _boxes_in_tiles(boxes, start, source, target, extent):
    """Boxes (B, 4, M, 4): what is seen of them, in the mosaic, and which to keep."""

    def of_tiles(part):  # (B, 2, 2) to (B, 4, 2): y of i, x of j
        y = tf.repeat(part[:, :, 0], 2, axis=1)
        return tf.cast(tf.stack([y, tf.tile(part[:, :, 1], [1, 2])], -1), tf.float32)

    start, source, target, extent = map(of_tiles, (start, source, target, extent))
    low = tf.gather(start, [1, 0, 1, 0], axis=-1)[:, :, None]
    high = tf.gather(start + source, [1, 0, 1, 0], axis=-1)[:, :, None]
    clipped = tf.clip_by_value(boxes, low, high)
    scale = extent / source
    placement = tf.concat([scale, target - start * scale], axis=-1)
    placed = boxes_to_input(clipped, placement)
    keep = _area(clipped) >= MIN_VISIBLE * _area(boxes)
    return clipped, placed, keep & is_large(placed)


def join_partner(target, mixed):
    """The target with the boxes of each image's partner where `mixed` (B,) bool."""
    boxes, labels = target["boxes"], target["labels"]
    boxes = tf.stack([boxes, tf.roll(boxes, 1, axis=0)], axis=1)
    labels = tf.stack([labels, tf.roll(labels, 1, axis=0)], axis=1)
    mixed &= tf.shape(boxes)[0] > 1  # alone in a batch, it is its own partner
    keep = tf.stack([tf.ones_like(mixed), mixed], axis=1)[..., None] & (labels >= 0)
    return {**target, **pack_rows({"boxes": boxes, "labels": labels}, keep)}


def copy_paste(images, target, chosen):
    """Objects pasted for given draws.

    Args:
        images: (B, h, w, C) uint8.
        target: Dict with "boxes" (B, M, 4) and "labels" (B, M), and perhaps "masks"
            (B, M, MASK_SIZE, MASK_SIZE) uint8.
        chosen: (B, M) bool, which of the partner's rows are pasted.

    Returns:
        (images, target) of the same shapes.
    """
    height, width = images.shape[1:3]
    boxes, labels = target["boxes"], target["labels"]
    others, other_labels = (tf.roll(x, 1, axis=0) for x in (boxes, labels))
    chosen &= (other_labels >= 0) & (tf.shape(boxes)[0] > 1)
    if "masks" in target:
        return paste_instances(images, target, chosen)
    rows, columns = _pixels(others, height, width)
    pasted = tf.matmul(
        rows * tf.cast(chosen, tf.float32)[..., None], columns, transpose_a=True
    )
    pasted = pasted > 0
    images = select(pasted[..., None], tf.roll(images, 1, axis=0), images)
    pasted = tf.cast(pasted, tf.float32)
    own = _share(pasted, *_pixels(boxes, height, width)) <= 1 - MIN_VISIBLE
    # What stands in a pasted rectangle comes along, chosen or not.
    come = _share(pasted, rows, columns) >= MIN_PASTED
    come &= tf.reduce_any(chosen, axis=1, keepdims=True)
    boxes = tf.stack([boxes, others], axis=1)
    labels = tf.stack([labels, other_labels], axis=1)
    keep = tf.stack([own, come], axis=1) & (labels >= 0)
    return images, {**target, **pack_rows({"boxes": boxes, "labels": labels}, keep)}


def _pixels(boxes, height, width):
    """(B, M, h) and (B, M, w) float32, 1 for rows and columns that a box touches."""

    def touched(low, high, side):
        pixel = tf.range(side, dtype=tf.float32)
        return tf.cast(
            (pixel + 1 > low[..., None]) & (pixel < high[..., None]), tf.float32
        )

    x1, y1, x2, y2 = tf.unstack(boxes, axis=-1)
    return touched(y1, y2, height), touched(x1, x2, width)


def _share(mask, rows, columns):
    """(B, M) float32, the share of each box's pixels in which `mask` (B, h, w) is 1."""
    inside = tf.reduce_sum(tf.matmul(rows, mask) * columns, axis=-1)
    area = tf.reduce_sum(rows, axis=-1) * tf.reduce_sum(columns, axis=-1)
    return tf.math.divide_no_nan(inside, area)


def _area(boxes):
    return tf.reduce_prod(boxes[..., 2:] - boxes[..., :2], axis=-1)


def check_epochs(mixer) -> None:
    """Raises a ValueError unless `off_last_epochs` is a number of epochs."""
    if not isinstance(mixer.off_last_epochs, int) or mixer.off_last_epochs < 0:
        raise ValueError(
            "`off_last_epochs` must be a whole number of epochs, 0 for none. "
            f"Received: off_last_epochs={mixer.off_last_epochs}"
        )
