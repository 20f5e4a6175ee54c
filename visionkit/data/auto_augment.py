"""RandAugment and AutoAugment: published sets of operations, drawn at random."""

from __future__ import annotations

import dataclasses

import numpy as np

from visionkit._spelling import check_name
from visionkit.data import image_ops
from visionkit.data.draws import split_seed, uniform
from visionkit.data.lazy import tf

MAX_MAGNITUDE = 30
"""Largest of RandAugment: the paper's studies go from 0 to 30."""

SIGNED = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")
"""Operations whose direction is drawn in both methods."""

ENHANCE = ("brightness", "color", "contrast", "sharpness")

RAND_AUGMENT_OPS = (
    *("identity", "auto_contrast", "equalize", "rotate", "solarize", "color"),
    *("posterize", "contrast", "brightness", "sharpness"),
    *("shear_x", "shear_y", "translate_x", "translate_y"),
)
"""Cubuk et al. 2020, section 3."""

# Cubuk et al. 2019, tables 7 (CIFAR-10) and 9 (ImageNet): two operations each with
# probability and magnitude of 0..9 ("-": it has none).
SUB_POLICIES = {
    "cifar10": """
        invert 0.1 -, contrast 0.2 6
        rotate 0.7 2, translate_x 0.3 9
        sharpness 0.8 1, sharpness 0.9 3
        shear_y 0.5 8, translate_y 0.7 9
        auto_contrast 0.5 -, equalize 0.9 -
        shear_y 0.2 7, posterize 0.3 7
        color 0.4 3, brightness 0.6 7
        sharpness 0.3 9, brightness 0.7 9
        equalize 0.6 -, equalize 0.5 -
        contrast 0.6 7, sharpness 0.6 5
        color 0.7 7, translate_x 0.5 8
        equalize 0.3 -, auto_contrast 0.4 -
        translate_y 0.4 3, sharpness 0.2 6
        brightness 0.9 6, color 0.2 8
        solarize 0.5 2, invert 0.0 -
        equalize 0.2 -, auto_contrast 0.6 -
        equalize 0.2 -, equalize 0.6 -
        color 0.9 9, equalize 0.6 -
        auto_contrast 0.8 -, solarize 0.2 8
        brightness 0.1 3, color 0.7 0
        solarize 0.4 5, auto_contrast 0.9 -
        translate_y 0.9 9, translate_y 0.7 9
        auto_contrast 0.9 -, solarize 0.8 3
        equalize 0.8 -, invert 0.1 -
        translate_y 0.7 9, auto_contrast 0.9 -
    """,
    "imagenet": """
        posterize 0.4 8, rotate 0.6 9
        solarize 0.6 5, auto_contrast 0.6 -
        equalize 0.8 -, equalize 0.6 -
        posterize 0.6 7, posterize 0.6 6
        equalize 0.4 -, solarize 0.2 4
        equalize 0.4 -, rotate 0.8 8
        solarize 0.6 3, equalize 0.6 -
        posterize 0.8 5, equalize 1.0 -
        rotate 0.2 3, solarize 0.6 8
        equalize 0.6 -, posterize 0.4 6
        rotate 0.8 8, color 0.4 0
        rotate 0.4 9, equalize 0.6 -
        equalize 0.0 -, equalize 0.8 -
        invert 0.6 -, equalize 1.0 -
        color 0.6 4, contrast 1.0 8
        rotate 0.8 8, color 1.0 2
        color 0.8 8, solarize 0.8 7
        sharpness 0.4 7, invert 0.6 -
        shear_x 0.6 5, equalize 1.0 -
        color 0.4 0, equalize 0.6 -
        equalize 0.4 -, solarize 0.2 4
        solarize 0.6 5, auto_contrast 0.6 -
        invert 0.6 -, equalize 1.0 -
        color 0.6 4, contrast 1.0 8
        equalize 0.8 -, equalize 0.6 -
    """,
}
"""Name -> 25 sub-policies."""


@dataclasses.dataclass(frozen=True)
class RandAugment:
    """Some operations, drawn evenly from 14, all of one strength (Cubuk et al. 2020).

    Args:
        num_ops: Operations one after another, N in the paper.
        magnitude: Strength, M in the paper: 10 is the end of AutoAugment's ranges, up
            to 30 goes beyond. What has two directions takes either; posterize and
            solarize change more with a larger magnitude, as the others do.
    """

    num_ops: int = 2
    magnitude: float = 9
    stage = "input"
    tasks = ("classification",)

    def __post_init__(self):
        if not isinstance(self.num_ops, int) or self.num_ops < 1:
            raise ValueError(
                f"`num_ops` must be 1 or more. Received: num_ops={self.num_ops}"
            )
        if not 0 <= self.magnitude <= MAX_MAGNITUDE:
            raise ValueError(
                f"`magnitude` must be in [0, {MAX_MAGNITUDE}]. "
                f"Received: magnitude={self.magnitude}"
            )

    def __call__(self, sample, seed):
        """The sample with its image changed."""
        image, level = sample["images"], self.magnitude / 10
        count = len(RAND_AUGMENT_OPS)
        for op_seed in split_seed(seed, self.num_ops):
            which, sign = split_seed(op_seed, 2)
            which = tf.random.stateless_uniform([], which, 0, count, tf.int32)
            image = _apply(RAND_AUGMENT_OPS, which, image, level * _sign(sign))
        return {**sample, "images": image}


@dataclasses.dataclass(frozen=True)
class AutoAugment:
    """One of 25 learnt pairs of operations, drawn evenly (Cubuk et al. 2019).

    Args:
        policy: The data it was learnt on: "imagenet" or "cifar10".
    """

    policy: str = "imagenet"
    stage = "input"
    tasks = ("classification",)

    def __post_init__(self):
        check_name("AutoAugment policy", self.policy, SUB_POLICIES)

    def __call__(self, sample, seed):
        """The sample with its image changed."""
        pair_seed, *op_seeds = split_seed(seed, 3)
        names, table = _policy_table(self.policy)
        pair = tf.random.stateless_uniform([], pair_seed, 0, len(table), tf.int32)
        rows = tf.constant(table)[pair]
        image = sample["images"]
        for row, op_seed in zip(tf.unstack(rows), op_seeds, strict=True):
            p_seed, sign_seed = split_seed(op_seed, 2)
            which, p, level, signed = tf.unstack(row)
            drawn = uniform(p_seed, 0.0, 1.0) < p
            which = tf.where(drawn, tf.cast(which, tf.int32), 0)
            level = tf.where(signed > 0, level * _sign(sign_seed), level)
            image = _apply(names, which, image, level)
        return {**sample, "images": image}


def _policy_table(policy: str) -> tuple[list[str], np.ndarray]:
    """("identity" and the names of its operations, (25, 2, 4) float32 table).

    A row is [position of the operation, probability, level, whether it is signed].
    """
    pairs = [
        [spec.split() for spec in line.split(",")]
        for line in SUB_POLICIES[policy].strip().splitlines()
    ]
    names = ["identity", *sorted({name for pair in pairs for name, *_ in pair})]
    table = [
        [
            [names.index(name), float(p), _level(name, magnitude), name in SIGNED]
            for name, p, magnitude in pair
        ]
        for pair in pairs
    ]
    return names, np.array(table, np.float32)


def _level(name: str, magnitude: str) -> float:
    """The level of `image_ops` for one of the ten magnitudes, evenly over the range.

    Table 6 gives factors of 0.1 to 1.9, so a magnitude below the middle is less
    colour, and one above it is more.
    """
    share = 0.0 if magnitude == "-" else int(magnitude) / 9
    return 2 * share - 1 if name in ENHANCE else share


def _apply(names, which, image, level):
    """The operation number `which` of `names` done to the image."""

    def way(name):
        operation = getattr(image_ops, name)
        return lambda: tf.ensure_shape(operation(image, level), image.shape)

    return tf.switch_case(which, [way(name) for name in names])


def _sign(seed):
    return tf.where(uniform(seed, -1.0, 1.0) < 0, -1.0, 1.0)
