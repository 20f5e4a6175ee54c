"""Bit-equal runs."""

from __future__ import annotations


def make_deterministic() -> None:
    """Make TensorFlow's kernels and pipelines deterministic, for the whole process.

    The same program on the same machine and versions then gives the same bits. It
    cannot be undone, costs speed, and an operation without a deterministic kernel
    raises `UnimplementedError`.
    """
    import tensorflow as tf

    tf.config.experimental.enable_op_determinism()
