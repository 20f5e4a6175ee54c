"""Splits are stratified, seeded, and never put one image on both sides."""

from __future__ import annotations

import os

import numpy as np
import pytest

from visionkit.data.fingerprints import content_ids
from visionkit.data.sources.base import Source, SourceInfo
from visionkit.data.sources.digits import Digits
from visionkit.data.sources.image_folder import ImageFolder
from visionkit.data.split import split_source


class Encoded(Source):
    """Records of given bytes and labels."""

    def __init__(self, contents, labels=None):
        task = "detection" if labels is None else "classification"
        names = () if labels is None else tuple("abc")
        self.contents, self._labels, self.skipped = contents, labels, []
        self.info = SourceInfo(task, names, len(contents))

    def record(self, index):
        record = {"encoded": self.contents[index]}
        if self._labels is not None:
            record["label"] = self._labels[index]
        return record


def different(count):
    return [b"%d" % i for i in range(count)]


def test_split_source_is_exact_per_class():
    labels = [0] * 50 + [1] * 7 + [2] * 2
    train, held = split_source(Encoded(different(59), labels), 0.2, seed=3)
    assert np.bincount(held.labels()).tolist() == [10, 1, 1]
    assert sorted([*train.indices, *held.indices]) == list(range(59))
    assert (train.info.split, held.info.split) == ("train", "validation")
    assert (np.diff(train.indices) > 0).all()


def test_split_source_is_a_function_of_the_seed():
    source = Encoded(different(40), [0, 1] * 20)
    first, again, other = (split_source(source, 0.3, s)[1].indices for s in (1, 1, 2))
    assert first.tolist() == again.tolist() != other.tolist()


def test_split_source_without_labels():
    train, held = split_source(Encoded(different(11)), 0.25)
    assert (len(train), len(held)) == (8, 3)


def test_split_source_keeps_equal_bytes_together():
    contents = [b"%d" % (i // 3) for i in range(90)]  # three copies of each
    for seed in range(5):
        train, held = split_source(Encoded(contents, [0] * 90), 0.2, seed)
        assert len(held) == 18
        assert not {contents[i] for i in train.indices} & {
            contents[i] for i in held.indices
        }


def test_split_source_always_leaves_both_sides_something():
    train, held = split_source(Encoded([b"x"] * 5 + [b"y"] * 4, [0] * 9), 0.01)
    assert sorted((len(train), len(held))) == [4, 5]


def test_split_source_refuses():
    for fraction in (0, 1, -0.1, 1.5):
        with pytest.raises(ValueError, match=rf"must be in \(0, 1\).*={fraction}"):
            split_source(Encoded(different(9)), fraction)
    with pytest.raises(ValueError, match=r"5 images \(1 different ones\)"):
        split_source(Encoded([b"x"] * 5), 0.5)
    with pytest.raises(ValueError, match="validation side empty"):
        split_source(Encoded(different(2), [0, 1]), 0.5)


def test_content_ids_sees_links_copies_and_bad_files(tmp_path):
    for name, content in {
        "a/1": b"xx",
        "a/2": b"yy",
        "b/3": b"xx",
        "b/4": b"z",
    }.items():
        path = tmp_path / f"{name}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    os.link(tmp_path / "a/2.jpg", tmp_path / "b/5.jpg")
    (tmp_path / "b/6.jpg").symlink_to(tmp_path / "b/4.jpg")
    source = ImageFolder(tmp_path)
    (tmp_path / "b/4.jpg").unlink()  # and so the link to it is broken
    left, right = content_ids(source, source)
    names = [os.path.basename(source.record_name(i))[0] for i in range(len(source))]
    ids = dict(zip(names, left.tolist(), strict=True))
    assert ids["1"] == ids["3"] and ids["2"] == ids["5"]
    assert len(set(ids.values())) == 4
    readable = [i for i, name in enumerate(names) if name not in "46"]
    assert left[readable].tolist() == right[readable].tolist()


def test_digits_split_by_share():
    train, held = split_source(Digits(), 0.1)
    assert len(held) == pytest.approx(180, abs=3)
    assert len(train) + len(held) == 1797
