"""Random numbers from a seed, and checks of the ranges they are drawn from."""

from __future__ import annotations

from visionkit.data.lazy import tf


def uniform(seed, low, high, shape=()):
    """Float32 of `shape` in [low, high), from `seed` (2,) alone."""
    return tf.random.stateless_uniform(shape, seed, low, high)


def split_seed(seed, count: int):
    """`count` independent seeds (2,) from one."""
    return tf.unstack(tf.random.split(seed, count))


def check_pair(name, value, low, high):
    """`value` as an ascending pair in [low, high]; an error names `name`."""
    pair = tuple(value) if isinstance(value, list | tuple) else ()
    if len(pair) != 2 or not low <= pair[0] <= pair[1] <= high or pair[1] <= 0:
        raise ValueError(
            f"`{name}` must be two ascending numbers in [{low}, {high}]. "
            f"Received: {name}={value}"
        )
    return pair


def check_share(name, value):
    """Raises a ValueError that names `name` unless `value` is in [0, 1]."""
    if not 0 <= value <= 1:
        raise ValueError(f"`{name}` must be in [0, 1]. Received: {name}={value}")
