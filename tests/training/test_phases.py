"""Phases: one training in parts, stopped anywhere and resumed to the same bits."""

import csv
import json
import subprocess
import sys

import numpy as np
import pytest

from visionkit.training.phases import phase_recipes
from visionkit.training.recipe import load_recipe
from visionkit.training.recipe_files import RecipeError

RECIPE = {
    "task": "classification",
    "model": {
        "backbone": "lenet5",
        "image_size": [28, 24],
        "channels": 1,
        "resize": "stretch",
        "dropout": 0.3,
    },
    "data": {
        "source": "digits",
        "train": {"split": "validation"},
        "validation": {"split": "validation"},
        "batch_size": 64,
    },
    "augment": [{"scale_jitter": {"range": [0.9, 1.1]}}],
    "train": {
        "phases": [
            {"epochs": 1, "freeze": ["P2"], "image_size": [16, 20]},
            {"epochs": 2, "learning_rate": 0.01, "schedule": {"cosine": {}}},
        ],
        "optimizer": "adamw",
        "learning_rate": 0.02,
        "ema": 0.9,
        "monitor": "val_accuracy",
        "tensorboard": False,
        "checkpoint_steps": 2,
    },
}
SINGLE = {**RECIPE, "train": {"epochs": 3, "learning_rate": 0.02}}


def test_a_phase_is_a_recipe_of_its_own():
    recipe = load_recipe(RECIPE)
    assert recipe.train.epochs == 3
    first, second = phase_recipes(recipe)
    assert (first.train.epochs, second.train.epochs) == (1, 2)
    assert first.model.freeze == ["P2"] and second.model.freeze == []
    assert first.model.image_size == (16, 20) and second.model.image_size == (28, 24)
    assert first.train.learning_rate == 0.02 and second.train.learning_rate == 0.01
    assert first.train.schedule == "constant" and first.train.phases is None
    single = load_recipe(SINGLE)
    assert phase_recipes(single) == [single]


def test_a_phase_can_be_changed_by_its_place_and_the_sum_follows():
    recipe = load_recipe(RECIPE, ["train.phases.1.epochs=5"])
    assert recipe.train.epochs == 6
    assert load_recipe(recipe, ["train.phases.0.epochs=2"]).train.epochs == 7


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.epochs=9", r"train\.epochs: found 9; .*3 epochs together"),
        ("train.phases=[]", r"train\.phases: found \[\]"),
        ("train.phases.0.epoch=1", r"train\.phases\.0\.epoch: unknown.*mean 'epochs'"),
        ("train.phases.2.epochs=1", "no place in a list of 2"),
        ("train.phases.0.schedule={a: {}, b: {}}", "one name"),
        ("model.top=paper", r"train\.phases.*top: pooled"),
    ],
)
def test_wrong_phases_are_refused(override, message):
    with pytest.raises(RecipeError, match=f"(?s){message}"):
        load_recipe(RECIPE, [override])


def test_neither_epochs_nor_phases_is_refused():
    with pytest.raises(RecipeError, match=r"train\.epochs: .*or train\.phases"):
        load_recipe({**RECIPE, "train": {}})


TRAINING = """
import json, sys
import numpy as np
import tensorflow as tf
import visionkit as vk
from visionkit.training import figures
from visionkit.training.checkpoint import CheckpointStore
from visionkit.training.resume import Progress
from visionkit.training.session import TrainingSession

recipe, folder = json.loads(sys.argv[1]), sys.argv[2]
tf.config.experimental.enable_op_determinism()
figures.draw_data = figures.draw_results = lambda *arguments: None

class Killed(Exception):
    pass

def killed(owner, method, when, resume):
    "Runs until `method` is called with `when` true, then dies."
    real = getattr(owner, method)
    def dying(self, *arguments, **options):
        if when(self):
            raise Killed
        return real(self, *arguments, **options)
    setattr(owner, method, dying)
    try:
        vk.run(recipe, out=f"{folder}/broken", resume=resume, verbose=0)
        raise SystemExit("was not killed")
    except Killed:
        pass
    finally:
        setattr(owner, method, real)

whole = vk.run(recipe, out=f"{folder}/whole", verbose=0)
# Between the phases, before anything of the second one is saved.
killed(TrainingSession, "begin_next_phase", lambda s: True, False)
# In the middle of the second phase: 5 batches an epoch, checkpoints at even ones.
killed(Progress, "on_train_batch_end", lambda p: p.global_step == 7, True)
broken = vk.run(recipe, out=f"{folder}/broken", resume=True, verbose=0)

stores = [CheckpointStore(f"{folder}/{n}/checkpoints") for n in ("whole", "broken")]
a, b = (store.load() for store in stores)
assert a.step == b.step == 15 and a.state["extra"]["phase"] == 1
assert a.arrays.keys() == b.arrays.keys()
assert not [k for k in a.arrays if (a.arrays[k] != b.arrays[k]).any()]
assert whole.metrics == broken.metrics
x = np.zeros((1, *whole.model.preprocessing.image_size, 1), "uint8")
same = [run.model.predict_on_batch(x)["probabilities"] for run in (whole, broken)]
np.testing.assert_array_equal(*same)
assert whole.model.preprocessing.image_size == (28, 24)
assert all(layer.trainable for layer in whole.model.backbone.layers)

# More epochs of the last phase; no other change is accepted.
vk.run(f"{folder}/whole", overrides=["train.phases.1.epochs=3"], resume=True, verbose=0)
assert len((whole.folder / "history.csv").read_text().splitlines()) == 5
try:
    vk.run(f"{folder}/whole", overrides=["train.phases.0.epochs=3"], resume=True)
except ValueError as error:
    assert "only train.phases.1.epochs may change" in str(error), error
else:
    raise SystemExit("was not refused")
print("done")
"""


@pytest.mark.slow  # three processes; `test_run` kills one by default
def test_killed_between_and_within_phases_ends_with_the_same_bits(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", TRAINING, json.dumps(RECIPE), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.stdout.endswith("done\n"), done.stdout + done.stderr
    with open(tmp_path / "broken" / "history.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert [row["phase"] for row in rows] == ["1", "2", "2"]
    rates = [float(row["learning_rate"]) for row in rows]
    np.testing.assert_allclose(rates, [0.02, 0.005, 0], atol=1e-7)  # of the next batch


def test_early_stopping_ends_a_phase_and_the_best_model_goes_on(tmp_path, monkeypatch):
    import visionkit as vk
    from visionkit.training import figures

    monkeypatch.setattr(figures, "draw_data", lambda *arguments: None)
    phases = [{"epochs": 5, "learning_rate": 1e-12}, {"epochs": 3}]
    train = {
        **RECIPE["train"],
        "phases": phases,
        "ema": None,
        "early_stopping": {"patience": 1},
        "schedule": {"plateau": {"patience": 1, "factor": 0.5}},
    }
    done = vk.run(
        {**RECIPE, "train": train},
        overrides=["train.learning_rate=1e-12"],
        out=tmp_path / "run",
        verbose=0,
    )
    assert done.history["phase"] == [1, 1, 2, 2]
    np.testing.assert_allclose(
        done.history["learning_rate"], np.array([1, 0.5, 1, 0.5]) * 1e-12
    )
    assert done.metrics["accuracy"] == pytest.approx(done.history["val_accuracy"][0])


def test_a_later_phase_that_cannot_be_built_is_refused_before_training(tmp_path):
    import visionkit as vk

    with pytest.raises(ValueError, match="P9"):
        vk.run(
            RECIPE,
            overrides=["train.phases.1.freeze=[P9]"],
            out=tmp_path / "run",
            verbose=0,
        )
    assert not (tmp_path / "run" / "history.csv").exists()
