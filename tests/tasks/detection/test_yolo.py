"""YOLO: published counts, the loss against NumPy loops, and that it learns by heart."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from contracts import check_task
from dense_cases import SIZE, drawn_batch, loss_parts, random_outputs, tiny_backbone

import visionkit as vk
from visionkit.necks import PAN
from visionkit.ops.task_aligned import assign_task_aligned
from visionkit.tasks.detection.yolo import YOLO, decode_boxes

PUBLISHED = {
    "n": 3_157_200,
    "s": 11_166_560,
    "m": 25_902_640,
    "l": 43_691_520,
    "x": 68_229_648,
}


def small_yolo(**options):
    neck = {"levels": ["P3", "P4"], "channels": [16, 16]}
    return YOLO(tiny_backbone(levels=(3, 4)), 2, neck=neck, **options)


@pytest.fixture
def without_values():
    with keras.StatelessScope(initialize_variables=False):
        yield
    keras.utils.clear_session()


def trainable(model):
    return sum(int(np.prod(w.shape)) for w in model.trainable_weights)


@pytest.mark.parametrize("size", PUBLISHED)
def test_counts_are_the_published_ones(size, without_values):
    """They hold 16 fixed weights, the bins' distances, which are constants here."""
    backbone = vk.build_backbone(f"csp_darknet_{size}", (640, 640))
    model = YOLO(backbone, 80)
    assert trainable(model) + 16 == PUBLISHED[size]
    assert model.output["classes"].shape == (None, 8400, 80)
    assert model.output["boxes"].shape == (None, 8400, 64)
    assert model.preprocessing.resize == "letterbox"


@pytest.mark.parametrize(
    "name",
    [
        "mobilenet_v2_035",
        "resnet18",
        pytest.param("efficientnet_b0", marks=pytest.mark.slow),
        pytest.param("convnext_tiny", marks=pytest.mark.slow),
        pytest.param("keras_cv.csp_darknet_tiny", marks=pytest.mark.slow),
    ],
)
def test_any_backbone_carries_it(name):
    model = YOLO(vk.build_backbone(name, (75, 101)), 3)
    locations = 10 * 13 + 5 * 7 + 3 * 4
    outputs = model(np.zeros((1, 75, 101, 3), "float32"))
    assert outputs["classes"].shape == (1, locations, 3)
    assert outputs["boxes"].shape == (1, locations, 64)
    assert model.points.shape == (locations, 2)
    np.testing.assert_array_equal(
        model.points[[0, 1, 13, 130]], [[4, 4], [12, 4], [4, 12], [8, 8]]
    )


def loss_by_loops(model, target, outputs):
    """{"classes": ..., "boxes": ..., "distribution": ...} from the definitions."""
    logits, distribution = outputs["classes"], outputs["boxes"].astype(float)
    shares = np.exp(distribution.reshape(*distribution.shape[:2], 4, 16))
    shares /= shares.sum(-1, keepdims=True)
    boxes = np.array(decode_boxes(outputs["boxes"], model.points, model.strides))
    index, score = (
        np.array(x)
        for x in assign_task_aligned(
            logits, boxes, model.points, target["boxes"], target["labels"]
        )
    )
    parts = dict.fromkeys(("classes", "boxes", "distribution"), 0.0)
    for i in range(len(logits)):
        for a, ((x, y), stride) in enumerate(
            zip(model.points, model.strides, strict=True)
        ):
            t, row = score[i, a], index[i, a]
            for k, logit in enumerate(logits[i, a].astype(float)):
                p = 1 / (1 + np.exp(-logit))
                wanted = t if t and k == target["labels"][i, row] else 0
                parts["classes"] -= wanted * np.log(p) + (1 - wanted) * np.log(1 - p)
            if not t:
                continue
            distances = shares[i, a] @ np.arange(16) * stride
            corners = [x, y, x, y] + distances * [-1, -1, 1, 1]
            truth = target["boxes"][i, row].astype(float)
            parts["boxes"] += t * (1 - ciou(corners, truth))
            for side, edge in enumerate(np.abs(truth - [x, y, x, y]) / stride):
                edge = min(edge, 15)
                left = min(int(edge), 14)
                p, q = shares[i, a, side, left : left + 2]
                loss = -(left + 1 - edge) * np.log(p) - (edge - left) * np.log(q)
                parts["distribution"] += t * loss / 4
    factor = len(logits) / max(score.sum(), 1)
    return {name: value * factor for name, value in parts.items()}


def ciou(a, b):
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    both = np.prod(np.maximum(sides, 0))
    size_a, size_b = a[2:] - a[:2], b[2:] - b[:2]
    overlap = both / (np.prod(size_a) + np.prod(size_b) - both)
    centre = (a[:2] + a[2:] - b[:2] - b[2:]) / 2
    around = np.maximum(a[2:], b[2:]) - np.minimum(a[:2], b[:2])
    angles = [np.arctan(width / height) for width, height in (size_a, size_b)]
    v = 4 / np.pi**2 * (angles[0] - angles[1]) ** 2
    return overlap - (centre @ centre) / (around @ around) - v * v / (1 - overlap + v)


@pytest.mark.parametrize("confident", [False, True])
def test_loss_equals_numpy_loops(confident):
    """Of guesses, whose targets sum to less than one, and of good predictions."""
    model = small_yolo()
    _, target = drawn_batch()
    outputs = random_outputs(model, 4)
    if confident:
        outputs["classes"] += 3
        outputs["boxes"][..., 2::16] += 8
    expected = loss_by_loops(model, target, outputs)
    total, parts = loss_parts(model, target, outputs)
    assert parts.keys() == expected.keys()
    for name, value in expected.items():
        assert parts[name] == pytest.approx(value, rel=1e-4)
    weights = {"classes": 0.5, "boxes": 7.5, "distribution": 1.5}
    assert total == pytest.approx(
        sum(weights[k] * v for k, v in expected.items()), 1e-4
    )


def test_answers_are_the_decoded_boxes_of_the_surest_locations():
    model = small_yolo(nms={"score_threshold": 0.5, "max_detections": 4})
    outputs = {
        "classes": np.full((1, 120, 2), -9.0, "float32"),
        "boxes": np.zeros((1, 120, 64), "float32"),
    }
    # The first location of P4, (8, 8); sides at 2, 0, 3 and 1.5 strides of 16.
    outputs["classes"][0, 96, 1] = 2.0
    for side, bins in enumerate(([2], [0], [3], [1, 2])):
        outputs["boxes"][0, 96, [side * 16 + i for i in bins]] = 40.0
    answers = {k: np.asarray(v) for k, v in model.postprocess(outputs).items()}
    np.testing.assert_array_equal(answers["num_detections"], [1])
    np.testing.assert_allclose(answers["boxes"][0, 0], [0, 8, 56, 32], atol=1e-3)
    np.testing.assert_allclose(answers["scores"][0], [1 / (1 + np.exp(-2)), 0, 0, 0])
    np.testing.assert_array_equal(answers["labels"][0], [1, -1, -1, -1])


@pytest.mark.slow  # an XLA compile of its own; SSD stands for detection by default
def test_the_contract_of_every_task(tmp_path):
    check_task(small_yolo, *drawn_batch(), tmp_path)


def test_without_objects_everything_is_finite():
    model = small_yolo()
    images, target = drawn_batch(2)
    target["labels"][:] = -1
    model.compile("sgd", run_eagerly=True)
    logs = model.train_on_batch(images, target, return_dict=True)
    assert np.isfinite(list(logs.values())).all()
    assert logs["boxes_loss"] == logs["distribution_loss"] == 0 < logs["classes_loss"]
    assert all(np.isfinite(w).all() for w in model.get_weights())


def test_boxes_of_one_pixel_and_of_the_whole_image_train():
    model = small_yolo()
    boxes = [[5, 5, 6, 6], [0, 0, 96, 64], [3, 3, 3, 3], [-9, -9, 200, 200]]
    target = {
        "boxes": np.array([boxes], "float32"),
        "labels": np.array([[0, 1, 1, 0]], "int32"),
    }
    total, parts = loss_parts(model, target, random_outputs(model, 1))
    assert np.isfinite(total) and parts["boxes"] > 0


@pytest.mark.slow  # SSD and RetinaNet stand for detection by default
@pytest.mark.parametrize(
    "build",
    [
        lambda: YOLO(tiny_backbone(), 2, neck={"channels": [16, 16, 16]}),
        lambda: YOLO(vk.build_backbone("csp_darknet_n", SIZE, norm_momentum=0.9), 2),
    ],
    ids=["tiny", "csp_darknet_n"],
)
def test_a_drawn_batch_is_learnt_by_heart(build):
    keras.utils.set_random_seed(0)
    model = build()
    images, target = drawn_batch()
    # At the end nothing moves but the statistics of batch normalisation.
    rate = keras.optimizers.schedules.CosineDecay(5e-3, 70)
    model.compile(keras.optimizers.Adam(rate))
    model.fit(images, target, epochs=100, verbose=0)
    scores = model.evaluate(images, target, verbose=0, return_dict=True)
    assert scores["map_50"] > 0.95 and scores["map"] > 0.7


def test_the_neck_may_be_an_object_and_is_saved(tmp_path):
    neck = PAN((16, 24), levels=("P4", "P5"), name="neck")
    model = YOLO(tiny_backbone(), 2, neck=neck, size="s", nms={"iou_threshold": 0.5})
    assert model.output["classes"].shape[1] == 24 + 6
    model.save(tmp_path / "model.keras")
    again = vk.load(tmp_path / "model.keras")
    assert again.nms == model.nms and again.nms.iou_threshold == 0.5
    assert again.count_params() == model.count_params()
    images, _ = drawn_batch()
    for name, value in model.predict_on_batch(images).items():
        np.testing.assert_allclose(again.predict_on_batch(images)[name], value, 1e-5)


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="`size` must be one of n, s, m, l, x"):
        YOLO(tiny_backbone(), 2, size="xl")
    with pytest.raises(ValueError, match="lacks P3"):
        YOLO(tiny_backbone(levels=(4, 5)), 2)
    with pytest.raises(ValueError, match="one image size"):
        YOLO(vk.build_backbone("csp_darknet_n"), 2)


JAX = """
import sys
sys.modules["tensorflow"] = None
import keras, numpy as np
from dense_cases import drawn_batch, loss_parts
from test_yolo import small_yolo
data = np.load(sys.argv[1])
images, target = drawn_batch()
model = small_yolo()
outputs = {k: data[k] for k in ("classes", "boxes")}
total, _ = loss_parts(model, target, outputs)
np.testing.assert_allclose(total, data["loss"], rtol=1e-3)
for key, value in model.postprocess(outputs).items():
    np.testing.assert_allclose(np.asarray(value), data[f"answer_{key}"], atol=1e-2)
before = model.get_weights()
logs = model.train_on_batch(images, target, return_dict=True)
assert np.isfinite(list(logs.values())).all()
assert keras.backend.backend() == "jax"
print("done")
"""


@pytest.mark.slow
def test_jax_gives_the_same_loss_and_answers_without_tensorflow(tmp_path):
    pytest.importorskip("jax")
    model = small_yolo()
    _, target = drawn_batch()
    arrays = random_outputs(model, 4)
    answers = model.postprocess(arrays)
    loss = loss_parts(model, target, arrays)[0]
    arrays |= {f"answer_{key}": np.asarray(value) for key, value in answers.items()}
    np.savez(tmp_path / "data.npz", loss=loss, **arrays)
    here = os.path.dirname(__file__)
    paths = [here, os.path.join(here, "..", "..")]
    done = subprocess.run(
        [sys.executable, "-c", JAX, str(tmp_path / "data.npz")],
        env={
            **os.environ,
            "KERAS_BACKEND": "jax",
            "JAX_PLATFORMS": "cpu",
            "PYTHONPATH": os.pathsep.join(paths),
        },
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0 and "done" in done.stdout, done.stderr
