"""Training from files beside training on one batch that is there already."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

from benchmarks.goals import at_most
from benchmarks.harness import Bench, Side
from benchmarks.pictures import photographs

CLASSES = 10
DRAWN = 40  # batches over which the pipeline's own time is taken


def fed(bench: Bench) -> None:
    """MobileNetV2 at 224: read, decode, crop, flip and train; or only train."""
    import keras
    import tensorflow as tf

    import visionkit as vk
    from benchmarks.work import check_losses, trained_once

    side, batch, steps = (64, 4, 1) if bench.quick else (224, 16, 4)
    model = vk.ImageClassifier(vk.build_backbone("mobilenet_v2", (side, side)), CLASSES)
    model.compile(keras.optimizers.SGD(1e-3, momentum=0.9), jit_compile=False)
    with tempfile.TemporaryDirectory() as folder:
        dataset = _pipeline(folder, (side, side), batch)
        images, labels = next(iter(dataset))
        losses, _ = trained_once(model, images, labels)
        check_losses("visionkit", losses)
        cached = tf.data.Dataset.from_tensors((images, labels)).cache().repeat()
        sides = [
            _training("visionkit", model, dataset, steps),
            _training("a cached batch", model, cached, steps),
        ]
        bench.compare(
            f"MobileNetV2: {steps} train steps from JPEG files, {side}, b{batch}",
            sides[0],
            sides[1:],
            {"a cached batch": at_most(1.05)},
            warm_ups=1,
        )
        drawn = 4 if bench.quick else DRAWN
        pipeline = _seconds_of_batch(dataset, drawn)
        step = _seconds_of_step(sides[1], steps)
    bench.note(
        f"on the processor a batch of the pipeline takes {1e3 * pipeline:.0f} ms and a "
        f"cached step {1e3 * step:.0f} ms, all threads together: a share of "
        f"{pipeline / step:.1%}. Both have the same "
        f"{len(os.sched_getaffinity(0))} cores here, so that a ratio of 1 plus that "
        "share is no waiting for data but their work."
    )


def _pipeline(folder: str, size, batch: int):
    """Files in folders by class, decoded, cropped at random, flipped, in batches."""
    from visionkit.data import Order, make_dataset
    from visionkit.data.sources.image_folder import ImageFolder
    from visionkit.data.transforms import build_transforms
    from visionkit.types import Preprocessing

    for index, file in enumerate(photographs()):
        path = Path(folder) / str(index % CLASSES) / f"{index}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(file)
    transforms = build_transforms(
        [{"crop": {"scale": [0.08, 1.0]}}, "flip"], "classification"
    )
    source, preprocessing = ImageFolder(folder), Preprocessing(size, "stretch")
    return make_dataset(
        source, preprocessing, batch, transforms=transforms, order=Order(seed=0)
    )


def _training(name: str, model, dataset, steps: int) -> Side:
    """Some steps, after one in which the pipeline starts."""
    running: list = []

    def begin():
        running[:] = [iter(dataset)]
        model.train_function(running[0])

    def run():
        for _ in range(steps):
            model.train_function(running[0])

    return Side(name, run, begin, after=running.clear)


def _seconds_of_batch(dataset, count: int) -> float:
    """Of all threads, once its buffers are full."""
    batches = iter(dataset)
    for _ in range(count // 4):
        next(batches)
    begin = time.process_time()
    for _ in range(count):
        next(batches)
    return (time.process_time() - begin) / count


def _seconds_of_step(side: Side, steps: int) -> float:
    """Of all threads."""
    side.before()
    begin = time.process_time()
    side.run()
    seconds = time.process_time() - begin
    side.after()
    return seconds / steps
