"""Records are what was written, in any order, or an error that names the file."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from visionkit.data.sources.digits import Digits
from visionkit.data.sources.image_folder import ImageFolder
from visionkit.data.sources.records import Records, write_records

TASKS = {
    "classification": {"split": "validation"},
    "detection": {"num_scenes": 5},
    "semantic_segmentation": {"num_scenes": 5},
    "instance_segmentation": {"num_scenes": 5},
}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Task -> (source, folder)."""
    root = tmp_path_factory.mktemp("records")
    sources = {task: Digits(task, **options) for task, options in TASKS.items()}
    for task, source in sources.items():
        write_records(source, root / task, shards=3, progress=False)
    return {task: (source, root / task) for task, source in sources.items()}


def assert_same(a, b):
    assert a.keys() == b.keys()
    for key, value in a.items():
        assert np.asarray(value).dtype == np.asarray(b[key]).dtype, key
        np.testing.assert_array_equal(value, b[key], key)


@pytest.mark.parametrize("task", TASKS)
def test_round_trip(written, task):
    source, root = written[task]
    records = Records(root.parent, split=root.name)
    assert records.info == source.info
    assert len(records) == len(source)
    for index in (0, 3, len(source) - 1):
        assert_same(source.record(index), records.record(index))
        assert records.record_name(index) == source.record_name(index)
    for ours, theirs in zip(
        records.raw_dataset().as_numpy_iterator(),
        source.raw_dataset().as_numpy_iterator(),
        strict=True,
    ):
        assert_same(theirs, ours)
    assert records.raw_dataset().element_spec == source.raw_dataset().element_spec
    if task == "classification":
        np.testing.assert_array_equal(records.labels(), source.labels())
    else:
        assert records.labels() is None
    records.verify()


def test_order_is_a_function_of_the_seed_alone(written):
    import tensorflow as tf

    records = Records(written["classification"][1])

    @tf.function  # the seed may be traced, as in a flat_map over epochs
    def order(seed):
        return tf.stack(list(records.raw_dataset(seed).batch(999).take(1)))

    def indices(seed):
        dataset = records.raw_dataset(seed).map(lambda record: record["index"])
        return list(dataset.as_numpy_iterator())

    first = indices(5)
    tf.random.set_seed(123)
    assert indices(5) == first
    epochs = tf.data.Dataset.range(5, 6).flat_map(records.raw_dataset)
    assert [record["index"] for record in epochs.as_numpy_iterator()] == first
    assert sorted(first) == list(range(359))
    assert indices(6) != first
    labels = records.labels()[first]
    assert len(set(labels[:30].tolist())) >= 8  # mixed from the beginning


def test_folder_of_files_is_embedded_and_bad_files_are_named(tmp_path):
    source = Digits(split="validation")
    for index in range(12):
        path = tmp_path / f"data/{source.record(index)['label'] % 2}/{index:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(source.record(index)["encoded"])
    bad = tmp_path / "data/0/caf\udce9.png"
    bad.write_bytes(b"<html>")
    folder = ImageFolder(tmp_path / "data")
    summary = write_records(folder, tmp_path / "out", progress=False)
    assert (summary.read, summary.examples) == (13, 12)
    assert [(s.name, s.rule) for s in summary.skipped] == [(str(bad), "image.format")]
    records = Records(tmp_path / "out")
    assert records.skipped == list(summary.skipped)
    kept = [i for i in range(13) if folder.record_name(i) != str(bad)]
    assert records.labels().tolist() == folder.labels()[kept].tolist()
    for index, old in enumerate(kept):
        with open(folder.record(old)["path"], "rb") as file:
            assert records.record(index)["encoded"] == file.read()
        assert records.record_name(index) == folder.record_name(old)
    index = json.loads((tmp_path / "out/index.json").read_text("ascii"))
    assert sum(len(shard["lengths"]) for shard in index["shards"]) == 12


def test_image_without_objects(tmp_path):
    source = Digits("instance_segmentation", num_scenes=2)
    source.record(1).update(
        boxes=np.zeros((0, 4), np.float32),
        box_labels=np.zeros(0, np.int32),
        area=np.zeros(0, np.float32),
        instance_masks=[],
    )
    write_records(source, tmp_path / "out", progress=False)
    records = Records(tmp_path / "out")
    assert_same(source.record(1), records.record(1))
    shapes = [e["boxes"].shape for e in records.raw_dataset().as_numpy_iterator()]
    assert shapes[1] == (0, 4)


def test_crowds_and_areas_of_instances(tmp_path):
    source = Digits("instance_segmentation", num_scenes=2)
    for index in range(2):
        record = source.record(index)
        count = len(record["boxes"])
        record["is_crowd"] = np.arange(count) % 2 == 0
        record["area"] = np.linspace(0.5, 9, count, dtype=np.float32)
    write_records(source, tmp_path / "out", progress=False)
    records = Records(tmp_path / "out")
    for index, element in enumerate(records.raw_dataset().as_numpy_iterator()):
        assert_same(source.record(index), records.record(index))
        assert (
            element["instance_masks"].tolist() == source.record(index)["instance_masks"]
        )
        assert element["is_crowd"].dtype == bool
    ours, theirs = records.objects(), source.objects()
    assert ours.keys() == theirs.keys() and "instance_masks" in ours
    for key, value in ours.items():
        np.testing.assert_array_equal(value, theirs[key], key)


def test_damage_is_found_and_named(written, tmp_path):
    def copy(name):
        shutil.copytree(written["classification"][1], tmp_path / name)
        return tmp_path / name, sorted((tmp_path / name).glob("*.tfrecord"))[1]

    root, shard = copy("missing")
    shard.unlink()
    with pytest.raises(FileNotFoundError, match=f"{shard.name} is missing.*bytes"):
        Records(root)
    root, shard = copy("short")
    size = shard.stat().st_size
    os.truncate(shard, size - 1)
    with pytest.raises(ValueError, match=f"{shard.name} has {size - 1} bytes.*{size}"):
        Records(root)
    root, shard = copy("flipped")
    data = bytearray(shard.read_bytes())
    data[0] ^= 1
    shard.write_bytes(data)
    records = Records(root)
    with pytest.raises(ValueError, match=f"{shard.name} was changed"):
        records.verify()
    first = json.loads((root / "index.json").read_text())["shards"][1]["indices"][0]
    with pytest.raises(ValueError, match=f"Record {first} is not at byte 0"):
        records.record(first)
    root, _ = copy("json")
    (root / "index.json").write_text('{"format": ')
    with pytest.raises(ValueError, match=r"index.json is damaged"):
        Records(root)
    with pytest.raises(FileNotFoundError, match=r"split='flipped'.*Found: flipped"):
        Records(tmp_path)
    with pytest.raises(FileNotFoundError, match="write_records"):
        Records(tmp_path / "nothing")


def test_write_records_refuses(written, tmp_path):
    source, root = written["detection"]
    with pytest.raises(FileExistsError, match="not an empty folder"):
        write_records(source, root)
    with pytest.raises(ValueError, match="`shards` must be at least 1"):
        write_records(source, tmp_path / "x", shards=0)
    for name in "ab":
        (tmp_path / "bad" / name).mkdir(parents=True)
        (tmp_path / "bad" / name / "1.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match=r"None of the 2 records.*image.empty"):
        write_records(ImageFolder(tmp_path / "bad"), tmp_path / "x", progress=False)
    assert os.listdir(tmp_path) == ["bad"]


def test_a_kill_leaves_nothing_half_written(tmp_path):
    code = (
        "import sys, time\n"
        "from visionkit.data.sources.digits import Digits\n"
        "from visionkit.data.sources.records import write_records\n"
        "class Slow(Digits):\n"
        "    def record(self, index):\n"
        "        time.sleep(0.01)\n"
        "        return super().record(index)\n"
        "write_records(Slow(), sys.argv[1], progress=False)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, tmp_path / "out"])
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".out*/*.tfrecord")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert list(tmp_path.glob(".out*/*.tfrecord"))
    assert not (tmp_path / "out").exists()
