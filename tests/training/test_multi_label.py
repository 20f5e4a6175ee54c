"""Any number of labels per image, from a table to the export."""

import json

import numpy as np
import pytest
from PIL import Image

import visionkit as vk
from visionkit.training.evaluation import evaluate_model

COLORS = {"red": 0, "green": 1, "blue": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Pictures whose bright channels are their labels; some have none."""
    folder = tmp_path_factory.mktemp("colors")
    rng = np.random.default_rng(0)
    rows = ["image,label,split"]
    for index in range(48):
        present = [name for name in COLORS if rng.random() < 0.5]
        pixels = rng.integers(0, 60, (20, 28, 3))
        for name in present:
            pixels[..., COLORS[name]] += 150
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{index}.png")
        split = "train" if index < 32 else "validation"
        rows.append(f"{index}.png,{'|'.join(present)},{split}")
    (folder / "labels.csv").write_text("\n".join(rows))
    return folder


def recipe(folder, **train):
    return {
        "task": "classification",
        "model": {
            "backbone": "lenet5",
            "image_size": [32, 32],
            "resize": "stretch",
            "label_smoothing": 0.05,
        },
        "data": {
            "source": "csv",
            "root": str(folder),
            "train": {"annotations": "labels.csv", "split": "train"},
            "validation": {"annotations": "labels.csv", "split": "validation"},
            "batch_size": 16,
        },
        "train": {
            "epochs": 8,
            "learning_rate": 0.01,
            "monitor": "val_pr_auc",
            "tensorboard": False,
            **train,
        },
    }


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory):
    options = {"loss": {"focal": {"gamma": 1.0, "alpha": 0.5}}}
    options["class_weights"] = {"red": 2.0}
    out = tmp_path_factory.mktemp("run") / "run"
    return vk.run(recipe(folder, **options), out=out, verbose=0)


def test_a_run_learns_and_is_measured_exactly(run):
    assert run.model.multi_label
    assert run.metrics["mean_average_precision"] > 0.9
    written = json.loads((run.folder / "metrics.json").read_text())
    assert [row["name"] for row in written["per_class"]] == list(run.model.class_names)
    assert {"macro_auc", "micro_auc", "macro_f1", "micro_f1", "mistakes"} <= set(
        written
    )
    assert {"auc", "pr_auc", "val_auc", "val_pr_auc"} <= set(run.history)
    again = vk.evaluate(run.folder)
    assert again["mean_average_precision"] == run.metrics["mean_average_precision"]


def test_figures_show_the_classes_and_no_confusion(run):
    names = {file.stem for file in (run.folder / "figures").iterdir()}
    assert {"average_precision", "class_counts", "validation_predictions"} <= names
    assert "confusion_matrix" not in names


def test_files_and_the_export_are_answered_alike(run, folder, tmp_path):
    images = [str(folder / f"{index}.png") for index in range(32, 40)]
    results = vk.predict(run.model, images, score=0.5)
    for result in results:
        present = set(np.flatnonzero(result.probabilities >= 0.5).tolist())
        assert set(result.labels.tolist()) == present
    assert max(len(result.labels) for result in results) > 1
    version = vk.export(run.model, tmp_path / "colors")
    assert json.loads((version / "model.json").read_text())["multi_label"] is True
    for result, served in zip(results, vk.predict(version, images), strict=True):
        np.testing.assert_allclose(
            served.probabilities, result.probabilities, atol=1e-5
        )


def test_a_model_of_the_other_kind_is_refused(run):
    source = vk.build_source("digits", split="validation")
    with pytest.raises(ValueError, match=r"any number of labels.*one label"):
        evaluate_model(run.model, source)
