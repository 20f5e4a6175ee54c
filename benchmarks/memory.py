"""Peak memory of a training step of Mask R-CNN, by model and number of instances.

    python benchmarks/memory.py [--models small resnet50] [--instances 1 100]
        [--image-size 512 512] [--batch-size 1] [--out benchmarks/results]

Each row is a process of its own that builds the model, trains it for a few steps on
drawn numbers, and reports the most memory that it has held: of the process, and on a
GPU of the device. The table says what it ran on.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import resource
import sys
import time
from pathlib import Path

STEPS = 2  # the first one traces the graph

HEAD = (
    "model",
    "parameters",
    "instances",
    "batch",
    "before the step, MB",
    "peak, MB",
    "peak of the device, MB",
    "s per step",
)


def main() -> None:
    """Measure each model with each number of instances, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--instances", nargs="+", type=int, default=[1, 100])
    parser.add_argument("--image-size", nargs=2, type=int, default=[512, 512])
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--out", default="benchmarks/results")
    arguments = parser.parse_args()
    folder = Path(arguments.out)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{time.strftime('%Y-%m-%d')}-memory.md"
    context, rows = multiprocessing.get_context("spawn"), []
    for model in arguments.models:
        for instances in arguments.instances:
            job = (model, instances, arguments.batch_size, tuple(arguments.image_size))
            with context.Pool(1) as pool:
                row, machine = pool.apply(measure, job)
            rows.append(row)
            table = _table(rows, machine, arguments)
            file.write_text(table)
            print(table, flush=True)


def measure(name: str, instances: int, batch_size: int, image_size):
    """The row of one model, and a sentence on where it ran."""
    from visionkit._quiet import quiet_start

    with quiet_start():
        import keras
        import numpy as np

    keras.utils.set_random_seed(0)
    model = MODELS[name](image_size)
    model.compile(keras.optimizers.SGD(1e-4, momentum=0.9))
    model.optimizer.build(model.trainable_variables)
    images, target = _batch(np.random.default_rng(0), batch_size, instances, image_size)
    before = peak_memory()
    for _ in range(STEPS):
        start = time.perf_counter()
        logs = model.train_on_batch(images, target, return_dict=True)
        seconds = time.perf_counter() - start
    if not np.isfinite(list(logs.values())).all():
        raise ArithmeticError(f"The losses are no numbers: {logs}")
    device, device_peak = _device()
    row = (
        name,
        f"{model.count_params():,}",
        str(instances),
        str(batch_size),
        f"{before:,.0f}",
        f"{peak_memory():,.0f}",
        device_peak,
        f"{seconds:.2f}",
    )
    machine = (
        f"{device}, {os.cpu_count()} cores ({platform.machine()}), Python "
        f"{platform.python_version()}, Keras {keras.__version__} on "
        f"{keras.backend.backend()} {_version(keras.backend.backend())}"
    )
    return row, machine


def small(image_size):
    """MobileNetV2 0.35, 64 channels."""
    import visionkit as vk

    return vk.MaskRCNN(
        vk.build_backbone("mobilenet_v2_035", image_size),
        80,
        {"channels": 64},
        neck={"channels": 64},
        rpn={"num_proposals": 256},
        roi={"num_samples": 128, "units": 256},
    )


def resnet50(image_size):
    """As published."""
    import visionkit as vk

    return vk.MaskRCNN(vk.build_backbone("resnet50", image_size), 80)


MODELS = {"small": small, "resnet50": resnet50}


def _batch(rng, batch_size: int, instances: int, image_size):
    """Images and objects of all sizes, their masks framed by their boxes."""
    import numpy as np

    from visionkit.types import MASK_SIZE

    shape = (batch_size, instances)
    sides = 2 ** rng.uniform(4, 8, (*shape, 2))
    corners = rng.uniform(0, 1, (*shape, 2)) * (np.array(image_size[::-1]) - sides)
    target = {
        "boxes": np.concatenate([corners, corners + sides], -1).astype("float32"),
        "labels": rng.integers(0, 80, shape).astype("int32"),
        "masks": (rng.random((*shape, MASK_SIZE, MASK_SIZE)) < 0.5).astype("uint8"),
    }
    images = rng.integers(0, 256, (batch_size, *image_size, 3), "uint8")
    return images, target


def peak_memory() -> float:
    """The most memory that this process has held, in MB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def resident_memory(*processes: int) -> float:
    """MiB that these processes hold now, what they share counted in each.

    Args:
        processes: Their ids; on Linux.
    """
    pages = 0
    for process in processes:
        pages += int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def _device() -> tuple[str, str]:
    """The name of the first GPU and the most memory held there in MB, as texts."""
    import keras

    if keras.backend.backend() == "jax":
        import jax

        device = jax.devices()[0]
        if device.platform == "cpu":
            return "no GPU", "-"
        peak = device.memory_stats()["peak_bytes_in_use"]
        return device.device_kind, f"{peak / 1e6:,.0f}"
    import tensorflow as tf

    devices = tf.config.list_physical_devices("GPU")
    if not devices:
        return "no GPU", "-"
    name = tf.config.experimental.get_device_details(devices[0])["device_name"]
    peak = tf.config.experimental.get_memory_info("GPU:0")["peak"]
    return name, f"{peak / 1e6:,.0f}"


def _version(backend: str) -> str:
    import importlib.metadata

    return importlib.metadata.version(backend)


def _table(rows, machine: str, arguments) -> str:
    height, width = arguments.image_size
    lines = [
        f"# Memory of a training step of Mask R-CNN at {height}x{width}",
        "",
        f"{machine}, {time.strftime('%Y-%m-%d')}. float32, SGD with momentum. Small: "
        f"{small.__doc__[:-1]}; resnet50: as published. Peak: of the whole process, "
        "with what it held before.",
        "",
        "| " + " | ".join(HEAD) + " |",
        "|" + "---|" * len(HEAD),
        *("| " + " | ".join(row) + " |" for row in rows),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
