"""What every entry of a table must do; the tables' tests call these."""

from __future__ import annotations

import keras
import numpy as np


def check_backbone(name: str, folder, *, compiled: bool = True) -> None:
    """Levels, sizes, channels, dtypes, XLA, saving, freezing and mixed precision.

    Args:
        name: A key of `BACKBONES`.
        folder: An empty folder to save into.
        compiled: Whether to compile with XLA too (seconds, TensorFlow only).
    """
    from visionkit.backbones import CLASSIFICATION_ONLY, build_backbone

    backbone = build_backbone(name)
    assert backbone.name == name
    assert backbone.input.name == "images"
    levels = list(backbone.output)
    assert levels == sorted(levels)
    pyramid = name not in CLASSIFICATION_ONLY
    for height, width in ((72, 96), (75, 101)):
        images = _images(height, width, 3)
        features = backbone.predict_on_batch(images)
        fixed = build_backbone(name, (height, width)).output
        for level, value in features.items():
            assert fixed[level].shape[1:] == value.shape[1:]
            stride = 2 ** int(level[1:])
            if pyramid:
                assert value.shape[1:3] == (-(-height // stride), -(-width // stride))
    _check_equal(backbone(images.astype("float32")), features)

    backbone.save(folder / "backbone.keras")
    reloaded = keras.models.load_model(folder / "backbone.keras")
    _check_equal(reloaded.predict_on_batch(images), features)
    if compiled and keras.backend.backend() == "tensorflow":
        _check_compiled(backbone, images, features)
    _check_frozen(name, levels[0], folder)
    _check_grey_half_precision(name)


def _images(height: int, width: int, channels: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (2, height, width, channels), dtype="uint8")


def _check_equal(actual, expected, tolerance: float = 1e-5) -> None:
    """Equal levels, relative to the largest value of each."""
    assert actual.keys() == expected.keys()
    for level, value in expected.items():
        atol = tolerance * np.abs(value).max()
        np.testing.assert_allclose(actual[level], value, rtol=0, atol=atol)


def _check_compiled(backbone, images, features) -> None:
    """Nested in another model and under XLA, the features are the same."""
    import tensorflow as tf

    inputs = keras.Input(images.shape[1:])
    outer = keras.Model(inputs, backbone(inputs))
    compiled = tf.function(outer, jit_compile=True)
    _check_equal(compiled(images.astype("float32")), features, tolerance=1e-4)


def _check_frozen(name: str, level: str, folder) -> None:
    """Up to a level nothing trains or moves, beyond it everything does, also saved."""
    from visionkit.backbones import build_backbone

    backbone = build_backbone(name, (72, 96), freeze=(level,))
    backbone.save(folder / "frozen.keras")
    reloaded = keras.models.load_model(folder / "frozen.keras")
    images = _images(72, 96, 3).astype("float32")
    for model in (backbone, reloaded):
        below = {x.name for x in keras.Model(model.input, model.output[level]).layers}
        for layer in model.layers:
            if layer.weights:
                assert layer.trainable == (layer.name not in below)
        # Training mode, so that statistics of batch normalisation would move.
        before = model(images, training=False)[level]
        np.testing.assert_allclose(model(images, training=True)[level], before)
        np.testing.assert_allclose(model(images, training=False)[level], before)


def _check_grey_half_precision(name: str) -> None:
    """One channel, in half precision: images enter in float32, features are finite."""
    from visionkit.backbones import build_backbone

    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        backbone = build_backbone(name, (72, 96), channels=1)
    finally:
        keras.config.set_dtype_policy(policy)
    assert backbone.input.dtype == "float32"
    normalizations = [x for x in backbone.layers if _normalizes(x)]
    assert normalizations or name.startswith("keras_cv.")
    assert all(layer.output.dtype == "float32" for layer in normalizations)
    for value in backbone(_images(72, 96, 1)).values():
        assert keras.backend.standardize_dtype(value.dtype) == "bfloat16"
        assert np.isfinite(
            keras.ops.convert_to_numpy(keras.ops.cast(value, "float32"))
        ).all()


def _normalizes(layer) -> bool:
    kinds = ("ImageNormalization", "Normalization", "Rescaling")
    return type(layer).__name__ in kinds


def check_task(build, images, target, folder) -> None:
    """What every task's model must do: XLA, learning, saving, half precision.

    Args:
        build: Makes a fresh, uncompiled `VisionTask`.
        images: (B, h, w, C) uint8, a few that can be told apart.
        target: As its loss reads it.
        folder: An empty folder to save into.
    """
    import visionkit as vk

    # One XLA step gives the loss and the weights of a plain one.
    losses, weights = [], []
    for jit_compile in (True, False):
        keras.utils.set_random_seed(0)
        model = build()
        model.compile(keras.optimizers.SGD(1e-2), jit_compile=jit_compile)
        losses.append(model.train_on_batch(images, target, return_dict=True)["loss"])
        weights.append([keras.ops.convert_to_numpy(w) for w in model.weights])
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-3)
    for compiled, plain in zip(*weights, strict=True):
        np.testing.assert_allclose(compiled, plain, rtol=1e-3, atol=1e-4)

    model.compile(keras.optimizers.Adam(3e-3))
    traces = _count_traces(model)
    history = model.fit(images, target, batch_size=len(images), epochs=20, verbose=0)
    del model.train_step
    assert len(traces) == 1
    assert history.history["loss"][-1] < 0.8 * history.history["loss"][0]
    answers = model.predict(images, verbose=0)
    scores = model.evaluate(images, target, verbose=0)

    model.save(folder / "task.keras")
    again = vk.load(folder / "task.keras")
    assert type(again) is type(model) and again.compiled
    assert again.preprocessing == model.preprocessing
    assert again.class_names == model.class_names
    for name, value in again.predict(images, verbose=0).items():
        np.testing.assert_allclose(value, answers[name], atol=1e-5)
    np.testing.assert_allclose(again.evaluate(images, target, verbose=0), scores, 1e-4)
    # Training goes on with the optimizer's state.
    assert int(again.optimizer.iterations) == int(model.optimizer.iterations)
    again.fit(images, target, verbose=0)

    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        half = build()
    finally:
        keras.config.set_dtype_policy(policy)
    half.compile(keras.optimizers.SGD(1e-3))
    history = half.fit(images, target, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    for output in keras.tree.flatten(half(images)):
        assert keras.backend.standardize_dtype(output.dtype) == "float32"
        assert np.isfinite(keras.ops.convert_to_numpy(output)).all()


def _count_traces(model) -> list:
    """A list that grows with each trace of a training step."""
    step, traces = model.train_step, []

    def counted(*args):
        traces.append(args)
        return step(*args)

    model.train_step = counted
    return traces


def check_segmenter(build, folder, *, compiled: bool = True) -> None:
    """What every network for semantic segmentation must do.

    Args:
        build: Makes a fresh, uncompiled `Segmenter` of three classes for an image size,
            (height, width) or (None, None), without dropout.
        folder: An empty folder to save into.
        compiled: Whether to go through `check_task` too (an XLA compilation).
    """
    images, masks = drawn_masks((64, 96))
    if compiled:
        check_task(lambda: build((64, 96)), images, masks, folder)

    model = build((None, None))
    assert model.preprocessing.resize == "letterbox"
    model.compile(keras.optimizers.SGD(1e-3))
    for size in ((75, 101), (64, 33)):  # one graph, any size, also odd ones
        images, masks = drawn_masks(size)
        logits = model(images)
        assert tuple(logits.shape) == (len(images), *size, 3)
        assert keras.backend.standardize_dtype(logits.dtype) == "float32"
        answers = model.predict(images, verbose=0)
        np.testing.assert_allclose(answers["logits"], logits, atol=1e-4)
        best = answers["logits"].argmax(-1)
        assert answers["segmentation"].dtype == "uint8"
        np.testing.assert_array_equal(answers["segmentation"], best)
    fixed = build((64, 33))
    assert fixed.output.shape == (None, 64, 33, 3)
    fixed.set_weights(model.get_weights())
    np.testing.assert_allclose(fixed(images), logits, atol=1e-4)

    # Shares of the classes are truth as well, and nothing but void teaches nothing.
    labels = model.evaluate(images, masks, verbose=0, return_dict=True)
    shares = np.eye(256, dtype="float32")[masks][..., :3]
    scores = model.evaluate(images, shares, verbose=0, return_dict=True)
    assert set(scores) == {"loss", "mean_iou", "pixel_accuracy"}
    for name, value in scores.items():
        assert abs(value - labels[name]) < 1e-4
    before = model.trainable_weights[-1].numpy()
    void = np.full_like(masks, 255)
    logs = model.train_on_batch(images, void, return_dict=True)
    assert logs["loss"] == 0 and np.isfinite(list(logs.values())).all()
    np.testing.assert_array_equal(model.trainable_weights[-1].numpy(), before)


def drawn_masks(size, count: int = 2):
    """Images (count, h, w, 3) with a red (1) and a green (2) rectangle, and masks.

    Background is 0, and a row of the mask is void (255).
    """
    height, width = size
    rng = np.random.default_rng(0)
    images = rng.integers(0, 60, (count, height, width, 3), "uint8")
    masks = np.zeros((count, height, width), "uint8")
    for i in range(count):
        for label in (1, 2):
            y, x = rng.integers(0, height // 2), rng.integers(0, width // 2)
            place = np.s_[i, y : y + height // 3, x : x + width // 3]
            images[place][..., label - 1] = 220
            masks[place] = label
        masks[i, height // 2] = 255
    return images, masks
