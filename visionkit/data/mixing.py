"""Augmentations that mix the images of a batch, and with them their labels.

They run on the finished batch. Each image has its own draws and a partner, the one
before it: the batch is already in random order, and only in a batch of one is that the
image itself. Of several mixers in a list one is drawn for each batch.
"""

from __future__ import annotations

import dataclasses

from visionkit.data.draws import check_share, split_seed, uniform
from visionkit.data.image_ops import select
from visionkit.data.lazy import tf

MIXING = 2**20
"""What the mixers' draws fold into a sample's seed: no place in a list of transforms,
which is what the others fold into it."""


@dataclasses.dataclass(frozen=True)
class MixUp:
    """Blends each image and its label with its partner's (Zhang et al. 2018, eq. 1).

    Args:
        alpha: Of Beta(alpha, alpha), from which the weight of each image is drawn.
        p: Probability, of each image.
        off_last_epochs: Epochs at the end of the training that mix nothing.
    """

    alpha: float = 0.2
    p: float = 1.0
    off_last_epochs: int = 0
    stage = "batch"
    tasks = ("classification",)

    def __post_init__(self):
        _check(self)

    def __call__(self, images, target, seed):
        """The batch, mixed; see `mix_batches`."""
        own = _own_share(self, tf.shape(images)[0], seed)
        pixels = tf.cast(images, tf.float32)
        pixels = _blend(pixels, own[:, None, None, None])
        images = tf.cast(tf.round(pixels), tf.uint8)
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
        side = tf.sqrt(1 - _own_share(self, batch, share_seed))[:, None]
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
            masks = select(inside, _partner(masks), masks)
            return images, {**target, "segmentation_masks": masks}
        own = 1 - tf.reduce_mean(tf.cast(inside, tf.float32), axis=(1, 2))
        return images, {**target, "labels": _blend(target["labels"], own[:, None])}


def mix_batches(dataset, mixers, order, steps: int, num_classes: int):
    """The batches of a training, mixed.

    Args:
        dataset: Of (images (B, h, w, C) uint8, target dict, seeds (B, 2)), from the
            place that `order` names; labels (B,) int32 or (B, K) float32.
        mixers: `MixUp` and `CutMix` objects, at least one.
        order: The training's `Order`.
        steps: Per epoch.
        num_classes: K.

    Returns:
        A data set of (images, target): labels (B, K) float32, in every batch, mixed or
        not. A function of the seed and the position alone.
    """
    first = order.start_epoch * steps + order.start_step
    off = [mixer.off_last_epochs for mixer in mixers]

    def mix(step, batch):
        images, target, seeds = batch
        if "labels" in target:
            target = {**target, "labels": soft_labels(target["labels"], num_classes)}
        kind_seed, seed = split_seed(tf.random.fold_in(seeds[0], MIXING), 2)
        kind = tf.random.stateless_uniform([], kind_seed, 0, len(mixers), tf.int32)
        if any(off):
            last = tf.constant([order.epochs - epochs for epochs in off], tf.int64)
            kind = tf.where(step // steps < tf.gather(last, kind), kind, len(mixers))
        ways = [lambda mixer=mixer: mixer(images, target, seed) for mixer in mixers]
        return tf.switch_case(kind, [*ways, lambda: (images, target)])

    dataset = dataset.enumerate(first)
    return dataset.map(mix, tf.data.AUTOTUNE, deterministic=True)


def soft_labels(labels, num_classes: int):
    """(B, K) float32 of labels (B,) int32; labels (B, K) stay as they are."""
    if labels.shape.rank == 2:
        return labels
    return tf.one_hot(labels, num_classes)


def _own_share(mixer, batch, seed):
    """(B,) float32 in [0, 1], what each image keeps of itself; 1 where not drawn."""
    *seeds, p_seed = split_seed(seed, 3)
    # A Beta from two Gammas; both may be 0 in float32 where alpha is tiny.
    own, other = (tf.random.stateless_gamma((batch,), s, mixer.alpha) for s in seeds)
    share = tf.math.divide_no_nan(own, own + other)
    return tf.where(uniform(p_seed, 0.0, 1.0, (batch,)) < mixer.p, share, 1.0)


def _partner(values):
    return tf.roll(values, 1, axis=0)


def _blend(values, own):
    other = _partner(values)
    return other + own * (values - other)


def _check(mixer) -> None:
    check_share("p", mixer.p)
    if not 0 < mixer.alpha < float("inf"):
        raise ValueError(f"`alpha` must be above 0. Received: alpha={mixer.alpha}")
    if not isinstance(mixer.off_last_epochs, int) or mixer.off_last_epochs < 0:
        raise ValueError(
            "`off_last_epochs` must be a whole number of epochs, 0 for none. "
            f"Received: off_last_epochs={mixer.off_last_epochs}"
        )
