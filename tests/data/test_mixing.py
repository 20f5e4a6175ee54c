"""Mixed pixels and labels agree; when is a function of the position alone."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
from pictures import MemorySource, classification_source, encode
from PIL import Image

from visionkit.data.mixing import CutMix, MixUp, soft_labels
from visionkit.data.pipeline import Order, make_dataset
from visionkit.data.transforms import build_transforms
from visionkit.types import VOID_CLASS, Preprocessing

SEED = tf.constant([3, 4], tf.int64)
INPUT = Preprocessing((24, 32))


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (64, 20, 30, 3), np.uint8)
    labels = soft_labels(tf.constant(np.arange(64) % 5, tf.int32), 5)
    return tf.constant(images), {"labels": labels}


def test_mixup_blends_pixels_and_labels_alike(batch):
    images, target = batch
    mixed, labels = tf.function(MixUp(0.4))(images, target, SEED)
    labels = labels["labels"].numpy()
    assert mixed.dtype == tf.uint8 and labels.dtype == np.float32
    np.testing.assert_allclose(labels.sum(axis=1), 1, atol=1e-6)
    own = labels[np.arange(64), np.arange(64) % 5][:, None, None, None]
    x = images.numpy().astype(np.float32)
    expected = own * x + (1 - own) * np.roll(x, 1, axis=0)
    assert abs(mixed.numpy() - expected).max() <= 0.51
    assert own.min() < 0.1 and own.max() > 0.9  # Beta(0.4, 0.4) likes the ends


def test_weights_are_beta():
    images = tf.zeros((4000, 1, 1, 3), tf.uint8)
    labels = soft_labels(tf.range(4000) % 2, 2)
    for alpha in (0.2, 1.0, 5.0):
        _, target = MixUp(alpha)(images, {"labels": labels}, SEED)
        own = target["labels"].numpy()[np.arange(4000), np.arange(4000) % 2]
        assert own.mean() == pytest.approx(0.5, abs=0.03)
        assert own.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.1)


def test_cutmix_pastes_one_window_and_counts_its_pixels(batch):
    images, target = batch
    mixed, labels = tf.function(CutMix())(images, target, SEED)
    x, partner = images.numpy(), np.roll(images.numpy(), 1, axis=0)
    pasted = (mixed.numpy() != x).any(axis=-1)
    for i in range(64):
        if pasted[i].any():
            ys, xs = np.nonzero(pasted[i])
            box = np.s_[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1]
            np.testing.assert_array_equal(mixed[i].numpy()[box], partner[i][box])
            area = (ys.max() + 1 - ys.min()) * (xs.max() + 1 - xs.min())
        else:
            area = 0
        own = labels["labels"][i, i % 5].numpy()
        assert own == pytest.approx(1 - area / 600, abs=1e-6)
    assert 0.2 < pasted.mean() < 0.45  # a half of the area, less what is cut off


def test_p_is_the_share_of_images_that_change(batch):
    images, target = batch
    for mixer in (MixUp(1.0, p=0.3), CutMix(p=0.3)):
        out, labels = mixer(images, target, SEED)
        changed = (out.numpy() != images.numpy()).any(axis=(1, 2, 3))
        assert 0.1 < changed.mean() < 0.5
        untouched = labels["labels"].numpy()[~changed]
        np.testing.assert_array_equal(untouched, target["labels"].numpy()[~changed])
        out, labels = type(mixer)(p=0.0)(images, target, SEED)
        np.testing.assert_array_equal(out, images)
        np.testing.assert_array_equal(labels["labels"], target["labels"])


def batches(count, transforms, order=Order(7), size=4, **options):  # noqa: B008
    source = classification_source(12)
    dataset = make_dataset(
        source,
        INPUT,
        size,
        transforms=build_transforms(transforms),
        order=order,
        **options,
    )
    return list(itertools.islice(dataset.as_numpy_iterator(), count))


def test_targets_are_soft_and_static_in_every_batch():
    source = classification_source(12)
    transforms = build_transforms([{"mixup": {"p": 0.0}}])
    dataset = make_dataset(source, INPUT, 4, transforms=transforms, order=Order(0))
    assert dataset.element_spec == (
        tf.TensorSpec((4, 24, 32, 3), tf.uint8),
        tf.TensorSpec((4, 12), tf.float32),
    )
    ((_, labels),) = dataset.take(1)
    assert set(np.unique(labels)) == {0.0, 1.0}
    ((_, target),) = batches(1, ["cutmix"], with_ids=True)
    assert set(target) == {"labels", "image_id", "image_size"}
    own = target["labels"][np.arange(4), target["image_id"]]
    assert (own > 0).all() and target["labels"].shape == (4, 12)


def assert_same(ours, theirs):
    for (x, y), (a, b) in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(x, a)
        np.testing.assert_array_equal(y, b)


def test_two_runs_are_equal_and_a_resumed_one_goes_on():
    transforms = ["flip", {"mixup": {"off_last_epochs": 1}}, "cutmix"]
    whole = batches(9, transforms, Order(7, epochs=3))
    assert_same(whole, batches(9, transforms, Order(7, epochs=3)))
    assert_same(whole[5:], batches(4, transforms, Order(7, 1, 2, epochs=3)))


def test_the_last_epochs_mix_nothing():
    transforms = [{"mixup": {"alpha": 5.0, "off_last_epochs": 2}}]
    found = batches(15, transforms, Order(7, epochs=4))  # 3 batches each
    mixed = [bool(((y > 0) & (y < 1)).any()) for _, y in found]
    assert mixed == [True] * 6 + [False] * 9
    plain = batches(15, [], Order(7))
    for (x, y), (a, label) in zip(found[6:], plain[6:], strict=True):
        np.testing.assert_array_equal(x, a)
        np.testing.assert_array_equal(y.argmax(axis=1), label)


def test_of_two_mixers_one_is_drawn_for_each_batch():
    found = batches(60, [{"mixup": {"alpha": 8.0}}, "cutmix"])
    plain = batches(60, [])
    kinds = []
    for (x, _), (a, _) in zip(found, plain, strict=True):
        # The middle row is no border: all of it is blended, or part of it replaced.
        values = (x != a).any(axis=-1)[:, 12].mean(axis=1)
        kinds.append("mixup" if values.min() > 0.7 else "cutmix")
    assert 18 < kinds.count("mixup") < 42


def test_a_batch_of_one_and_labels_of_many():
    ((image, label),) = batches(1, ["mixup"], size=1)
    assert label.max() == 1.0 and image.shape == (1, 24, 32, 3)
    many = tf.constant([[1.0, 1, 0], [0, 1, 1]])
    images = tf.zeros((2, 4, 4, 3), tf.uint8)
    _, target = MixUp(1.0)(images, {"labels": soft_labels(many, 3)}, SEED)
    np.testing.assert_allclose(target["labels"][:, 1], 1.0, atol=1e-6)


def test_cutmix_takes_masks_along():
    records = []
    for index in range(6):
        mask = np.full((24, 32), index, np.uint8)
        pixels = np.full((24, 32, 3), index * 40, np.uint8)
        records.append(
            {
                "encoded": encode(Image.fromarray(pixels)),
                "mask_encoded": encode(Image.fromarray(mask)),
            }
        )
    source = MemorySource(records, "semantic_segmentation", 6)
    dataset = make_dataset(
        source,
        Preprocessing((24, 32), "stretch"),
        6,
        transforms=build_transforms(["cutmix"]),
        order=Order(1),
    )
    ((images, masks),) = dataset.take(1)
    np.testing.assert_array_equal(images[..., 0], masks.numpy() * 40)
    assert masks.dtype == tf.uint8
    assert any(len(np.unique(mask)) == 2 for mask in masks)


def test_what_cannot_be_mixed_is_refused():
    source = classification_source(4)
    mixup = build_transforms([{"mixup": {"off_last_epochs": 1}}])
    with pytest.raises(ValueError, match=r"`mixup` changes the batches of a training"):
        make_dataset(source, INPUT, 2, transforms=mixup)
    with pytest.raises(ValueError, match=r"needs the number of epochs.*epochs=\.\.\."):
        make_dataset(source, INPUT, 2, transforms=mixup, order=Order(0))
    instances = MemorySource([{"encoded": b""}] * 2, "instance_segmentation")
    with pytest.raises(ValueError, match=r"`mixup` is for classification"):
        make_dataset(instances, INPUT, 2, transforms=mixup, order=Order(0, epochs=3))


def masks_source(count=8):
    """Grey pictures of value 40 * class, the lower rows void."""
    records = []
    for index in range(count):
        mask = np.full((24, 32), index % 4, np.uint8)
        mask[20 - index :] = VOID_CLASS
        pixels = np.full((24, 32, 3), 40 * (index % 4), np.uint8)
        encoded = [encode(Image.fromarray(a)) for a in (pixels, mask)]
        records.append(dict(zip(("encoded", "mask_encoded"), encoded, strict=True)))
    return MemorySource(records, "semantic_segmentation")


@pytest.mark.parametrize("more", [(), ({"cutmix": {"p": 0.7}},)], ids=["", "cutmix"])
def test_mixup_makes_shares_of_masks(more):
    mixers = build_transforms([{"mixup": {"alpha": 1.0, "p": 0.8}}, *more])
    dataset = make_dataset(
        masks_source(), INPUT, 4, transforms=mixers, order=Order(2, epochs=3)
    )
    blended = 0
    for images, masks in dataset.take(8):
        assert masks.shape == (4, 24, 32, 4) and masks.dtype == tf.float32
        total = masks.numpy().sum(axis=-1)
        seen = total > 0
        np.testing.assert_allclose(total[seen], 1, atol=1e-6)
        assert not seen[:, 20:].any() and seen[:, :12].all()
        # The grey level is the mean of the classes' levels, by their shares.
        level = (masks.numpy() * [0, 40, 80, 120]).sum(axis=-1)
        assert np.abs(level - images.numpy()[..., 0])[seen].max() <= 0.51
        blended += ((masks.numpy() > 0.01).sum(axis=-1) > 1).any()
    assert blended


def test_a_mask_that_is_not_blended_keeps_its_void():
    source = masks_source()
    mixers = build_transforms([{"mixup": {"p": 0.0}}])
    dataset = make_dataset(source, INPUT, 4, transforms=mixers, order=Order(2))
    plain = make_dataset(source, INPUT, 4, order=Order(2))
    for (_, shares), (_, masks) in zip(dataset.take(2), plain.take(2), strict=True):
        np.testing.assert_array_equal(shares, tf.one_hot(masks, 4))
