"""How many elements of a pipeline are made at once."""

from __future__ import annotations

import os


def without_autotuning(dataset):
    """The data set with as many parallel calls as there are CPU cores, from the start.

    What `tf.data.AUTOTUNE` stands for is then no longer tuned while it is read. With
    TensorFlow 2.21 the end of an iterator waits for the thread that tunes, which at
    times misses that it is to stop and sleeps on: up to a minute after an epoch of a
    minute, with all processors idle.

    Args:
        dataset: A `tf.data.Dataset`; what is made of the result keeps to this as well.
    """
    import tensorflow as tf

    options = tf.data.Options()
    options.autotune.enabled = False
    options.autotune.initial_parallelism = os.cpu_count() or 1
    return dataset.with_options(options)
