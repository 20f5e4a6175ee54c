"""Order, broken records and targets of the data path."""

import itertools
import os
import traceback

import keras
import numpy as np
import pytest
import tensorflow as tf
from pictures import MemorySource, classification_source, encode, picture
from PIL import Image

from visionkit.data.pipeline import (
    Order,
    batch_names,
    make_dataset,
    steps_per_epoch,
)
from visionkit.data.report import DataReport
from visionkit.data.resize import resize_image
from visionkit.data.transforms import build_transforms
from visionkit.types import VOID_CLASS, Preprocessing

INPUT = Preprocessing((32, 40))
AUGMENT = build_transforms(["crop", "flip", "scale_jitter", "color", "erase"])


START = Order(7)


def stream(source, count, order=START, batch_size=4, **options):
    """The first `count` batches of training as NumPy: images, labels, ids."""
    dataset = make_dataset(
        source, INPUT, batch_size, order=order, with_ids=True, **options
    )
    batches = list(itertools.islice(dataset.as_numpy_iterator(), count))
    return [(x, y["labels"], y["image_id"]) for x, y in batches]


def assert_same(batches, others):
    assert len(batches) == len(others)
    for batch, other in zip(batches, others, strict=True):
        for a, b in zip(batch, other, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("order", [None, START], ids=["evaluation", "training"])
def test_sources_are_read_as_plain_python(order, monkeypatch):
    """AutoGraph would convert what runs while a pipeline is traced, and slow it."""
    callers = set()

    def record(source, index):
        callers.update(frame.filename for frame in traceback.extract_stack())
        return source.records[index]

    monkeypatch.setattr(MemorySource, "record", record)
    make_dataset(classification_source(4), INPUT, 2, order=order)
    assert callers and not [f for f in callers if "autograph_generated" in f]


@pytest.mark.parametrize("order", [None, START], ids=["evaluation", "training"])
def test_no_thread_tunes_a_pipeline(order):
    """At the end of an epoch TensorFlow may wait a minute for it."""
    dataset = make_dataset(classification_source(4), INPUT, 2, order=order)
    options = dataset.map(lambda *batch: batch, tf.data.AUTOTUNE).options()
    assert not options.autotune.enabled
    assert options.autotune.initial_parallelism == os.cpu_count()


def test_evaluation_reads_each_record_once_in_order():
    source = classification_source(10, format="PNG")
    dataset = make_dataset(source, INPUT, 4, with_ids=True)
    batches = list(dataset.as_numpy_iterator())
    assert [len(x) for x, _ in batches] == [4, 4, 2]
    ids = np.concatenate([y["image_id"] for _, y in batches])
    np.testing.assert_array_equal(ids, np.arange(10))
    x, y = batches[0]
    assert x.shape == (4, 32, 40, 3) and x.dtype == np.uint8
    np.testing.assert_array_equal(y["labels"], range(4))
    np.testing.assert_array_equal(y["image_size"][3], [43, 61])
    image = tf.constant(np.asarray(picture(43, 61, seed=3)))
    np.testing.assert_array_equal(x[3], resize_image(image, INPUT)[0])


def test_training_is_an_endless_permutation_per_epoch():
    batches = stream(classification_source(12), 6)
    first, second = (
        np.concatenate([ids for *_, ids in batches[i : i + 3]]) for i in (0, 3)
    )
    assert sorted(first) == sorted(second) == list(range(12))
    assert (first != second).any() and (first != np.arange(12)).any()
    for _, labels, ids in batches:
        np.testing.assert_array_equal(labels, ids)


def test_training_shapes_are_static():
    spec = make_dataset(classification_source(5), INPUT, 3, order=Order(0)).element_spec
    assert spec[0] == tf.TensorSpec((3, 32, 40, 3), tf.uint8)
    assert spec[1] == tf.TensorSpec((3,), tf.int32)


def test_two_runs_are_equal_and_two_seeds_differ():
    source = classification_source()
    first = stream(source, 4, transforms=AUGMENT)
    assert_same(first, stream(source, 4, transforms=AUGMENT))
    other = stream(source, 4, Order(8), transforms=AUGMENT)
    assert any((a[2] != b[2]).any() for a, b in zip(first, other, strict=True))


def test_a_sample_depends_on_seed_epoch_and_index_alone():
    source = classification_source()

    def by_index(batch_size):
        batches = stream(
            source, 24 // batch_size, batch_size=batch_size, transforms=AUGMENT
        )
        images = np.concatenate([x for x, *_ in batches])
        ids = np.concatenate([i for *_, i in batches])
        return images[:12][np.argsort(ids[:12])], images[12:][np.argsort(ids[12:])]

    for alone, together in zip(by_index(1), by_index(6), strict=True):
        np.testing.assert_array_equal(alone, together)
    first, second = by_index(6)
    assert all((a != b).any() for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("broken", [(), (2, 5, 6)])
def test_a_resumed_stream_is_the_tail_of_the_whole(broken):
    source = classification_source(14, broken)
    report = DataReport(source, max_bad=0.5)
    whole = stream(source, 9, report=report, transforms=AUGMENT)
    assert report.bad_indices == list(broken)
    assert steps_per_epoch(source, 4) == 3
    for epoch, step in ((0, 2), (1, 0), (2, 1)):
        known = DataReport(source, max_bad=0.5)
        known.restore(report.to_dict())
        order = Order(7, epoch, step)
        done = epoch * 3 + step
        tail = stream(source, 9 - done, order, report=known, transforms=AUGMENT)
        assert_same(whole[done:], tail)


def test_fewer_images_than_the_batch_repeat_differently_augmented():
    source = classification_source(3)
    assert steps_per_epoch(source, 8) == 1
    ((images, labels, _),) = stream(source, 1, batch_size=8, transforms=AUGMENT)
    assert np.bincount(labels).tolist() in ([3, 3, 2], [3, 2, 3], [2, 3, 3])
    assert len(np.unique(images, axis=0)) == 8


def test_broken_records_are_replaced_counted_and_named(tmp_path):
    source = classification_source(12, broken=(3, 4))
    path = tmp_path / "caf\udce9.jpg"
    path.write_bytes(b"<html>")
    source.records[7] = {"encoded": b"", "label": 7}
    paths = [tmp_path / f"{i}.jpg" for i in range(12)] + [path, tmp_path / "gone.jpg"]
    for record, file in zip(source.records, paths[:12], strict=True):
        file.write_bytes(record["encoded"])
    source = MemorySource(
        [{"path": os.fsencode(p), "label": i} for i, p in enumerate(paths)]
    )
    report = DataReport(source, max_bad=0.5)
    batches = stream(source, 6, report=report)
    assert all(x.shape == (4, 32, 40, 3) for x, *_ in batches)
    assert not {3, 4, 7, 12, 13} & {int(i) for *_, ids in batches for i in ids}
    assert report.bad_indices == [3, 4, 7, 12, 13]
    assert {
        rule: [name for name, _ in files] for rule, files in report.skipped.items()
    } == {
        "image.truncated": [str(paths[3]), str(paths[4])],
        "image.empty": [str(paths[7])],
        "image.format": [str(path)],
        "image.unreadable": [str(tmp_path / "gone.jpg")],
    }
    assert (report.read, report.used) == (14, 9)
    evaluated = make_dataset(source, INPUT, 4, report=DataReport(source, 0.5))
    assert sum(len(x) for x, _ in evaluated) == 9


def test_damaged_pixels_behind_a_sound_header_are_found():
    source = classification_source(4, format="PNG")
    encoded = bytearray(source.records[1]["encoded"])
    encoded[len(encoded) // 2] ^= 255
    source.records[1]["encoded"] = bytes(encoded)
    report = DataReport(source, max_bad=0.3)
    stream(source, 2, report=report)
    ((name, detail),) = report.skipped["image.corrupt"]
    assert name == "memory[1]" and "PNG" in detail


def test_too_many_broken_records_stop_fit_with_their_names():
    source = classification_source(12, broken=(3, 4))
    dataset = make_dataset(
        source, INPUT, 4, order=Order(0), report=DataReport(source, 0.1)
    )
    model = keras.Sequential(
        [
            keras.layers.Rescaling(1 / 255),
            keras.layers.Flatten(),
            keras.layers.Dense(12),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, jit_compile=False)
    match = r"(?s)2 of 12 records cannot be read.*memory\[3\]: image.truncated"
    with pytest.raises(tf.errors.OpError, match=match):
        model.fit(dataset, epochs=3, steps_per_epoch=3, verbose=0)


def test_report_that_is_over_the_limit_already_stops_at_once():
    source = classification_source(4)
    report = DataReport(source, 0.5)
    report.bad = {i: ("image.empty", str(i), "") for i in range(4)}
    with pytest.raises(ValueError, match="4 of 4 records cannot be read"):
        make_dataset(source, INPUT, 2, report=report)
    with pytest.raises(ValueError, match="at least one readable record"):
        make_dataset(classification_source(0), INPUT, 2, order=Order(0))


def test_sixteen_bit_images_are_noted():
    source = classification_source(4, format="PNG")
    grey = np.arange(48 * 64, dtype=np.uint16).reshape(48, 64) * 20
    source.records[2]["encoded"] = encode(Image.fromarray(grey))
    report = DataReport(source)
    stream(source, 4, report=report)
    assert report.notes == {"image.16bit": 1} and report.used == 4


def test_batch_names_tells_what_was_in_a_batch():
    source = classification_source(10, broken=(1, 8))
    report = DataReport(source, max_bad=0.5)
    batches = stream(source, 6, batch_size=3, report=report)
    for epoch, step in ((0, 0), (0, 2), (1, 1)):
        names = batch_names(source, Order(7), step, epoch, 3, report)
        ids = batches[epoch * 3 + step][2]
        assert names == [f"memory[{i}]" for i in ids]


def detection_source():
    records = []
    for index, count in enumerate((3, 0, 1)):
        boxes = np.array([[4, 8, 30, 40], [0, 0, 64, 48], [10, 10, 12, 30]])
        records.append(
            {
                "encoded": encode(picture(48, 64, seed=index)),
                "boxes": boxes[:count].astype(np.float32),
                "box_labels": np.arange(count, dtype=np.int32),
                "is_crowd": np.array([False, False, True])[:count],
                "area": np.ones(count, np.float32),
            }
        )
    return MemorySource(records, "detection")


def test_detection_targets_are_padded_boxes_in_the_input():
    dataset = make_dataset(detection_source(), Preprocessing((24, 64)), 3)
    _, target = next(dataset.as_numpy_iterator())
    assert target["boxes"].shape == (3, 8, 4)
    assert target["labels"].dtype == np.int32
    np.testing.assert_array_equal(target["labels"][0], [0, 1] + [-1] * 6)
    np.testing.assert_array_equal(target["labels"][1], [-1] * 8)
    expected = [[18, 4, 31, 20], [16, 0, 48, 24]]  # scale 1/2, 16 columns of border
    np.testing.assert_allclose(target["boxes"][0, :2], expected)


def test_max_boxes_drops_and_counts():
    source = detection_source()
    report = DataReport(source)
    with pytest.warns(UserWarning, match="2 of 4 boxes"):
        dataset = make_dataset(
            source, INPUT, 3, max_boxes=1, report=report, with_ids=True
        )
    _, target = next(dataset.as_numpy_iterator())
    assert target["boxes"].shape == (3, 1, 4) and set(target) == {
        "boxes",
        "labels",
        "image_id",
        "image_size",
    }
    assert report.notes == {"boxes.over_max_boxes": 2}


def test_semantic_targets_follow_the_image(tmp_path):
    mask = np.zeros((48, 64), np.uint8)
    mask[10:30, 20:50] = 2
    path = tmp_path / "mask.png"
    palette = Image.fromarray(mask, "P")
    palette.putpalette(list(range(30)))
    palette.save(path)
    pixels = Image.fromarray(np.repeat(mask[..., None] * 100, 3, -1))
    record = {"encoded": encode(pixels), "mask_path": os.fsencode(path)}
    source = MemorySource([record] * 4, "semantic_segmentation")
    ((images, masks),) = make_dataset(source, Preprocessing((64, 64)), 4)
    assert masks.dtype == tf.uint8 and masks.shape == (4, 64, 64)
    np.testing.assert_array_equal(masks[0, 8:56], mask)
    assert (masks[:, :8] == VOID_CLASS).numpy().all()
    transforms = build_transforms([{"crop": {"scale": [0.3, 0.9]}}, "flip"])
    dataset = make_dataset(source, INPUT, 4, transforms=transforms, order=Order(1))
    for images, masks in dataset.take(3):
        seen = masks.numpy() != VOID_CLASS
        agree = (images.numpy()[..., 0] > 100) == (masks.numpy() == 2)
        assert agree[seen].mean() > 0.97


def test_mask_of_another_size_is_reported_with_both_sizes():
    mask = encode(Image.fromarray(np.zeros((20, 64), np.uint8)))
    record = {"encoded": encode(picture(48, 64)), "mask_encoded": mask}
    source = MemorySource([record] * 2, "semantic_segmentation")
    report = DataReport(source, max_bad=1.0)
    assert not list(make_dataset(source, INPUT, 2, report=report))
    (_, detail), _ = report.skipped["mask.size"]
    assert "20 64" in detail and "48 64" in detail


def test_wrong_arguments_are_refused():
    source = classification_source(2)
    with pytest.raises(ValueError, match="`batch_size` must be at least 1"):
        make_dataset(source, INPUT, 0)
    with pytest.raises(ValueError, match="must be the first"):
        make_dataset(source, INPUT, 2, transforms=AUGMENT[::-1])
    with pytest.raises(ValueError, match="`max_bad` must be a share"):
        DataReport(source, max_bad=5)
    with pytest.raises(ValueError, match="expected a source of 2 records"):
        DataReport(classification_source(3)).restore(DataReport(source).to_dict())
