"""The main job on embedded data, from training to a served answer.

`python -m visionkit.demo`: train the recipe `digits_lenet5`, evaluate, predict, export,
and load the export in a process that has neither Keras nor visionkit.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from visionkit._quiet import quiet_start

# Run with `-S`-like isolation: no visionkit, no Keras, only TensorFlow and the files.
_SERVE = """
import json, sys
for name in ("keras", "tf_keras", "visionkit"):
    sys.modules[name] = None
import tensorflow as tf
served = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
images = [open(path, "rb").read() for path in sys.argv[2:]]
answer = served(image_bytes=tf.constant(images))
print(json.dumps({
    "label_names": [name.decode() for name in answer["label_names"].numpy()],
    "probabilities": answer["probabilities"].numpy().tolist(),
}))
"""


def main() -> int:
    """Run the demo in `./demo` and print what it did."""
    from rich.console import Console
    from rich.table import Table

    start = time.perf_counter()
    console = Console(highlight=False)
    console.print("[bold]visionkit demo[/]: LeNet-5 on scikit-learn's digits")
    folder = Path("demo") / time.strftime("%Y%m%d-%H%M%S")
    with quiet_start():
        from visionkit.exporting import export
        from visionkit.inference import predict
        from visionkit.training.run import run

    done = run("digits_lenet5", out=folder / "run")
    files = _write_images(folder / "images")
    results = predict(done.folder, files)
    saved_model = export(done.model, folder / "saved_models" / "digits")
    served = _serve(saved_model, files)
    difference = _compare(results, served)

    for result, file in zip(results, files, strict=True):
        result.plot().save(folder / f"prediction_{file.stem}.png")
    right = sum(
        result.label_names[0] == file.stem.partition("_")[0]
        for result, file in zip(results, files, strict=True)
    )
    table = Table(box=None, show_header=False)
    table.add_row("trained", f"{len(done.history['loss'])} epochs, {done.folder}")
    table.add_row("validation accuracy", f"{done.metrics['accuracy']:.4f}")
    table.add_row("predicted", f"{right} of {len(files)} unseen images right")
    table.add_row("exported", str(saved_model))
    table.add_row(
        "served without Keras", f"same answers, largest difference {difference:.1e}"
    )
    table.add_row("pictures", f"{done.folder / 'figures'}, {folder}/prediction_*.png")
    table.add_row("time", f"{time.perf_counter() - start:.0f} s")
    console.print("", table, "", "[bold]next[/]")
    python = os.path.relpath(sys.executable)
    for line in (
        f"{python} -m visionkit.tasks list",
        f"{python} -m visionkit.tasks predict {done.folder} {files[0]} --out answers",
        f"{python} -m visionkit.tasks new classification --data YOUR_FOLDER > my.yaml",
        f"{python} -m visionkit.tasks train my.yaml",
    ):
        console.print(f"  {line}", soft_wrap=True)
    return 0


def _write_images(folder: Path) -> list[Path]:
    """One validation digit of each class as a PNG file; the name says which."""
    from visionkit.data import build_source

    source = build_source("digits", task="classification", split="validation")
    folder.mkdir(parents=True)
    files: dict[int, Path] = {}
    for index, label in enumerate(source.labels()):
        if int(label) not in files:
            file = folder / f"{label}_{index}.png"
            file.write_bytes(source.record(index)["encoded"])
            files[int(label)] = file
    return [files[label] for label in sorted(files)]


def _serve(saved_model: Path, files: list[Path]) -> dict:
    done = subprocess.run(
        [sys.executable, "-c", _SERVE, str(saved_model), *map(str, files)],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"{saved_model} does not load by itself:\n{done.stderr}")
    return json.loads(done.stdout)


def _compare(results, served: dict) -> float:
    import numpy as np

    names = [result.label_names[0] for result in results]
    if names != served["label_names"]:
        raise RuntimeError(
            "The export answers otherwise than the run: "
            f"{served['label_names']} instead of {names}."
        )
    ours = np.stack([result.probabilities for result in results])
    return float(np.abs(ours - np.array(served["probabilities"])).max())


if __name__ == "__main__":
    sys.exit(main())
