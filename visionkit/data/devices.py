"""The devices of this machine."""

from __future__ import annotations

import functools


@functools.cache
def mirrored_strategy():
    """`tf.distribute.MirroredStrategy` over all GPUs, else all logical CPUs."""
    import tensorflow as tf

    kind = "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
    devices = [device.name for device in tf.config.list_logical_devices(kind)]
    return tf.distribute.MirroredStrategy(devices)
