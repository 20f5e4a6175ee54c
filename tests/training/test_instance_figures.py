"""The pictures of an instance segmenter's run are about masks."""

import numpy as np
import pytest

from visionkit.data.sources import build_source
from visionkit.metrics import to_json_safe
from visionkit.tasks.scoring import InstanceScorer
from visionkit.training import detection_figures
from visionkit.training.evaluation import evaluate_model
from visionkit.types import Preprocessing


class HalfBlind:
    """Answers the truth of whatever batch it is shown, with half of each mask."""

    task, num_proposals = "instance_segmentation", None
    preprocessing = Preprocessing((64, 80))

    def __init__(self, source):
        from visionkit.data import make_dataset

        self.source, self.class_names = source, source.info.class_names
        batches = make_dataset(source, self.preprocessing, 9)
        self.images, self.truth = next(
            (np.asarray(x), {k: np.asarray(v) for k, v in y.items()})
            for x, y in batches
        )

    def scorer(self, source=None):
        return InstanceScorer(self.class_names, self.preprocessing, source)

    def predict_on_batch(self, images):
        known = [image.tobytes() for image in self.images]
        rows = [known.index(image.tobytes()) for image in np.asarray(images)]
        truth = {key: value[rows] for key, value in self.truth.items()}
        masks = truth["masks"][:, :, 2::4, 2::4].astype("float32")
        masks[:, :, :, 14:] = 0
        found = (truth["labels"] >= 0).sum(axis=1)
        scores = np.where(truth["labels"] >= 0, 0.8, 0).astype("float32")
        return {**truth, "masks": masks, "scores": scores, "num_detections": found}


@pytest.fixture(scope="module")
def run():
    source = build_source("digits", task="instance_segmentation", num_scenes=4)
    model = HalfBlind(source)
    return model, to_json_safe(evaluate_model(model, source))


def test_evaluation_is_of_boxes_and_of_masks(run):
    _, metrics = run
    assert metrics["map"] == pytest.approx(1) and metrics["mask_map_75"] < 0.5
    assert metrics["used"] == metrics["num_examples"] == 4
    row = metrics["per_class"][0]
    assert {"ap", "voc_ap", "f1", "mask_ap", "mask_f1", "boundary_ap", "pq"} <= {*row}


def test_the_pictures_tell_what_masks_say(run, tmp_path, monkeypatch):
    model, metrics = run
    shown = {}

    def plot_predictions(images, truth, found, class_names):
        shown.update(truth=truth, found=found)
        return original(images, truth, found, class_names=class_names)

    original = detection_figures.plot_predictions
    monkeypatch.setattr(detection_figures, "plot_predictions", plot_predictions)
    detection_figures.draw_detections(model, model.source, metrics, tmp_path)
    names = ("average_precision", "precision_recall", "confusion_matrix", "errors")
    for name in (*names, "validation_predictions"):
        assert (tmp_path / f"{name}.png").stat().st_size > 5000
    for truth, found in zip(shown["truth"], shown["found"], strict=True):
        assert truth.masks.shape == (len(truth.labels), 64, 80)
        assert (found.masks.areas() < truth.masks.areas()).all()
        np.testing.assert_array_equal(found.boxes, truth.boxes)
