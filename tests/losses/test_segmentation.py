"""All losses of semantic segmentation: edges, compilers, backends, saving, training."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest

from visionkit.losses import LOSSES, loss_class

K = 3
rng = np.random.default_rng(0)
LOGITS = rng.normal(size=(2, 12, 9, K)).astype("float32") * 2
MASKS = rng.integers(0, K, (2, 4, 3)).repeat(3, 1).repeat(3, 2).astype("uint8")
MASKS[0, 1, :3] = 255
SHARES = np.concatenate([np.eye(K), np.zeros((256 - K, K))])[MASKS].astype("float32")


def make(name):
    kind = loss_class("semantic_segmentation", name)
    if name != "sum":
        return kind(class_weights=[1.0, 2.0, 0.5])
    return kind([make("dice"), make("crossentropy")], [0.5, 2.0])


NAMES = list(LOSSES["semantic_segmentation"])
ALL = [make(name) for name in NAMES]
each = pytest.mark.parametrize("loss", ALL, ids=NAMES)

EDGES = {
    "all void": (np.full_like(MASKS, 255), LOGITS),
    "one class": (np.full_like(MASKS, 1), LOGITS),
    "class without pixels": (np.where(MASKS == 2, 0, MASKS), LOGITS),
    "perfect": (
        MASKS,
        1e4 * np.eye(K + 1, dtype="float32")[MASKS.clip(max=K)][..., :K],
    ),
    "all wrong": (MASKS, -1e4 * SHARES),
    "undecided": (MASKS, np.zeros_like(LOGITS)),
    "shares": (0.3 * SHARES + 0.7 * SHARES[::-1], LOGITS),
}


@each
def test_values_and_gradients_are_finite_at_every_edge(loss):
    tf = pytest.importorskip("tensorflow")
    for name, (truth, logits) in EDGES.items():
        logits = tf.Variable(logits)
        with tf.GradientTape() as tape:
            value = loss(truth, logits)
        gradient = tape.gradient(value, logits)
        assert value.shape == () and value.dtype == tf.float32
        assert np.isfinite(value) and np.isfinite(gradient).all(), name
        if name == "all void":
            assert value == 0 and not np.any(gradient)
        elif name == "undecided":
            assert np.any(gradient)
        half = loss(truth, tf.cast(logits, "bfloat16"))
        again = loss(truth, tf.cast(tf.cast(logits, "bfloat16"), "float32"))
        np.testing.assert_allclose(half, again, rtol=1e-5, atol=1e-6)


@each
def test_void_pixels_and_weightless_ones_do_not_matter(loss):
    changed = np.where(MASKS[..., None] == 255, -LOGITS, LOGITS)
    np.testing.assert_allclose(loss(MASKS, changed), loss(MASKS, LOGITS), rtol=1e-6)
    # A quarter of all pixels, once as void and once without weight.
    quarter = np.zeros(MASKS.shape, bool)
    quarter[:, :6, :5] = True
    weights = np.where(quarter, 0, 1).astype("float32")
    if loss.name in ("dice", "tversky", "jaccard", "lovasz"):
        void = np.where(quarter, 255, MASKS)
        expected = loss(void, LOGITS)
        np.testing.assert_allclose(loss(MASKS, LOGITS, weights), expected, rtol=1e-5)
    twice = loss(MASKS, LOGITS, 2 * weights)
    if loss.name in ("crossentropy", "focal", "ohem", "boundary"):
        np.testing.assert_allclose(twice, 2 * loss(MASKS, LOGITS, weights), rtol=1e-5)


@each
def test_the_gradient_is_the_slope(loss):
    tf = pytest.importorskip("tensorflow")
    logits = tf.Variable(LOGITS)
    with tf.GradientTape() as tape:
        value = loss(MASKS, logits)
    gradient = np.asarray(tape.gradient(value, logits)).astype("float64")
    step = (1e-2 * gradient / np.linalg.norm(gradient)).astype("float32")
    rise = float(loss(MASKS, LOGITS + step)) - float(loss(MASKS, LOGITS - step))
    np.testing.assert_allclose(rise, 2 * np.sum(step * gradient), rtol=0.02)


def test_compiled_equals_plain():
    tf = pytest.importorskip("tensorflow")

    def values_and_gradients(truth, logits):
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(logits)
            values = [loss(truth, logits) for loss in ALL]
        return values, [tape.gradient(value, logits) for value in values]

    masks, logits = tf.constant(MASKS), tf.constant(LOGITS)
    plain = values_and_gradients(masks, logits)
    compiled = tf.function(values_and_gradients, jit_compile=True)(masks, logits)
    for got, expected in zip(*map(keras.tree.flatten, (compiled, plain)), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6)


@each
def test_a_model_trains_saves_and_loads_with_it(loss, tmp_path):
    inputs = keras.Input((None, None, 3))  # sizes that the graph does not know
    model = keras.Model(inputs, keras.layers.Conv2D(K, 1)(inputs))
    model.compile("sgd", loss)
    weights = np.ones(MASKS.shape, "float32")
    history = model.fit(LOGITS, MASKS, sample_weight=weights, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert again.loss.get_config() == loss.get_config()
    np.testing.assert_allclose(again.loss(MASKS, LOGITS), loss(MASKS, LOGITS))


def test_sums_add_up_and_wrong_ones_are_refused():
    total = make("sum")
    expected = 0.5 * make("dice")(MASKS, LOGITS) + 2 * make("crossentropy")(
        MASKS, LOGITS
    )
    np.testing.assert_allclose(total(MASKS, LOGITS), expected, rtol=1e-6)
    kind = type(total)
    for losses, weights in (([], None), (total.losses, [1.0]), (total.losses, [1, -1])):
        with pytest.raises(ValueError, match=r"`losses`|`weights`"):
            kind(losses, weights)


CODE = """
import sys
sys.modules["tensorflow"] = None
sys.path.insert(0, sys.argv[1])
import jax, keras, numpy as np
from test_segmentation import ALL, LOGITS, MASKS, NAMES
from visionkit.metrics.pixels import MeanIoU, PixelAccuracy

expected = dict(zip(NAMES, map(float, sys.argv[2].split(","))))
run = jax.jit(lambda x: [jax.value_and_grad(lambda x: l(MASKS, x))(x) for l in ALL])
for name, (value, gradient) in zip(NAMES, run(LOGITS)):
    assert abs(value - expected[name]) < 1e-4 * max(1, abs(value)), name
    assert np.isfinite(gradient).all(), name
metrics = MeanIoU(3), PixelAccuracy()
inputs = keras.Input((None, None, 3))
model = keras.Model(inputs, keras.layers.Conv2D(3, 1)(inputs))
model.compile("sgd", ALL[0], metrics=metrics, jit_compile=True)
logs = model.evaluate(LOGITS, MASKS, verbose=0, return_dict=True)
answer = model.predict(LOGITS, verbose=0).argmax(-1)
known = MASKS != 255
right = (answer == MASKS)[known].mean()
assert abs(logs["pixel_accuracy"] - right) < 1e-6, logs
assert 0 < logs["mean_iou"] < 1
assert keras.backend.backend() == "jax"
"""


def test_jax_gives_the_same_without_tensorflow():
    pytest.importorskip("jax")
    values = ",".join(str(float(loss(MASKS, LOGITS))) for loss in ALL)
    done = subprocess.run(
        [sys.executable, "-c", CODE, os.path.dirname(__file__), values],
        env={**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_every_loss_of_recipes_is_a_name_of_the_package():
    from visionkit import losses

    for named in losses.LOSSES.values():
        for targets in named.values():
            for target in [targets] if isinstance(targets, str) else targets:
                name = target.partition(":")[2]
                assert getattr(losses, name).__name__ == name and name in losses.__all__
