"""Rare classes are drawn as often as others, and reported once."""

import itertools

import numpy as np
import pytest
from pictures import MemorySource, classification_source, encode, picture

from visionkit.data.check import check_source, check_splits
from visionkit.data.pipeline import Order, batch_names, make_dataset
from visionkit.data.report import DataReport
from visionkit.data.sources.balance import Oversampled
from visionkit.data.sources.base import SourceInfo, Subset, multi_hot
from visionkit.data.sources.records import Records, write_records
from visionkit.data.split import split_source
from visionkit.data.transforms import build_transforms
from visionkit.types import Preprocessing

INPUT = Preprocessing((16, 20))


def labelled(labels):
    records = [
        {"encoded": encode(picture(20, 24, seed=i)), "label": label}
        for i, label in enumerate(labels)
    ]
    return MemorySource(records)


def many_labelled(rows, num_classes=3):
    source = labelled([multi_hot(row, num_classes) for row in rows])
    source.info = SourceInfo(
        "classification", tuple("abc")[:num_classes], len(rows), multi_label=True
    )
    return source


def test_every_class_has_as_many_as_the_largest():
    labels = [0] * 23 + [1] * 7 + [3] * 2
    source = labelled(labels)
    balanced = Oversampled(source)
    assert source.class_counts().tolist() == [23, 7, 0, 2]
    assert balanced.class_counts().tolist() == [23, 23, 0, 23]
    times = np.bincount(balanced.indices)
    assert set(times[:23]) == {1} and set(times[23:30]) == {3, 4}
    assert sorted(times[30:]) == [11, 12]
    np.testing.assert_array_equal(balanced.indices, Oversampled(source).indices)
    assert (balanced.indices != Oversampled(source, seed=1).indices).any()
    assert balanced.record(24) == source.record(balanced.indices[24])
    assert balanced.record_name(24) == source.record_name(balanced.indices[24])
    assert balanced.info.num_examples == len(balanced) == 69


def test_a_subset_is_balanced_over_its_own_records():
    subset = Subset(labelled([0, 0, 0, 1, 1, 2]), [5, 0, 1, 3], "train")
    balanced = Oversampled(subset)
    assert balanced.class_counts().tolist() == [2, 2, 2, 0]
    assert balanced.info.split == "train"
    assert set(balanced.indices) == {0, 1, 2, 3}


def test_many_labels_come_closer():
    source = many_labelled([[0]] * 12 + [[0, 1]] * 3 + [[2], []])
    assert source.class_counts().tolist() == [15, 3, 1]
    counts = Oversampled(source).class_counts()
    assert counts[1] == counts[2] == 15 and counts[0] == 27
    assert (np.bincount(Oversampled(source).indices)[[0, 16]] == 1).all()


def test_repetitions_are_augmented_differently_and_named_by_their_record():
    source = labelled([0] * 6 + [1])
    transforms = build_transforms(["crop", "color"])
    dataset = make_dataset(
        Oversampled(source),
        INPUT,
        4,
        transforms=transforms,
        order=Order(3),
        with_ids=True,
    )
    images, target = zip(*itertools.islice(dataset.as_numpy_iterator(), 3), strict=True)
    ids = np.concatenate([t["image_id"] for t in target])
    labels = np.concatenate([t["labels"] for t in target])
    assert labels.sum() == 6 and set(ids[labels == 1]) == {6}
    copies = np.concatenate(images)[labels == 1]
    assert len({copy.tobytes() for copy in copies}) == 6


def test_a_broken_record_is_reported_once_and_all_its_repetitions_left_out():
    source = classification_source(8, broken=(7,))
    for i, record in enumerate(source.records):
        record["label"] = int(i > 5)
    balanced = Oversampled(source)
    report = DataReport(balanced, max_bad=0.5)
    assert report.source is source
    for known in (False, True):  # found while reading, then known from the start
        assert report.bad_indices == ([7] if known else [])
        dataset = make_dataset(
            balanced, INPUT, 3, order=Order(1), report=report, with_ids=True
        )
        ids = [t["image_id"] for _, t in dataset.take(8).as_numpy_iterator()]
        assert 7 not in np.concatenate(ids)
        assert (report.read, report.used) == (8, 7)
    names = batch_names(balanced, Order(1), 1, 0, 3, report)
    assert names == [f"memory[{i}]" for i in ids[1]]


def test_the_doctor_looks_at_the_records_and_not_their_repetitions():
    source = labelled([0, 0, 0, 1])
    report = DataReport(Oversampled(source), max_bad=0.5)
    found = check_source(Oversampled(source), report=report)
    assert found.counts["read"] == report.read == 4
    assert [finding.rule for finding in found.findings] == ["class.empty"]
    many = check_source(many_labelled([[0], [0, 2], []]))
    assert many.counts["classes"] == {"a": 2, "b": 0, "c": 1}
    same = many_labelled([[0], [0, 2]])
    same.records[1]["encoded"] = same.records[0]["encoded"]
    (conflict,) = [f for f in check_source(same).findings if "conflict" in f.rule]
    assert conflict.names == ("[0] (a) = [1] (a|c)",)
    both = check_splits(Subset(same, [0], "train"), Subset(same, [1], "validation"))
    assert [finding.rule for finding in both.findings] == [
        "leak.exact",
        "label.conflict",
    ]


def test_records_keep_many_labels_and_repeat_without_being_loaded(tmp_path):
    source = many_labelled([[0], [0, 2], [], [1], [0]])
    write_records(source, tmp_path / "out", progress=False)
    records = Records(tmp_path / "out")
    assert records.info == source.info
    np.testing.assert_array_equal(records.labels(), source.labels())
    assert records.raw_dataset().element_spec == source.raw_dataset().element_spec
    for i, element in enumerate(records.raw_dataset().as_numpy_iterator()):
        np.testing.assert_array_equal(element["label"], source.labels()[i])
        np.testing.assert_array_equal(records.record(i)["label"], source.labels()[i])
    records.columns = None  # would hold all images in memory
    balanced = Oversampled(Subset(records, [3, 1, 2, 4], "train"))
    for element in balanced.raw_dataset(5).as_numpy_iterator():
        expected = balanced.record(element["index"])
        assert element["encoded"] == expected["encoded"]
        np.testing.assert_array_equal(element["label"], expected["label"])


def test_splits_hold_back_the_rare_labels_of_many():
    source = many_labelled([[0]] * 40 + [[0, 1]] * 10 + [[0, 2]] * 4 + [[]] * 10)
    for seed in range(3):
        train, held = split_source(source, 0.2, seed)
        assert held.class_counts().tolist() == [11, 2, 1]
        assert (held.labels().sum(axis=1) == 0).sum() == 2
        assert train.class_counts().tolist() == [43, 8, 3]


def test_what_cannot_be_balanced_is_refused():
    with pytest.raises(ValueError, match=r"balances the classes.*task='detection'"):
        Oversampled(MemorySource([{}], "detection"))
    with pytest.raises(ValueError, match="0 records"):
        Oversampled(MemorySource([]))
