"""Records in lots: the broken ones are left out and told of in time."""

import numpy as np
import pytest
import tensorflow as tf

from visionkit.data import reading
from visionkit.data.report import DataReport


class Numbers:
    """As much of a source as a report asks for."""

    skipped = ()

    def __init__(self, count):
        self.count = count
        self.origin, self.mask_code = self, None

    def __len__(self):
        return self.count

    def record_name(self, index):
        return f"record {index}"

    def check_record(self, index):
        pass

    def record(self, index):
        return {"encoded": b"", "index": index}


def read_numbers(monkeypatch, count, broken, lot):
    """(index, broken ones known by then) of each sample, and the report."""
    monkeypatch.setattr(reading, "LOT", lot)
    monkeypatch.setattr(reading, "PARALLEL_RECORDS", 1)
    report = DataReport(Numbers(count), max_bad=1.0)
    bad = tf.constant(broken, tf.int64)

    def read(record):
        index = tf.cast(record["index"], tf.int32)
        sound = tf.reduce_all(tf.cast(record["index"], tf.int64) != bad)
        tf.debugging.Assert(sound, ["it is broken"])
        pixels = tf.fill([2, index + 1], index)
        return {"image_id": index, "images": pixels, "event": reading.FINE}

    records = tf.data.Dataset.range(count).map(lambda index: {"index": index})
    found = []
    for sample in reading.read_samples(records, read, report):
        found.append((int(sample["image_id"]), report.bad_indices))
        np.testing.assert_array_equal(sample["images"][0, -1], sample["image_id"])
        assert sample.keys() == {"image_id", "images", "event"}
    return found, report


@pytest.mark.parametrize(
    "broken",
    [(), (0,), (3, 4), (11,), (2, 3, 4, 5, 6, 7, 8), tuple(range(12))],
    ids=["none", "first", "across lots", "last", "a whole lot", "all"],
)
@pytest.mark.parametrize("lot", [1, 4, 5, 100])
def test_broken_records_are_left_out_and_known_before_the_next(
    monkeypatch, broken, lot
):
    """Whatever lots they lie in; behind the last sample those at the end as well."""
    found, report = read_numbers(monkeypatch, 12, broken, lot)
    assert [index for index, _ in found] == [i for i in range(12) if i not in broken]
    for index, known in found:
        # tf.data may read ahead, so later ones may be known as well.
        assert set(known) >= {i for i in broken if i < index}
    assert report.bad_indices == list(broken)


def test_what_fails_before_the_reading_is_not_passed_over(monkeypatch):
    """A source's own error ends the stream, and is not taken for a broken record."""
    monkeypatch.setattr(reading, "LOT", 4)

    def number(index):
        tf.debugging.Assert(index != 6, ["the source is broken"])
        return {"index": index}

    def read(record):
        index = tf.cast(record["index"], tf.int32)
        return {"image_id": index, "event": reading.FINE}

    samples = reading.read_samples(
        tf.data.Dataset.range(12).map(number), read, DataReport(Numbers(12), 1.0)
    )
    found = []
    with pytest.raises(tf.errors.InvalidArgumentError, match="the source is broken"):
        for sample in samples:
            found.append(int(sample["image_id"]))
    assert found == list(range(len(found)))
