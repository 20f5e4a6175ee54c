"""Mixed images have the boxes of what is seen in them, and of nothing else."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
from scenes_of_shapes import shapes_source

from visionkit.data.box_mixing import CopyPaste, Mosaic, copy_paste, mosaic
from visionkit.data.mixing import MixUp
from visionkit.data.pipeline import Order, make_dataset
from visionkit.data.report import DataReport
from visionkit.data.targets import choose_max_boxes, share_without_room
from visionkit.data.transforms import build_transforms
from visionkit.types import PAD_VALUE, Preprocessing

SIZE = (48, 64)
INPUT = Preprocessing(SIZE)


def flat(values, boxes, rows=4):
    """Images of one grey level each, and padded boxes whose label is the index."""
    images = np.stack([np.full((*SIZE, 3), value, np.uint8) for value in values])
    padded = np.full((len(values), rows, 4), 7.0, np.float32)
    labels = np.full((len(values), rows), -1, np.int32)
    for i, own in enumerate(boxes):
        padded[i, : len(own)] = np.reshape(own, (-1, 4))
        labels[i, : len(own)] = i
    target = {"boxes": tf.constant(padded), "labels": tf.constant(labels)}
    return tf.constant(images), target


def rows_of(target, index):
    labels = target["labels"][index].numpy()
    return labels[labels >= 0].tolist(), target["boxes"][index].numpy()[labels >= 0]


def test_mosaic_of_four_halves():
    images, target = flat([10, 60, 160, 220], [[[8, 8, 56, 40]]] * 4)
    drawn = tf.constant([True, True, False, True])
    scale, point = tf.constant([0.5, 1.0, 1.0, 0.25]), tf.fill((4, 2), 0.5)
    mixed, mapped = tf.function(mosaic)(images, target, drawn, scale, point)
    mixed = mixed.numpy()[..., 0]
    quarters = [np.s_[:24, :32], np.s_[:24, 32:], np.s_[24:, :32], np.s_[24:, 32:]]
    for quarter, value in zip(quarters, [10, 220, 160, 60], strict=True):
        assert (mixed[0][quarter] == value).all()
    labels, boxes = rows_of(mapped, 0)
    assert labels == [0, 3, 2, 1]
    np.testing.assert_allclose(
        boxes, [[4, 4, 28, 20], [36, 4, 60, 20], [4, 28, 28, 44], [36, 28, 60, 44]]
    )
    # At full size a quarter of each image is left, and of each box.
    assert rows_of(mapped, 1)[0] == [1, 0, 3, 2]
    np.testing.assert_allclose(rows_of(mapped, 1)[1][0], [0, 0, 24, 16])
    np.testing.assert_array_equal(mixed[2], images[2, ..., 0])
    assert rows_of(mapped, 2)[0] == [2]
    assert (mixed[3][:12] == PAD_VALUE).all() and (mixed[3][:, 48:] == PAD_VALUE).all()
    assert (mixed[3][12:24, 16:32] == 220).all()


def test_what_finds_no_room_is_dropped_from_the_end():
    boxes = [[[2, 2, 30, 20], [33, 2, 60, 20], [2, 26, 60, 44]]] * 4
    images, target = flat([10, 60, 160, 220], boxes)
    ones = tf.ones(4)
    _, mapped = mosaic(images, target, ones > 0, ones / 2, tf.fill((4, 2), 0.5))
    assert rows_of(mapped, 0)[0] == [0, 0, 0, 3]
    assert mapped["labels"].shape == (4, 4) and mapped["boxes"].shape == (4, 4, 4)


def test_mosaic_drops_what_is_hardly_visible():
    images, target = flat([1, 2, 3, 4], [[[0, 0, 33, 47], [0, 0, 60, 20]]] * 4)
    ones = tf.ones(4)
    # Of the first image only the lower right quarter is seen.
    _, mapped = mosaic(images, target, ones > 0, ones, tf.fill((4, 2), 0.5))
    labels, boxes = rows_of(mapped, 0)
    assert labels.count(0) == 0 and (boxes[:, 2:] - boxes[:, :2] >= 1).all()


def test_mixup_has_the_boxes_of_both():
    images, target = flat([0, 200, 100], [[[1, 1, 9, 9]], [], [[5, 5, 20, 20]]])
    mixed, mapped = MixUp(p=1.0)(images, target, tf.constant([3, 4]))
    assert [rows_of(mapped, i)[0] for i in range(3)] == [[0, 2], [0], [2]]
    levels = mixed.numpy()[:, 0, 0, 0]
    assert 30 < levels[0] < 70 and 70 < levels[1] < 130  # about half and half
    mixed, mapped = MixUp(p=0.0)(images, target, tf.constant([3, 4]))
    np.testing.assert_array_equal(mixed, images)
    assert [rows_of(mapped, i)[0] for i in range(3)] == [[0], [], [2]]


def test_copy_paste_by_a_loop_over_pixels():
    rng = np.random.default_rng(0)
    for _ in range(12):
        corners = rng.integers(0, SIZE[::-1], (4, 3, 2, 2))
        boxes = np.concatenate([corners.min(axis=2), corners.max(axis=2) + 1], axis=-1)
        images, target = flat([10, 60, 160, 220], boxes, rows=6)
        chosen = rng.random((4, 6)) < 0.5
        mixed, mapped = copy_paste(images, target, tf.constant(chosen))
        for i in range(4):
            pasted = np.zeros(SIZE, bool)
            for (x1, y1, x2, y2), use in zip(boxes[i - 1], chosen[i], strict=False):
                pasted[y1:y2, x1:x2] |= use
            expected = np.where(pasted, images[i - 1, ..., 0], images[i, ..., 0])
            np.testing.assert_array_equal(mixed[i, ..., 0], expected)
            shares = [
                [pasted[y1:y2, x1:x2].mean() for x1, y1, x2, y2 in boxes[j]]
                for j in (i, i - 1)
            ]
            own = boxes[i][np.array(shares[0]) <= 0.9]
            come = boxes[i - 1][(np.array(shares[1]) >= 0.5) & pasted.any()]
            labels, found = rows_of(mapped, i)
            assert labels == [i] * len(own) + [(i - 1) % 4] * len(come)
            np.testing.assert_array_equal(found, np.concatenate([own, come]))


@pytest.mark.parametrize("mixer", [Mosaic(), MixUp(), CopyPaste(p=1.0, share=1.0)])
def test_a_batch_of_one_and_one_without_boxes(mixer):
    for boxes in ([[[8, 8, 56, 40]]], [[]]):
        images, target = flat([10], boxes, rows=8)
        mixed, mapped = mixer(images, target, tf.constant([1, 2]))
        labels, found = rows_of(mapped, 0)
        assert mixed.shape == images.shape and np.isfinite(found).all()
        if not isinstance(mixer, Mosaic):
            assert len(labels) == len(boxes[0])
    images, target = flat([1, 2], [[], []])
    _, mapped = mixer(images, target, tf.constant([1, 2]))
    assert (mapped["labels"].numpy() == -1).all()


MIXERS = [
    {"mosaic": {"p": 0.7, "off_last_epochs": 1}},
    {"mixup": {"p": 0.5, "off_last_epochs": 1}},
    {"copy_paste": {"p": 0.5, "off_last_epochs": 1}},
]


def batches(count, order, source=None):
    source = source or shapes_source("detection", 12)
    dataset = make_dataset(
        source, INPUT, 4, transforms=build_transforms(MIXERS), order=order
    )
    assert dataset.element_spec == (
        tf.TensorSpec((4, *SIZE, 3), tf.uint8),
        {
            "boxes": tf.TensorSpec((4, 48, 4), tf.float32),
            "labels": tf.TensorSpec((4, 48), tf.int32),
        },
    )
    return list(itertools.islice(dataset.as_numpy_iterator(), count))


def assert_same(ours, theirs):
    for batch, other in zip(ours, theirs, strict=True):
        tf.nest.map_structure(np.testing.assert_array_equal, batch, other)


def test_one_after_another_resumed_and_off_at_the_end():
    whole = batches(9, Order(7, epochs=3))
    assert_same(whole[4:], batches(5, Order(7, 1, 1, epochs=3)))
    plain = make_dataset(shapes_source("detection", 12), INPUT, 4, order=Order(7))
    counts = []
    for (images, target), (old, truth) in zip(whole, plain.take(9), strict=True):
        if len(counts) >= 6:
            np.testing.assert_array_equal(images, old)
            np.testing.assert_array_equal(target["boxes"][:, :8], truth["boxes"])
        counts.append((target["labels"] >= 0).sum(axis=1).max())
    assert max(counts[:6]) > 3 and max(counts[6:]) == 3


def test_rows_for_mixed_boxes():
    counts = np.array([2, 4, 4, 6])
    assert choose_max_boxes(counts) == 8
    assert choose_max_boxes(counts, 4) == 24  # 16, and three deviations of 2.8
    assert choose_max_boxes(np.full(5, 3), 8) == 24
    assert choose_max_boxes(np.array([300] * 5), 4) == 400
    assert choose_max_boxes(np.zeros(0, int), 4) == choose_max_boxes(np.array([0])) == 8


def test_boxes_without_room_are_counted_in_a_warning():
    source = shapes_source("detection", 5)
    report = DataReport(source)
    match = r"5 of 15 boxes, in 5 images \(memory, all\).*`max_boxes` = 2 per image"
    with pytest.warns(UserWarning, match=match) as caught:
        make_dataset(source, INPUT, 2, max_boxes=2, report=report)
    assert caught[0].filename == __file__ and len(caught) == 1
    assert report.notes == {"boxes.over_max_boxes": 5}


def test_what_mixes_lose_has_an_upper_bound():
    counts = np.array([0, 1, 2, 5])
    mixes = np.array(list(itertools.product(counts, repeat=4))).sum(axis=1)
    for rows in (4, 8, 16):
        exact = np.maximum(mixes - rows, 0).sum() / mixes.sum()
        assert share_without_room(counts, rows, 4) == pytest.approx(exact, abs=0.01)
    assert share_without_room(counts, 20, 4) == share_without_room(counts, 1, 1) == 0
    assert share_without_room(np.zeros(3, int), 8, 4) == 0

    source = shapes_source("detection", 5)  # of 3 boxes each
    options = {"transforms": build_transforms(["mosaic"]), "order": Order(0)}
    report = DataReport(source)
    with pytest.warns(UserWarning, match=r"4 images .* up to 33\.3% of their boxes"):
        make_dataset(source, INPUT, 2, max_boxes=8, report=report, **options)
    assert report.notes == {"boxes.over_max_boxes_mixed": 20}
    make_dataset(source, INPUT, 2, report=report, **options)
    assert report.notes == {}
