"""albumentations in worker processes beside a plain loop and `tf.numpy_function`.

All of them have the decoded images in memory: what is compared is the policy, and what
carries the images to it and into batches.
"""

from __future__ import annotations

import itertools
import os

import numpy as np

from benchmarks.batches import drawing
from benchmarks.goals import at_least
from benchmarks.harness import Bench
from benchmarks.memory import resident_memory
from benchmarks.pictures import SIZE, decode, photographs
from benchmarks.registry import cores_of

BATCH = 32
POLICY = (
    ("CLAHE", {"p": 1.0}),
    ("RandomGamma", {"p": 1.0}),
    ("GaussianBlur", {"p": 1.0}),
    ("Affine", {"rotate": (-15, 15), "p": 1.0}),
)
"""What takes longer than to carry an image to another process."""

WATCHED = 60  # batches over which the memory is watched
MOST_GROWTH = 30.0  # MiB, of its second half's most over that of the first: one batch


def albumentations(bench: Bench) -> None:
    """A policy on as many cores as the benchmark's name says."""
    import tensorflow as tf

    from visionkit.data.albumentations import AlbumentationsPool

    cores, there = cores_of(bench.name), len(os.sched_getaffinity(0))
    if there < cores:
        bench.skip(f"{cores} cores", f"this machine lets {there} be used")
        return
    batch = 4 if bench.quick else BATCH
    images = np.stack([decode(file) for file in photographs(2 * batch)])
    shape = (batch, *SIZE, 3)
    what = f"albumentations' {', '.join(dict(POLICY))}, decoded images, {cores} cores"
    # Not as tensors in the graph, which would be copied into it.
    samples = tf.data.Dataset.from_tensor_slices(np.arange(len(images))).repeat()
    samples = samples.enumerate().map(_read(tf.constant(images)))
    with AlbumentationsPool(POLICY) as pool:
        ours = _batches(pool.apply(samples).map(lambda x: x["images"]), batch)
        bench.compare(
            what,
            drawing("visionkit", bench, ours, shape),
            [
                drawing(
                    "a plain loop", bench, PlainLoop(images, batch), shape, drained=1
                ),
                drawing("numpy_function", bench, _through_numpy(samples, batch), shape),
            ],
            {"a plain loop": at_least(0.75 * cores), "numpy_function": at_least(1.0)},
            unit="img",
        )
        _watch_memory(bench, pool, ours, cores)


class PlainLoop:
    """The policy, image after image, in this thread."""

    def __init__(self, images, batch: int):
        self.images, self.batch = images, batch

    def __iter__(self):
        policy = _policy()
        starts = range(0, len(self.images) - self.batch + 1, self.batch)
        for start in itertools.cycle(starts):
            part = self.images[start : start + self.batch]
            yield (np.stack([policy(image=image)["image"] for image in part]),)


def _policy():
    import albumentations as A
    import cv2

    cv2.setNumThreads(1)  # as in the workers
    return A.Compose([getattr(A, name)(**options) for name, options in POLICY])


def _read(images):
    """What makes the samples of a pool from numbers; without a decoder."""
    import tensorflow as tf

    def read(number, index):
        seed = tf.stack([number, index])
        image_id = tf.cast(index, tf.int32)
        return {"seed": seed, "image_id": image_id, "images": images[index]}

    return read


def _batches(images, batch: int):
    """As visionkit's own pipeline ends."""
    import tensorflow as tf

    from visionkit.data.tuning import without_autotuning

    dataset = images.batch(batch, drop_remainder=True).prefetch(tf.data.AUTOTUNE)
    return without_autotuning(dataset.map(lambda images: (images,)))


def _through_numpy(samples, batch: int):
    """The policy as most tutorials run it under tf.data."""
    import tensorflow as tf

    policy = _policy()
    dataset = samples.map(
        lambda sample: tf.numpy_function(
            lambda image: policy(image=image)["image"], [sample["images"]], tf.uint8
        ),
        tf.data.AUTOTUNE,
    )
    dataset = dataset.map(lambda image: tf.ensure_shape(image, (*SIZE, 3)))
    dataset = dataset.batch(batch, drop_remainder=True).prefetch(tf.data.AUTOTUNE)
    return dataset.map(lambda images: (images,))


def _watch_memory(bench: Bench, pool, batches, cores: int) -> None:
    """A row: whether what is held depends on how many batches were drawn."""
    count = 6 if bench.quick else WATCHED
    held = []
    for _ in zip(range(count), batches, strict=False):
        held.append(resident_memory(os.getpid(), *pool.pids))
    first, second = (max(part) for part in (held[: count // 2], held[count // 2 :]))
    bench.note(
        f"{cores} workers and this process hold {max(held):.0f} MiB at most, memory "
        "that they share counted in each"
    )
    bench.limit(
        f"growth of RSS with {cores} workers, batches {count // 2} to {count}",
        max(second - first, 0.0),
        MOST_GROWTH,
        "MiB",
    )
