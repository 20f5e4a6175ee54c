"""Memory over many steps, and how often graphs are traced.

python -m benchmarks.bench_resources visionkit 200 160    # a process that is measured
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys

import numpy as np

from benchmarks.harness import Bench
from benchmarks.peers import MissingPeer, load

STEPS, SETTLED = 200, 50
MOST_GROWTH = 30.0  # MiB, from the settled step to the last
SIDE = 160  # of the images; at 320 the steps alone would take minutes


def memory(bench: Bench) -> None:
    """The most that 200 steps of YOLO n hold, and what grows after the 50th."""
    steps, side = (12, 64) if bench.quick else (STEPS, SIDE)
    ours = _measure_process("visionkit", steps, side)
    try:
        load("keras_cv")
        theirs = _measure_process("keras_cv", steps, side)
        what = f"peak RSS, {steps} steps of YOLO n at {side}, b4"
        bench.limit(what, ours["peak"], theirs["peak"], "MiB", "keras_cv")
        bench.note(
            f"peak {ours['peak'] / theirs['peak']:.3f} of keras_cv's; one process each"
        )
        bench.note(f"keras_cv grew by {theirs['growth']:.1f} MiB")
    except MissingPeer as error:
        bench.skip("keras_cv", str(error))
    settled = min(SETTLED, steps // 2)
    what = f"growth of RSS, step {settled} to {steps}"
    bench.limit(what, ours["growth"], MOST_GROWTH, "MiB")


def traces(bench: Bench) -> None:
    """50 batches of any number of boxes and images of any size: one graph a split."""
    import keras

    import visionkit as vk
    from visionkit.data import Order, make_dataset
    from visionkit.types import Preprocessing

    batches = 6 if bench.quick else 50
    source = _varied_source(4 * batches + 1)  # the last batch is not full
    model = vk.YOLO(vk.build_backbone("csp_darknet_n", (64, 64)), 3)
    model.compile(keras.optimizers.SGD(1e-4), jit_compile=False)
    counts = {
        "train": _count_traces(model, "train_step"),
        "validation": _count_traces(model, "test_step"),
        "answers": _count_traces(model.predictor, "predict_step"),
    }
    preprocessing = Preprocessing((64, 64), "letterbox")
    training = make_dataset(source, preprocessing, 4, order=Order(0))
    evaluation = make_dataset(source, preprocessing, 4)
    model.fit(
        training,
        steps_per_epoch=batches // 2,
        epochs=2,
        validation_data=evaluation,
        verbose=0,
    )
    for split, calls in counts.items():
        if not calls:
            raise RuntimeError(f"No trace of {split!r} was seen: Keras has changed.")
        what = f"traces: {split}, {batches} batches, 1 to 40 boxes, any image size"
        bench.limit(what, len(calls), 1, "traces")


def _count_traces(model, name: str) -> list:
    """A list that grows with each trace of a step: Python runs it only then."""
    step, calls = getattr(model, name), []

    def counted(data):
        calls.append(name)
        return step(data)

    setattr(model, name, counted)
    return calls


def _varied_source(count: int):
    import io

    from PIL import Image

    from benchmarks.pictures import source_of
    from benchmarks.work import draw_boxes

    rng, records = np.random.default_rng(0), []
    for index in range(count):
        height, width = rng.integers(40, 120, 2)
        file = io.BytesIO()
        pixels = rng.integers(0, 256, (height, width, 3), "uint8")
        Image.fromarray(pixels).save(file, "PNG")
        number = 1 + index % 40
        records.append(
            {
                "encoded": file.getvalue(),
                "boxes": draw_boxes(1, number, (int(height), int(width)), index)[0],
                "box_labels": rng.integers(0, 3, number).astype("int32"),
            }
        )
    return source_of(records, "detection", 3)


def _measure_process(name: str, steps: int, side: int) -> dict:
    command = [sys.executable, "-m", __name__, name, str(steps), str(side)]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(output.stdout.splitlines()[-1])


def _train(name: str, steps: int, side: int) -> dict[str, float]:
    """MiB: "peak" of this process, and "growth" since the settled step."""
    from benchmarks import bench_yolo
    from benchmarks.memory import peak_memory
    from benchmarks.work import trained_once

    build = {
        "visionkit": bench_yolo.build_ours,
        "keras_cv": bench_yolo.build_theirs,
    }[name]
    _, step = trained_once(*build((side, side)))
    for done in range(1, steps):
        step()
        if done == min(SETTLED, steps // 2):
            before = _resident()
    return {"peak": peak_memory() * 1e6 / 2**20, "growth": _resident() - before}


def _resident() -> float:
    """MiB that this process holds."""
    import os
    from pathlib import Path

    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


if __name__ == "__main__":
    arguments = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    print(json.dumps(_train(*arguments)))
