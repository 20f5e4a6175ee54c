"""The command line walks the whole path, and refuses what is wrong in plain words."""

import json
import os
import re
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from visionkit.tasks.__main__ import main
from visionkit.training.recipe import load_recipe

RECIPE = """
task: classification
model: {backbone: lenet5, image_size: [32, 32], resize: stretch}
data: {source: image_folder, root: ROOT, batch_size: 8, validation: 0.25}
augment: [{flip: {p: 0.5}}]
train: {epochs: 2, optimizer: adam, learning_rate: 0.01, monitor: val_accuracy}
"""


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """Three colours as three classes, and a trained run."""
    root = tmp_path_factory.mktemp("cli")
    rng = np.random.default_rng(0)
    for index, name in enumerate(("red", "green", "blue")):
        folder = root / "images" / name
        folder.mkdir(parents=True)
        for i in range(16):
            pixels = rng.integers(0, 60, (40, 52, 3), dtype=np.uint8)
            pixels[..., index] += 180
            Image.fromarray(pixels).save(folder / f"{i:02d}.JPG")
    (root / "images" / "red" / "broken.jpg").write_bytes(b"")
    (root / "recipe.yaml").write_text(RECIPE.replace("ROOT", str(root / "images")))
    arguments = [str(root / "recipe.yaml"), "data.max_bad=0.1", "--out"]
    assert main(["train", *arguments, str(root / "run")]) == 0
    return root


def test_a_run_folder_has_everything(workspace):
    run = workspace / "run"
    for name in ("recipe.yaml", "model.keras", "environment.json", "history.csv"):
        assert (run / name).is_file(), name
    assert list((run / "checkpoints").iterdir()) and (run / "tensorboard").is_dir()
    for name in (
        "training_curves",
        "train_samples",
        "class_counts",
        "confusion_matrix",
        "validation_predictions",
    ):
        with Image.open(run / "figures" / f"{name}.png") as picture:
            assert min(picture.size) > 200, name
    report = json.loads((run / "data_report.json").read_text())
    for split in report.values():
        skipped = sum(map(len, split["skipped"].values()))
        assert split["read"] == split["used"] + skipped
    skipped = [s for split in report.values() for s in split["skipped"]]
    assert skipped == ["image.empty"]
    assert sum(split["read"] for split in report.values()) == 49


def test_evaluate_predict_export(workspace, capsys):
    run, red = workspace / "run", workspace / "images" / "red" / "00.JPG"
    json_file = workspace / "metrics.json"
    assert main(["evaluate", str(run), "--json", str(json_file)]) == 0
    assert 0 <= json.loads(json_file.read_text())["accuracy"] <= 1

    out = workspace / "saved_model"
    assert main(["export", str(run), "--out", str(out)]) == 0
    answers = []
    for model in (run, out):
        file = workspace / "answers.json"
        pictures = workspace / f"pictures-{model.name}"
        status = main(
            [
                "predict",
                str(model),
                str(red),
                "--json",
                str(file),
                "--out",
                str(pictures),
            ]
        )
        assert status == 0 and len(list(pictures.iterdir())) == 1
        answers.append(json.loads(file.read_text()))
    np.testing.assert_allclose(
        answers[0][0]["probabilities"], answers[1][0]["probabilities"], atol=1e-4
    )

    broken = workspace / "images" / "red" / "broken.jpg"
    assert main(["predict", str(run), str(broken), str(red)]) == 1
    assert "1 of 2 images could not be read" in capsys.readouterr().out


def test_predict_writes_heat_beside_its_pictures(workspace, capsys, tmp_path):
    run, images = str(workspace / "run"), workspace / "images" / "red"
    files = [str(images / name) for name in ("00.JPG", "broken.jpg", "01.JPG")]
    for method, option in (("grad_cam", []), ("eigen_cam", ["eigen_cam"])):
        out = tmp_path / method
        arguments = ["predict", run, *files, "--out", str(out), "--explain", *option]
        assert main(arguments) == 1  # one is broken
        names = {path.name for path in out.iterdir()}
        heat = {f"00.{method}.png", f"01.{method}.png"}
        assert names == {"00.png", "01.png"} | heat
    with pytest.raises(SystemExit, match="2"):
        main(["predict", run, *files, "--explain"])
    assert "--out DIR" in capsys.readouterr().err
    sealed = tmp_path / "saved" / "1"
    sealed.mkdir(parents=True)
    (sealed / "saved_model.pb").write_bytes(b"")
    arguments = ["predict", str(sealed), *files, "--out", str(out), "--explain"]
    assert main(arguments) == 1
    assert "the run folder or the .keras file" in capsys.readouterr().err


def test_check_names_the_broken_file(workspace, capsys):
    assert main(["check", str(workspace / "run"), "data.max_bad=0.1"]) in (0, 1)
    assert "broken.jpg" in capsys.readouterr().out.replace("\n", "")


def test_new_writes_a_recipe_that_loads(workspace, capsys, tmp_path):
    assert main(["new", "classification", "--data", str(workspace / "images")]) == 0
    file = tmp_path / "new.yaml"
    file.write_text(capsys.readouterr().out)
    recipe = load_recipe(file)
    assert recipe.data.root == str(workspace / "images")


def test_resume_refuses_another_recipe(workspace, capsys):
    run = str(workspace / "run")
    status = main(["train", run, "--resume", "train.learning_rate=0.5"])
    assert status == 2
    error = capsys.readouterr().err
    assert "train.learning_rate" in error and "0.01" in error and "0.5" in error


def test_force_resumes_with_another_recipe_but_not_without_resume(workspace, tmp_path):
    run = str(shutil.copytree(workspace / "run", tmp_path / "run"))
    assert main(["train", run, "--resume", "--force", "train.learning_rate=0.5"]) == 0
    assert load_recipe(f"{run}/recipe.yaml").train.learning_rate == 0.5
    with pytest.raises(SystemExit, match="2"):
        main(["train", run, "--force"])


def test_a_second_run_does_not_overwrite(workspace, capsys):
    run = str(workspace / "run")
    assert main(["train", str(workspace / "recipe.yaml"), "--out", run]) == 2
    assert "holds a run already" in capsys.readouterr().err


def test_resume_raises_the_number_of_epochs(workspace):
    run = workspace / "run"
    assert main(["train", str(run), "--resume", "train.epochs=3"]) == 0
    rows = (run / "history.csv").read_text().strip().splitlines()
    assert [row.split(",")[0] for row in rows[1:]] == ["1", "2", "3"]


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["train", "no_such_recipe"], 2, "neither a file nor one of visionkit's"),
        (["train", "digits_lenet5", "train.epoch=1"], 2, "mean 'epochs'"),
        (["evaluate", "no_such_run"], 2, "nothing at no_such_run"),
        (["predict", "no_such_run", "a.jpg"], 2, "no_such_run"),
        (["new", "clasification", "--data", "."], 2, "mean 'classification'"),
        (["new", "classification", "--data", "no_such"], 2, "no folder"),
        (["train", "digits_lenet5", "--resume", "--out", "no_such"], 2, "no run to"),
    ],
)
def test_wrong_usage_is_refused_in_plain_words(arguments, status, message, capsys):
    assert main(arguments) == status
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error
    assert "Traceback" not in error


@pytest.mark.parametrize("more", [[], ["--explain"]])
def test_predict_says_nothing_of_its_framework(workspace, more):
    command = [sys.executable, "-m", "visionkit.tasks", "predict", "run"]
    command += ["images/red/01.JPG", "--out", f"quiet{len(more)}", *more]
    # As a user's shell has it, without what other tests' imports have set.
    env = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    done = subprocess.run(
        command, cwd=workspace, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0 and "red" in done.stdout, done.stderr
    assert not re.search("oneDNN|absl|cuda", done.stderr), done.stderr


def test_a_wrong_recipe_is_refused_in_about_a_second(tmp_path):
    # A generous multiple of what it takes; importing TensorFlow takes longer alone.
    command = [sys.executable, "-m", "visionkit.tasks", "train", "digits_lenet5"]
    code = "import tensorflow"
    start = time.perf_counter()
    done = subprocess.run([*command, "train.epochs=no"], capture_output=True)
    refused = time.perf_counter() - start
    assert done.returncode == 2 and b"train.epochs" in done.stderr
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert refused < time.perf_counter() - start
