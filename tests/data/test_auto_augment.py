"""Single operations against Pillow; which are drawn, how strong, and from what seed."""

import collections

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance, ImageOps
from sklearn.datasets import load_sample_image

from visionkit.data import image_ops
from visionkit.data.auto_augment import (
    RAND_AUGMENT_OPS,
    SUB_POLICIES,
    AutoAugment,
    RandAugment,
    _policy_table,
)
from visionkit.types import PAD_VALUE

FILL = (PAD_VALUE,) * 3


@pytest.fixture(scope="module", params=["china.jpg", "flower.jpg"])
def photo(request):
    """A photograph of (75, 101)."""
    return Image.fromarray(load_sample_image(request.param)).resize((101, 75))


def affine(*matrix):
    def transform(image):
        return image.transform(
            image.size, Image.Transform.AFFINE, matrix, fillcolor=FILL
        )

    return transform


def enhance(kind, factor):
    return lambda image: kind(image).enhance(factor)


SHIFT = 150 / 331
CASES = [
    ("identity", 1.0, lambda image: image),
    ("shear_x", 0.9, affine(1, 0.27, 0, 0, 1, 0)),
    ("shear_x", -0.5, affine(1, -0.15, 0, 0, 1, 0)),
    ("shear_y", 0.7, affine(1, 0, 0, 0.21, 1, 0)),
    ("translate_x", 0.9, affine(1, 0, round(0.9 * SHIFT * 101), 0, 1, 0)),
    ("translate_y", -0.4, affine(1, 0, 0, 0, 1, round(-0.4 * SHIFT * 75))),
    ("rotate", 0.9, lambda image: image.rotate(27, fillcolor=FILL)),
    ("rotate", -0.3, lambda image: image.rotate(-9, fillcolor=FILL)),
    ("brightness", 0.5, enhance(ImageEnhance.Brightness, 1.45)),
    ("brightness", -1.0, enhance(ImageEnhance.Brightness, 0.1)),
    ("color", 1.0, enhance(ImageEnhance.Color, 1.9)),
    ("color", -0.9, enhance(ImageEnhance.Color, 0.19)),
    ("contrast", 0.9, enhance(ImageEnhance.Contrast, 1.81)),
    ("contrast", -0.9, enhance(ImageEnhance.Contrast, 0.19)),
    ("sharpness", 0.9, enhance(ImageEnhance.Sharpness, 1.81)),
    ("sharpness", -0.9, enhance(ImageEnhance.Sharpness, 0.19)),
    ("posterize", 1.0, lambda image: ImageOps.posterize(image, 4)),
    ("posterize", 0.3, lambda image: ImageOps.posterize(image, 7)),
    ("solarize", 0.75, lambda image: ImageOps.solarize(image, 64)),
    ("solarize", 0.0, lambda image: image),
    ("invert", 1.0, ImageOps.invert),
    ("auto_contrast", 1.0, ImageOps.autocontrast),
    ("equalize", 1.0, ImageOps.equalize),
]


@pytest.mark.parametrize(("name", "level", "pillow"), CASES, ids=lambda v: str(v)[:13])
def test_operation_is_pillows(photo, name, level, pillow):
    image = photo
    if name == "auto_contrast":  # the photograph has both ends already
        image = Image.fromarray((np.asarray(photo) // 2 + 40).astype(np.uint8))
    operation = tf.function(getattr(image_ops, name))
    ours = operation(tf.constant(np.asarray(image)), tf.constant(level)).numpy()
    theirs = np.asarray(pillow(image)).astype(int)
    assert ours.dtype == np.uint8
    difference = abs(ours - theirs).max(axis=-1)
    # Nearest neighbours may differ where a place is halfway between two pixels, and
    # Pillow cuts off the fractions that we round.
    halfway = 0.01 if name.startswith(("shear", "rotate")) else 0.0
    assert (difference > 2).mean() <= halfway
    assert (difference > 1).mean() <= halfway + 0.001
    if name != "identity" and level:
        assert (ours != np.asarray(image)).any()


@pytest.mark.parametrize("name", sorted({name for name, *_ in CASES}))
def test_operations_take_one_channel_flat_images_and_any_level(name):
    operation = tf.function(getattr(image_ops, name))
    grey = np.arange(20 * 30, dtype=np.uint8).reshape(20, 30, 1)
    flat = np.full((20, 30, 3), 77, np.uint8)
    for image in (grey, flat):
        for level in (-3.0, 0.0, 3.0):
            out = operation(tf.constant(image), tf.constant(level))
            assert out.shape == image.shape and out.dtype == tf.uint8
    if name in ("auto_contrast", "equalize", "sharpness", "color", "contrast"):
        np.testing.assert_array_equal(operation(tf.constant(flat), 0.5), flat)


def test_zero_magnitude_keeps_but_for_what_has_no_strength():
    image = tf.constant(
        np.random.default_rng(0).integers(0, 256, (16, 24, 3), np.uint8)
    )
    for name in set(RAND_AUGMENT_OPS) - {"auto_contrast", "equalize"}:
        np.testing.assert_array_equal(getattr(image_ops, name)(image, 0.0), image)


def close(a, b):
    return (abs(a.astype(int) - b).max(axis=-1) > 1).mean() < 0.005


def draw(transform, image, count=60):
    run = tf.function(lambda seed: transform({"images": image}, seed)["images"])
    return [run(tf.constant([5, i], tf.int64)).numpy() for i in range(count)]


def test_rand_augment_draws_every_operation_evenly(photo):
    image = tf.constant(np.asarray(photo))
    outs = draw(RandAugment(1, 9), image, 280)
    kinds = collections.Counter()
    expected = {
        (name, sign): getattr(image_ops, name)(image, tf.constant(sign * 0.9)).numpy()
        for name in RAND_AUGMENT_OPS
        for sign in (-1, 1)
    }
    for out in outs:
        found = {name for (name, _), e in expected.items() if close(out, e)}
        assert found
        kinds[min(found)] += 1
    assert len(kinds) >= 12  # an operation may change nothing in a photograph
    assert max(kinds.values()) < 70


def test_draws_depend_on_the_seed_alone_and_shapes_are_static(picture):
    image = tf.constant(np.asarray(picture(75, 101)))
    for transform in (RandAugment(), AutoAugment(), AutoAugment("cifar10")):
        first, second = draw(transform, image, 8), draw(transform, image, 8)
        np.testing.assert_array_equal(first, second)
        assert len({out.tobytes() for out in first}) > 4
        spec = tf.data.Dataset.from_tensors(image).map(
            lambda x, t=transform: t({"images": x}, tf.constant([1, 2]))["images"]
        )
        assert spec.element_spec.shape == (75, 101, 3)


@pytest.mark.parametrize("policy", SUB_POLICIES)
def test_auto_augment_tables_are_whole(policy):
    names, table = _policy_table(policy)
    assert table.shape == (25, 2, 4) and names[0] == "identity"
    assert all(hasattr(image_ops, name) for name in names)
    assert (table[..., 0] >= 1).all() and (abs(table[..., 2]) <= 1).all()
    assert ((table[..., 1] >= 0) & (table[..., 1] <= 1)).all()


def test_auto_augment_levels_follow_the_published_ranges():
    names, table = _policy_table("imagenet")

    def find(pair, op):
        which, p, level, signed = table[pair, op].tolist()
        return names[int(which)], round(p, 2), round(level, 4), bool(signed)

    assert find(0, 0) == ("posterize", 0.4, round(8 / 9, 4), False)
    assert find(0, 1) == ("rotate", 0.6, 1.0, True)
    assert find(10, 1) == ("color", 0.4, -1.0, False)  # a factor of 0.1
    assert find(14, 1) == ("contrast", 1.0, round(7 / 9, 4), False)
    assert find(1, 1) == ("auto_contrast", 0.6, 0.0, False)
