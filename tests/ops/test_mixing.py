"""On the device and in tf.data, the same draws give the same batch."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from visionkit.data import box_mixing, targets
from visionkit.data.mixing import MixUp
from visionkit.ops import instance_mixing, mixing

SIZE = (40, 56)


def batch(count=5, rows=6, seed=0):
    """Smooth pictures with boxes; an image without, and padded rows of nonsense."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (count, 5, 7, 3)).astype(np.float32)
    images = tf.image.resize(coarse, SIZE).numpy().round().astype(np.uint8)
    corners = rng.uniform(0, 1, (count, rows, 2, 2)) * SIZE[::-1]
    boxes = np.concatenate([corners.min(axis=2), corners.max(axis=2)], axis=-1)
    labels = np.where(rng.random((count, rows)) < 0.5, rng.integers(0, 9, (rows,)), -1)
    labels[1] = -1
    boxes[labels < 0] = rng.uniform(-99, 99, 4)
    boxes[0, 0], labels[0, 0] = [5, 5, 5, 9], 3  # no area
    return images, {"boxes": boxes.astype(np.float32), "labels": labels.astype("int32")}


def blobs(labels, seed=0):
    """Coarse masks in the boxes of a batch; nothing in padded rows."""
    coarse = np.random.default_rng(seed).random((*labels.shape, 7, 7)) < 0.4
    masks = np.kron(coarse, np.ones((16, 16))).astype(np.uint8)
    return masks * (labels >= 0)[..., None, None].astype(np.uint8)


def mosaic_draws(count, seed):
    rng = np.random.default_rng(seed)
    drawn = rng.random(count) < 0.8
    scale = rng.uniform(0.4, 1.6, count).astype(np.float32)
    point = rng.uniform(-0.2, 1.2, (count, 2)).astype(np.float32)
    return drawn, scale, point


def copy_draws(count, seed):
    return (np.random.default_rng(seed).random((count, 6)) < 0.5,)


def check_same(ours, theirs):
    (images, target), (expected, truth) = ours, theirs
    images, expected = np.asarray(images), np.asarray(expected)
    assert images.dtype == np.uint8 and images.shape == expected.shape
    # Between two equally near grey levels, the order of the sums decides.
    difference = np.abs(images.astype(int) - expected)
    assert difference.max() <= 1 and (difference > 0).mean() < 1e-3
    np.testing.assert_array_equal(target["labels"], truth["labels"])
    np.testing.assert_allclose(target["boxes"], truth["boxes"], atol=1e-3)
    assert np.asarray(target["labels"]).dtype == np.int32
    if "masks" in truth:
        np.testing.assert_array_equal(target["masks"], truth["masks"])
    assert target["more"] is truth["more"]


@pytest.mark.parametrize(
    ("name", "draws"), [("mosaic", mosaic_draws), ("copy_paste", copy_draws)]
)
@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("masks", [False, True], ids=["boxes", "masks"])
def test_both_sides_are_equal(name, draws, count, masks):
    for seed in range(3 if masks else 6):
        images, target = batch(count + 1, seed=seed)
        images, target = images[:count], {k: v[:count] for k, v in target.items()}
        if masks:
            target["masks"] = blobs(target["labels"], seed)
        target["more"] = "kept"
        values = draws(count, seed)
        ours = getattr(mixing, name)(images, target, *values)
        tensors = [tf.constant(value) for value in values]
        target = tf.nest.map_structure(lambda x: x, target)
        graph = {k: tf.constant(v) for k, v in target.items() if k != "more"}
        theirs = getattr(box_mixing, name)(tf.constant(images), graph, *tensors)
        theirs[1]["more"] = target["more"]
        check_same(ours, theirs)


def test_mixup_is_equal_too(monkeypatch):
    own = np.array([0.5, 1.0, 0.3, 0.9, 0.5], np.float32)
    monkeypatch.setattr("visionkit.data.mixing._own_share", lambda *_: own)
    images, target = batch()
    theirs = MixUp()(images, target, tf.constant([0, 0]))
    images, mixed = mixing.mixup(images, target, own)
    np.testing.assert_array_equal(images, theirs[0])
    for key in ("boxes", "labels"):
        np.testing.assert_array_equal(mixed[key], theirs[1][key])
    np.testing.assert_array_equal(images[1], batch()[0][1])
    assert (np.asarray(mixed["labels"][1]) == -1).all()


def test_mixup_keeps_each_mask_beside_its_box():
    images, target = batch()
    rows = np.arange(target["labels"].size).reshape(target["labels"].shape)
    target["boxes"] = np.broadcast_to(rows[..., None], (*rows.shape, 4)) + 0.0
    masks = np.broadcast_to(rows[..., None, None], (*rows.shape, 2, 2))
    own = np.full(len(images), 0.5, np.float32)
    _, mixed = mixing.mixup(images, {**target, "masks": masks}, own)
    found = np.asarray(mixed["labels"]) >= 0
    assert found.sum() > (target["labels"] >= 0).sum()
    np.testing.assert_array_equal(
        np.asarray(mixed["masks"])[found][:, 0, 0],
        np.asarray(mixed["boxes"])[found][:, 0],
    )


def test_both_sides_drop_by_the_same_rules():
    for name in ("MIN_VISIBLE", "MIN_SIDE"):
        assert getattr(mixing, name) == getattr(targets, name)
    assert instance_mixing.MIN_CUT == targets.MIN_CUT
    assert mixing.MIN_PASTED == box_mixing.MIN_PASTED


def test_random_mixing_follows_its_seed_and_its_probability():
    images, target = batch(40)
    ways = (mixing.random_mosaic, mixing.random_mixup, mixing.random_copy_paste)
    for way in ways:
        first, second, third = (
            way(images, target, keras.random.SeedGenerator(seed), p=0.5)
            for seed in (1, 1, 2)
        )
        np.testing.assert_array_equal(first[0], second[0])
        np.testing.assert_array_equal(first[1]["boxes"], second[1]["boxes"])
        assert (np.asarray(first[0]) != np.asarray(third[0])).any()
        changed = (np.asarray(first[0]) != images).any(axis=(1, 2, 3))
        assert 0.15 < changed.mean() < 0.8
        none, _ = way(images, target, keras.random.SeedGenerator(1), p=0.0)
        np.testing.assert_array_equal(none, images)


@pytest.mark.slow
def test_jax_compiles_it_and_finds_the_same(tmp_path):
    images, target = batch()
    masks = blobs(target["labels"])
    draws, chosen = mosaic_draws(5, 3), copy_draws(5, 3)[0]
    file = tmp_path / "batch.npz"
    np.savez(file, images, target["boxes"], target["labels"], masks, chosen, *draws)
    code = (
        "import sys, jax, numpy as np; from visionkit.ops import mixing\n"
        "images, boxes, labels, masks, chosen, *draws = np.load(sys.argv[1]).values()\n"
        "found = []\n"
        "for more in ({}, {'masks': masks}):\n"
        "    target = {'boxes': boxes, 'labels': labels, **more}\n"
        "    mixed, target = jax.jit(mixing.mosaic)(images, target, *draws)\n"
        "    mixed, target = jax.jit(mixing.copy_paste)(mixed, target, chosen)\n"
        "    found += [mixed, *(target[key] for key in sorted(target))]\n"
        "assert 'tensorflow' not in sys.modules\n"
        "np.savez(sys.argv[1], *found)"
    )
    subprocess.run(
        [sys.executable, "-c", code, str(file)],
        check=True,
        env={"KERAS_BACKEND": "jax", "PATH": "", "JAX_PLATFORMS": "cpu"},
    )
    found = list(np.load(file).values())
    for more in ({}, {"masks": masks}):
        mixed, mapped = mixing.mosaic(images, {**target, **more}, *draws)
        mixed, mapped = mixing.copy_paste(mixed, mapped, chosen)
        difference = np.abs(found.pop(0).astype(int) - np.asarray(mixed))
        assert (difference > 1).mean() < 1e-3 and (difference > 0).mean() < 2e-3
        np.testing.assert_allclose(found.pop(0), mapped["boxes"], atol=1e-3)
        np.testing.assert_array_equal(found.pop(0), mapped["labels"])
        if more:
            assert (found.pop(0) != np.asarray(mapped["masks"])).mean() < 1e-3
