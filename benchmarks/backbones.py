"""Backbones side by side on one data set: accuracy, size and time, as a dated table.

    python benchmarks/backbones.py RECIPE [key=value ...]
        --backbones mobilenet_v2=WEIGHTS resnet18 ... [--out benchmarks/results]

The recipe is trained once per backbone with everything else alike; `NAME=FILE` starts
from a weight file, a bare NAME from scratch. The table says what it ran on; it is
written after each backbone, so that a run that is ended leaves its rows.
"""

from __future__ import annotations

import argparse
import platform
import time
from pathlib import Path

from visionkit._quiet import quiet_start


def main() -> None:
    """Train each backbone and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("recipe")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    parser.add_argument("--backbones", nargs="+", required=True)
    parser.add_argument("--runs", default="runs/backbones", help="run folders")
    parser.add_argument("--out", default="benchmarks/results")
    parser.add_argument("--note", default="", help="a sentence for the table's head")
    arguments = parser.parse_intermixed_args()
    with quiet_start():
        import keras

        from visionkit.training.run import run

    folder = Path(arguments.out)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{time.strftime('%Y-%m-%d')}-backbones.md"
    rows = []
    for spec in arguments.backbones:
        name, _, weights = spec.partition("=")
        overrides = [
            *arguments.overrides,
            f"model.backbone={name}",
            f"model.weights={weights or 'null'}",
        ]
        start = time.perf_counter()
        out = Path(arguments.runs) / f"{name}-{time.strftime('%H%M%S')}"
        done = run(arguments.recipe, overrides=overrides, out=out)
        seconds = time.perf_counter() - start
        rows.append(
            (
                name,
                "ImageNet" if weights else "scratch",
                f"{done.model.count_params():,}",
                f"{done.metrics['accuracy']:.4f}",
                f"{sum(done.history['seconds']) / len(done.history['seconds']):.1f}",
                f"{seconds / 60:.1f}",
            )
        )
        table = _table(rows, arguments, keras)
        file.write_text(table)
        print(table, flush=True)


def _table(rows, arguments, keras) -> str:
    import os

    head = "backbone", "weights", "parameters", "accuracy", "s per epoch", "minutes"
    overrides = [o for o in arguments.overrides if "/" not in o]  # no machine's paths
    lines = [
        f"# Backbones side by side: {Path(arguments.recipe).stem}",
        "",
        f"{os.cpu_count()} cores ({platform.machine()}), Keras {keras.__version__} on "
        f"{keras.backend.backend()}, {time.strftime('%Y-%m-%d')}. Accuracy: the saved "
        "model on the validation split. Minutes: with start-up, scores and pictures.",
        *([arguments.note] if arguments.note else []),
        f"Overrides: {', '.join(overrides)}.",
        "",
        "| " + " | ".join(head) + " |",
        "|" + "---|" * len(head),
        *("| " + " | ".join(row) + " |" for row in rows),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
