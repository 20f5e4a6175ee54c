"""Augmentations that mix the images of a batch, and with them their labels.

They run on the finished batch. Each image has its own draws and a partner, the one
before it: the batch is already in random order, and only in a batch of one is that the
image itself. Of several mixers in a list one is drawn for each batch, since shares of
classes are not mixed twice; those for boxes run one after another (`box_mixing.py`).
"""

from __future__ import annotations

import dataclasses

from visionkit.data.box_mixing import check_epochs, join_partner
from visionkit.data.draws import check_share, split_seed, uniform
from visionkit.data.image_ops import select
from visionkit.data.lazy import tf

MIXING = 2**20
"""What the mixers' draws fold into a sample's seed: no place in a list of transforms,
which is what the others fold into it."""

CLASS_ALPHA = 0.2  # Zhang et al. 2018, section 3.1: 0.1 to 0.4 for ImageNet
BOX_ALPHA = 32.0  # weights of 0.5 with a standard deviation of 0.06


@dataclasses.dataclass(frozen=True)
class MixUp:
    """Blends each image and its label with its partner's (Zhang et al. 2018, eq. 1).

    A mask becomes the shares of the classes at each pixel; what is void in one of two
    blended images is void in the blend. With boxes, a blended image has those of both,
    all in full, so that both should be seen: half and half in YOLOX (Ge et al. 2021),
    and about that by default.

    Args:
        alpha: Of Beta(alpha, alpha), from which the weight of each image is drawn. By
            default 0.2 for classes and masks, and 32 for boxes.
        p: Probability, of each image.
        off_last_epochs: Epochs at the end of the training that mix nothing.
    """

    alpha: float | None = None
    p: float = 1.0
    off_last_epochs: int = 0
    stage = "batch"
    tasks = ("classification", "detection", "semantic_segmentation")
    images = 2

    def __post_init__(self):
        _check(self)

    def __call__(self, images, target, seed):
        """The batch, mixed; see `mix_batches`."""
        has_boxes = "boxes" in target
        alpha = self.alpha or (BOX_ALPHA if has_boxes else CLASS_ALPHA)
        own = _own_share(alpha, self.p, tf.shape(images)[0], seed)
        pixels = tf.cast(images, tf.float32)
        pixels = _blend(pixels, own[:, None, None, None])
        images = tf.cast(tf.round(pixels), tf.uint8)
        if has_boxes:
            return images, join_partner(target, own < 1)
        if "segmentation_masks" in target:
            masks = _blend_masks(target["segmentation_masks"], own)
            return images, {**target, "segmentation_masks": masks}
        return images, {**target, "labels": _blend(target["labels"], own[:, None])}


@dataclasses.dataclass(frozen=True)
class CutMix:
    """Pastes a window of its partner into each image (Yun et al. 2019, section 3.1).

    The window lies at the same place in both, may be cut off by the border, and takes
    its pixels of a mask along. A label's share is its share of the pixels.

    Args:
        alpha: Of Beta(alpha, alpha), from which the share that is kept is drawn.
        p: Probability, of each image.
        off_last_epochs: Epochs at the end of the training that mix nothing.
    """

    alpha: float = 1.0
    p: float = 1.0
    off_last_epochs: int = 0
    stage = "batch"
    tasks = ("classification", "semantic_segmentation")

    def __post_init__(self):
        _check(self)

    def __call__(self, images, target, seed):
        """The batch, mixed; see `mix_batches`."""
        share_seed, place_seed = split_seed(seed, 2)
        batch, size = tf.shape(images)[0], tf.shape(images)[1:3]
        real = tf.cast(size, tf.float32)
        own = _own_share(self.alpha, self.p, batch, share_seed)
        side = tf.sqrt(1 - own)[:, None]
        window = tf.cast(tf.round(side * real), tf.int32)
        centre = tf.cast(uniform(place_seed, 0.0, 1.0, (batch, 2)) * real, tf.int32)
        low = tf.maximum(centre - window // 2, 0)
        high = tf.minimum(centre - window // 2 + window, size)
        rows, columns = (
            (tf.range(size[i]) >= low[:, i, None])
            & (tf.range(size[i]) < high[:, i, None])
            for i in (0, 1)
        )
        inside = rows[:, :, None] & columns[:, None, :]
        images = select(inside[..., None], _partner(images), images)
        if "segmentation_masks" in target:
            masks = target["segmentation_masks"]
            if masks.dtype.is_floating:
                masks = tf.where(inside[..., None], _partner(masks), masks)
            else:
                masks = select(inside, _partner(masks), masks)
            return images, {**target, "segmentation_masks": masks}
        own = 1 - tf.reduce_mean(tf.cast(inside, tf.float32), axis=(1, 2))
        return images, {**target, "labels": _blend(target["labels"], own[:, None])}


def mix_batches(dataset, mixers, order, steps: int, num_classes: int):
    """The batches of a training, mixed.

    Args:
        dataset: Of (images (B, h, w, C) uint8, target dict, seeds (B, 2)), from the
            place that `order` names; labels (B,) int32 or (B, K) float32, or (B, M)
            int32 beside boxes (B, M, 4); masks (B, h, w) uint8.
        mixers: Transforms of the stage "batch", at least one.
        order: The training's `Order`.
        steps: Per epoch.
        num_classes: K.

    Returns:
        A data set of (images, target): labels without boxes (B, K) float32, in every
        batch, mixed or not; where there is a `MixUp` masks (B, h, w, K) float32. A
        function of the seed and the position alone.
    """
    first = order.start_epoch * steps + order.start_step

    def mix(step, batch):
        images, target, seeds = batch
        seed = tf.random.fold_in(seeds[0], MIXING)
        last = [None] * len(mixers)  # the first epoch without each
        if any(mixer.off_last_epochs for mixer in mixers):
            last = [order.epochs - mixer.off_last_epochs for mixer in mixers]
        ways = zip(mixers, last, strict=True)
        if "boxes" in target:
            return _mix_in_turn(images, target, ways, step // steps, seed)
        if "labels" in target:
            target = {**target, "labels": soft_labels(target["labels"], num_classes)}
        elif any(isinstance(mixer, MixUp) for mixer in mixers):
            masks = tf.one_hot(target["segmentation_masks"], num_classes)  # void: all 0
            target = {**target, "segmentation_masks": masks}
        return _mix_one(images, target, ways, step // steps, seed)

    dataset = dataset.enumerate(first)
    return dataset.map(mix, tf.data.AUTOTUNE, deterministic=True)


def _mix_one(images, target, mixers, epoch, seed):
    """The batch, mixed by one of the mixers, or by none where its time is over."""
    mixers, last = zip(*mixers, strict=True)
    kind_seed, seed = split_seed(seed, 2)
    kind = tf.random.stateless_uniform([], kind_seed, 0, len(mixers), tf.int32)
    if None not in last:
        last = tf.constant(last, tf.int64)
        kind = tf.where(epoch < tf.gather(last, kind), kind, len(mixers))
    ways = [lambda mixer=mixer: mixer(images, target, seed) for mixer in mixers]
    return tf.switch_case(kind, [*ways, lambda: (images, target)])


def _mix_in_turn(images, target, mixers, epoch, seed):
    """The batch, mixed by each of the mixers whose time is not over."""
    for position, (mixer, last) in enumerate(mixers):
        own_seed = tf.random.fold_in(seed, position)
        if last is None:
            images, target = mixer(images, target, own_seed)
            continue
        images, target = tf.cond(
            epoch < last,
            lambda m=mixer, x=images, y=target, s=own_seed: m(x, y, s),
            lambda x=images, y=target: (x, y),
        )
    return images, target


def soft_labels(labels, num_classes: int):
    """(B, K) float32 of labels (B,) int32; labels (B, K) stay as they are."""
    if labels.shape.rank == 2:
        return labels
    return tf.one_hot(labels, num_classes)


def _own_share(alpha, p, batch, seed):
    """(B,) float32 in [0, 1], what each image keeps of itself; 1 where not drawn."""
    *seeds, p_seed = split_seed(seed, 3)
    # A Beta from two Gammas; both may be 0 in float32 where alpha is tiny.
    own, other = (tf.random.stateless_gamma((batch,), s, alpha) for s in seeds)
    share = tf.math.divide_no_nan(own, own + other)
    return tf.where(uniform(p_seed, 0.0, 1.0, (batch,)) < p, share, 1.0)


def _partner(values):
    return tf.roll(values, 1, axis=0)


def _blend(values, own):
    other = _partner(values)
    return other + own * (values - other)


def _blend_masks(masks, own):
    """Shares (B, h, w, K) blended; zeros where a part of the blend is void."""
    seen = tf.reduce_any(masks > 0, axis=-1, keepdims=True)
    own = own[:, None, None, None]
    return tf.where((seen & _partner(seen)) | (own == 1), _blend(masks, own), 0.0)


def _check(mixer) -> None:
    check_share("p", mixer.p)
    if mixer.alpha is not None and not 0 < mixer.alpha < float("inf"):
        raise ValueError(f"`alpha` must be above 0. Received: alpha={mixer.alpha}")
    check_epochs(mixer)
