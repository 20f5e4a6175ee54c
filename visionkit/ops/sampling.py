"""Balanced random samples of fixed size: which anchors or boxes a loss reads."""

from __future__ import annotations

import math
from typing import NamedTuple

import keras
from keras import ops

from visionkit.ops.gather import gather_rows


class BalancedSample(NamedTuple):
    """Rows that were drawn, padded to a fixed number.

    Attributes:
        index: (B, S) int32, row of each draw; any row where nothing was drawn.
        positive: (B, S) bool.
        negative: (B, S) bool. Neither: nothing was drawn.
    """

    index: object
    positive: object
    negative: object


def sample_balanced(
    positive, negative, num_samples: int, positive_fraction: float, seed
) -> BalancedSample:
    """Draw positives up to a share, and fill up with negatives.

    Each row is drawn once at most, the positives first. The draws of a seed are the
    same on every backend and device, compiled or not. Where negatives are short the
    sample stays smaller (Ren et al. 2015, "Faster R-CNN", section 3.1.3).

    Args:
        positive: (B, A) bool.
        negative: (B, A) bool, nowhere together with `positive`.
        num_samples: S, the number of draws per image; at most A, where A is static.
        positive_fraction: Largest share of positives, 0 < f <= 1.
        seed: An integer or a `keras.random.SeedGenerator`.

    Returns:
        `BalancedSample` of S rows per image.

    Raises:
        ValueError: An argument is out of range.
    """
    if num_samples < 1 or not 0.0 < positive_fraction <= 1.0:
        raise ValueError(
            "`num_samples` must be at least 1 and `positive_fraction` in (0, 1]. "
            f"Received: num_samples={num_samples}, "
            f"positive_fraction={positive_fraction}"
        )
    num_samples = min(num_samples, positive.shape[1] or num_samples)
    num_positives = most_positives(num_samples, positive_fraction)
    # The second draw is as random as the first: no row takes part in both.
    noise = uniform_noise(ops.shape(positive), seed)
    chosen, count = _draw(positive, noise, num_positives)
    others, others_count = _draw(negative, noise, num_samples)

    # Slot j is the j-th positive, or after the last of them the next negative.
    slot = ops.arange(num_samples, dtype="int32")[None]
    is_positive = slot < count
    is_negative = ~is_positive & (slot - count < others_count)
    rows = ops.concatenate([chosen, others], axis=1)
    position = ops.where(is_positive, slot, num_positives + slot - count)
    return BalancedSample(gather_rows(rows, position), is_positive, is_negative)


def most_positives(num_samples: int, positive_fraction: float) -> int:
    """How many rows of a sample may be positive, at least 1: its first ones."""
    return max(1, round(num_samples * positive_fraction))


def uniform_noise(shape, seed):
    """Random numbers in [0, 1), float32, equal wherever they are computed.

    (A backend's own generator gives others under XLA than without it.) Each number is a
    hash of its position and the seed: two rounds of MurmurHash3's 32-bit finaliser.

    Args:
        shape: Sizes, integers or scalar tensors.
        seed: An integer or a `keras.random.SeedGenerator`.
    """
    if isinstance(seed, keras.random.SeedGenerator):
        keys = ops.cast(seed.next(), "uint32")
    else:
        keys = ops.convert_to_tensor([seed % 2**32, 0], "uint32")
    position = ops.reshape(ops.arange(math.prod(shape), dtype="int32"), shape)
    bits = _mix(ops.cast(position, "uint32") + _mix(keys[0]))
    bits = _mix(ops.bitwise_xor(bits, _mix(keys[1] + _word(0x9E3779B9))))
    # The upper 24 bits are what a float32 can hold.
    return ops.cast(ops.right_shift(bits, _word(8)), "float32") * 2.0**-24


def _mix(x):
    x = ops.bitwise_xor(x, ops.right_shift(x, _word(16))) * _word(0x85EBCA6B)
    x = ops.bitwise_xor(x, ops.right_shift(x, _word(13))) * _word(0xC2B2AE35)
    return ops.bitwise_xor(x, ops.right_shift(x, _word(16)))


def _word(value: int):
    return ops.convert_to_tensor(value, "uint32")


def _draw(candidates, noise, count: int):
    """`count` random rows, candidates first, and (B, 1) how many of them are."""
    noise = ops.where(candidates, noise, -1.0)
    num_rows = ops.shape(noise)[1]
    if noise.shape[1] is None:  # any number: so that there are enough
        noise = ops.pad(noise, ((0, 0), (0, count)), constant_values=-1.0)
    _, rows = ops.top_k(noise, count)
    found = ops.sum(ops.cast(candidates, "int32"), axis=1, keepdims=True)
    rows = ops.minimum(ops.cast(rows, "int32"), num_rows - 1)
    return rows, ops.minimum(found, count)
