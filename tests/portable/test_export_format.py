"""`export --format` measures what it publishes and keeps back what loses too much."""

import importlib.util
import json

import numpy as np
import pytest
from PIL import Image

from visionkit.tasks.__main__ import main

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("ai_edge_litert") is None, reason="litert is missing"
)

RECIPE = """
task: classification
model: {backbone: lenet5, image_size: [32, 32], resize: stretch}
data: {source: image_folder, root: ROOT, batch_size: 8, validation: 0.25}
train: {epochs: 3, optimizer: adam, learning_rate: 0.01, monitor: val_accuracy}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run that tells two colours."""
    root = tmp_path_factory.mktemp("formats")
    rng = np.random.default_rng(0)
    for index, name in enumerate(("red", "green")):
        folder = root / "images" / name
        folder.mkdir(parents=True)
        for i in range(12):
            pixels = rng.integers(0, 60, (40, 52, 3), dtype=np.uint8)
            pixels[..., index] += 180
            Image.fromarray(pixels).save(folder / f"{i:02d}.png")
    (root / "recipe.yaml").write_text(RECIPE.replace("ROOT", str(root / "images")))
    assert main(["train", str(root / "recipe.yaml"), "--out", str(root / "run")]) == 0
    return root / "run"


def test_int8_is_measured_and_published(run, tmp_path, capsys):
    arguments = ["export", str(run), "--format", "litert-int8", "--out", str(tmp_path)]
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    assert "accuracy" in shown and "latency" in shown and "litert-int8" in shown
    found = json.loads((tmp_path / "1" / "model.json").read_text())["evaluation"]
    assert found["images"] == 6 and found["drop"] == 0 and found["metric"] == "accuracy"
    assert found["file"]["bytes"] == (tmp_path / "1" / "model.tflite").stat().st_size
    assert found["file"]["bytes"] < found["model"]["bytes"]
    photos = sorted(str(path) for path in run.parent.glob("images/*/0*.png"))
    answers = []
    for model in (run, tmp_path / "1" / "model.tflite"):
        file = run.parent / "answers.json"
        assert main(["predict", str(model), *photos, "--json", str(file)]) == 0
        rows = json.loads(file.read_text())
        answers.append([row["label_names"][0] for row in rows])
    assert answers[0] == answers[1] and {*answers[0]} == {"red", "green"}
    # A gain would be needed: nothing new appears.
    assert main([*arguments, "--max-drop=-1"]) == 1
    error = capsys.readouterr().err
    assert "litert-int8 loses 0.0000 of accuracy" in error and "--max-drop" in error
    assert [path.name for path in tmp_path.iterdir()] == ["1"]


def test_no_gate_says_what_is_given_up(run, tmp_path, capsys):
    assert main(["export", str(run), "--no-gate", "--out", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    for words in ("graph: signatures", "answers: every", "c_runtime: the same without"):
        assert f"unchecked {words}" in shown
    described = json.loads((tmp_path / "1" / "model.json").read_text())
    assert described["gate"] == [] and len(described["unchecked"]) == 3


def test_wrong_usage(run, tmp_path, capsys):
    lone = ["export", str(run / "model.keras"), "--format", "litert"]
    assert main(lone) == 1
    assert "takes a run folder" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main(["export", str(run), "--format", "onnx", "--no-gate"])
