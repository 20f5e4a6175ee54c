"""The benchmarks by name, each "module:function" of one argument, a `Bench`."""

from __future__ import annotations

BENCHES = {
    "C1": "bench_start:imports",
    "C2": "bench_yolo:start",
    "C3": "bench_yolo:step",
    "C4": "bench_training:classifiers",
    "C5": "bench_training:deeplab",
    "C6": "bench_training:retinanet",
    "C7": "bench_boxes:assignment",
    "C8": "bench_boxes:suppression",
    "C9": "bench_export:exported",
    "C10a": "bench_input:classification",
    "C10b": "bench_input:detection",
    "C11": "bench_metrics:coco",
    "C12": "bench_metrics:mean_iou",
    "C13": "bench_resources:memory",
    "C14": "bench_resources:traces",
    "fed": "bench_fed:fed",
    "losses": "bench_detectors:losses",
    "regions": "bench_detectors:regions",
    "evaluation": "bench_detectors:evaluation",
    "encoded": "bench_export:encoded",
    "albumentations": "bench_policies:albumentations",
    "albumentations-4": "bench_policies:albumentations",
    "albumentations-8": "bench_policies:albumentations",
    "albumentations-16": "bench_policies:albumentations",
    "commands": "bench_start:commands",
    "pasting": "bench_boxes:pasting",
}

CORES = 2
"""What every benchmark has, however many the machine has."""

MORE_CORES = {"albumentations-4": 4, "albumentations-8": 8, "albumentations-16": 16}
"""What those have that are a curve over the cores."""

NOT_RUN = (
    "**G1 to G12, the benchmarks on a GPU, are NOT RUN by this suite: they need a "
    "data-centre GPU. Nothing here says anything about them.**"
)


def cores_of(name: str) -> int:
    """How many cores a benchmark is given."""
    return MORE_CORES.get(name, CORES)
