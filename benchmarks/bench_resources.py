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
        bench.share(
            f"peak RSS, {steps} steps of YOLO n at {side}, b4",
            ours["peak"],
            "keras_cv",
            theirs["peak"],
            1.0,
            "MiB",
            lambda: _stages({"visionkit": ours, "keras_cv": theirs}),
        )
        growth = theirs["last step"] - theirs["settled"]
        bench.note(f"one process each; keras_cv grew by {growth:.1f} MiB")
    except MissingPeer as error:
        bench.skip("keras_cv", str(error))
    settled = min(SETTLED, steps // 2)
    what = f"growth of RSS, step {settled} to {steps}"
    growth = ours["last step"] - ours["settled"]
    bench.limit(
        what,
        growth,
        MOST_GROWTH,
        "MiB",
        explain=lambda: _stages({"visionkit": ours}),
    )


def _stages(found: dict[str, dict[str, float]]) -> list[str]:
    """A table in Markdown of what each process held by then."""
    stages = next(iter(found.values()))
    lines = ["MiB held:", "", "| | " + " | ".join(stages) + " |"]
    lines.append("|" + "---|" * (len(stages) + 1))
    for name, held in found.items():
        figures = " | ".join(f"{held[stage]:,.0f}" for stage in stages)
        lines.append(f"| {name} | {figures} |")
    return [*lines, ""]


def traces(bench: Bench) -> None:
    """50 batches of any number of boxes and images of any size: one graph a split.

    Raises:
        RuntimeError: A split has another number; it is an error, and not slowness.
    """
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
            raise RuntimeError(f"No trace of {split!r} was seen: has Keras changed?")
        what = f"traces: {split}, {batches} batches, 1 to 40 boxes, any image size"
        bench.limit(what, len(calls), 1, "traces")
    often = [split for split, calls in counts.items() if len(calls) > 1]
    if often:
        raise RuntimeError(f"Traced more than once: {', '.join(often)}.")


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
    """MiB that this process holds after each stage, and its "peak"."""
    from benchmarks import bench_yolo
    from benchmarks.memory import peak_memory
    from benchmarks.work import trained_once

    build = {
        "visionkit": bench_yolo.build_ours,
        "keras_cv": bench_yolo.build_theirs,
    }[name]
    training = build((side, side))
    held = {"built": _resident()}
    _, step = trained_once(*training)
    held["first step"] = _resident()
    for done in range(1, steps):
        step()
        if done == min(SETTLED, steps // 2):
            held["settled"] = _resident()
    peak = peak_memory() * 1e6 / 2**20
    return {**held, "last step": _resident(), "peak": peak}


def _resident() -> float:
    """MiB that this process holds."""
    import os

    from benchmarks.memory import resident_memory

    gc.collect()
    return resident_memory(os.getpid())


if __name__ == "__main__":
    arguments = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    print(json.dumps(_train(*arguments)))
