"""Prepared TFDS sets are read as they are, and nothing is fetched."""

import socket
from typing import ClassVar

import numpy as np
import pytest
from pictures import encode, picture

from visionkit.data.headers import inspect_image
from visionkit.data.pipeline import Order, make_dataset
from visionkit.data.report import DataReport
from visionkit.data.rle import encode_rle
from visionkit.data.sources import build_source
from visionkit.data.sources.balance import Oversampled
from visionkit.data.sources.detect import detect_source
from visionkit.data.sources.tfds import Tfds
from visionkit.data.split import split_source
from visionkit.types import Preprocessing

COUNTS = {"train": 25, "test": 6}


def encoded(split, index):
    return encode(picture(20, 30 + index, seed=len(split) * 100 + index))


def instance(index, number):
    """The mask of object `number` in image `index`: 0 and 1, or 0 and 255, or empty."""
    mask = np.zeros((20, 30 + index), np.uint8)
    mask[2 * number :, 5 : 9 + index] = (1, 255, 0)[number]
    return mask


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """The data_dir with `tiny` and `tiny_many`, prepared from code."""
    import tensorflow_datasets as tfds

    names = tfds.features.ClassLabel(names=["ant", "bee", "cow"])

    class Tiny(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.2.0")
        url_infos: ClassVar = {}  # nothing to download, so nothing to look up

        def _info(self):
            features = {"image": tfds.features.Image(), "label": names, "id": np.int64}
            return self.dataset_info_from_configs(
                features=tfds.features.FeaturesDict(features)
            )

        def _split_generators(self, manager):
            return {split: self._generate_examples(split) for split in COUNTS}

        def label(self, index):
            return index % 3

        def _generate_examples(self, split):
            import io

            for i in range(COUNTS[split]):
                image = io.BytesIO(encoded(split, i))
                yield i, {"image": image, "label": self.label(i), "id": i}

    class TinyMany(Tiny):
        def _info(self):
            features = {
                "image": tfds.features.Image(),
                "other": tfds.features.Image(),
                "label": tfds.features.Sequence(names),
            }
            return self.dataset_info_from_configs(
                features=tfds.features.FeaturesDict(features)
            )

        def _generate_examples(self, split):
            for i, (key, example) in enumerate(super()._generate_examples(split)):
                del example["id"]
                example["other"] = np.zeros((4, 4, 3), np.uint8)
                yield key, {**example, "label": [[], [2], [0, 2]][i % 3]}

    class TinyBoxes(Tiny):
        def _info(self):
            objects = {
                "bbox": tfds.features.BBoxFeature(),
                "label": names,
                "is_crowd": np.bool_,
                "area": np.int64,
            }
            features = {
                "image": tfds.features.Image(),
                "objects": tfds.features.Sequence(objects),
                "labels": tfds.features.Sequence(names),
            }
            return self.dataset_info_from_configs(
                features=tfds.features.FeaturesDict(features)
            )

        def _generate_examples(self, split):
            for i, (key, example) in enumerate(super()._generate_examples(split)):
                objects = [
                    {
                        "bbox": tfds.features.BBox(0.1 * k, 0.2 * k, 0.5, 1.0),
                        "label": k,
                        "is_crowd": k == 1,
                        "area": 10 * k,
                    }
                    for k in range(i % 3)
                ]
                labels = [o["label"] for o in objects]
                image = example["image"]
                yield key, {"image": image, "objects": objects, "labels": labels}

    class TinyInstances(Tiny):
        def _info(self):
            objects = {
                "bbox": tfds.features.BBoxFeature(),
                "label": names,
                "segmentation": tfds.features.Image(shape=(None, None, 1)),
            }
            features = {
                "image": tfds.features.Image(),
                "objects": tfds.features.Sequence(objects),
            }
            return self.dataset_info_from_configs(
                features=tfds.features.FeaturesDict(features)
            )

        def _generate_examples(self, split):
            for i, (key, example) in enumerate(super()._generate_examples(split)):
                objects = [
                    {
                        "bbox": tfds.features.BBox(0.1 * k, 0.0, 1.0, 1.0),
                        "label": k,
                        "segmentation": instance(i, k)[..., None],
                    }
                    for k in range(i % 4)
                ]
                yield key, {"image": example["image"], "objects": objects}

    class TinyMasks(Tiny):
        def _info(self):
            features = {
                "image": tfds.features.Image(),
                "segmentation_mask": tfds.features.Image(shape=(None, None, 1)),
            }
            return self.dataset_info_from_configs(
                features=tfds.features.FeaturesDict(features)
            )

        def _generate_examples(self, split):
            for i, (key, example) in enumerate(super()._generate_examples(split)):
                mask = np.ones((20, 30 + i, 1), np.uint8)
                mask[:, 7:], mask[3:5] = 3, 2
                yield key, {"image": example["image"], "segmentation_mask": mask}

    root = tmp_path_factory.mktemp("tfds")
    for kind in (Tiny, TinyMany, TinyBoxes, TinyMasks, TinyInstances):
        builder = kind(data_dir=root)
        builder.info.set_file_format("tfrecord")
        builder.download_and_prepare()
    return root


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*_):
        raise AssertionError("it tried to reach the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def test_records_are_the_stored_bytes(prepared):
    source = Tfds("tiny", data_dir=prepared, split="test")
    assert source.info.class_names == ("ant", "bee", "cow")
    assert (source.info.num_examples, source.info.split) == (6, "test")
    stored = {encoded("test", i): i % 3 for i in range(6)}
    assert {
        source.record(i)["encoded"]: source.record(i)["label"] for i in range(6)
    } == (stored)
    assert source.record_name(3) == "tiny/1.2.0/test[3]"
    for index, element in enumerate(source.raw_dataset().as_numpy_iterator()):
        assert element["index"] == index
        assert element["encoded"] == source.record(index)["encoded"]
        assert element["label"] == source.labels()[index]


def test_a_folder_a_slice_and_the_whole_agree(prepared):
    whole = build_source("tfds", root=prepared / "tiny/1.2.0")
    assert len(whole) == 25 and whole.info.split == "train"
    by_name = build_source("tfds", name="tiny", data_dir=prepared)
    assert by_name.record_name(0) == whole.record_name(0)
    parts = [Tfds("tiny:1.2.0", prepared, f"train[{s}]") for s in (":40%", "40%:")]
    images = [p.record(i)["encoded"] for p in parts for i in range(len(p))]
    assert images == [whole.record(i)["encoded"] for i in range(25)]
    for part in parts:  # also when shuffled, where the file is read front to back
        for element in part.raw_dataset(7).as_numpy_iterator():
            assert element["encoded"] == part.record(element["index"])["encoded"]
    assert len(Tfds("tiny", prepared, "train+test")) == 31


def test_order_is_a_function_of_the_seed(prepared):
    source = Tfds("tiny", prepared)

    def indices(seed):
        return [int(e["index"]) for e in source.raw_dataset(seed).as_numpy_iterator()]

    assert sorted(indices(1)) == list(range(25))
    assert indices(1) == indices(1) != indices(2)


def test_many_labels(prepared):
    source = Tfds("tiny_many", prepared, "test", image_key="image")
    assert source.info.multi_label
    labels = source.labels()
    assert sorted(map(tuple, labels)) == sorted(
        2 * [(0.0, 0, 0), (0.0, 0, 1), (1.0, 0, 1)]
    )
    for index, element in enumerate(source.raw_dataset().as_numpy_iterator()):
        np.testing.assert_array_equal(element["label"], labels[index])
        np.testing.assert_array_equal(source.record(index)["label"], labels[index])


def test_it_goes_through_the_pipeline_split_and_balanced(prepared):
    source = Tfds("tiny", prepared)
    train, held = split_source(source, 0.2)
    assert len(train) + len(held) == 25
    balanced = Oversampled(train)
    counts = balanced.class_counts()
    assert counts.min() == counts.max()
    report = DataReport(train)
    dataset = make_dataset(
        balanced,
        Preprocessing((8, 10)),
        4,
        order=Order(3),
        report=report,
        with_ids=True,
    )
    for images, target in dataset.take(4):
        assert images.shape == (4, 8, 10, 3)
        expected = train.labels()[target["image_id"].numpy()]
        np.testing.assert_array_equal(target["labels"], expected)
    evaluated = make_dataset(held, Preprocessing((8, 10)), 4)
    np.testing.assert_array_equal(
        np.concatenate([y for _, y in evaluated]), held.labels()
    )


def test_what_is_not_there_is_said_with_the_command(prepared, tmp_path):
    match = rf"(?s)'mnist' is not prepared.*tfds build mnist --data_dir={tmp_path}"
    with pytest.raises(FileNotFoundError, match=match):
        Tfds("mnist", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"No dataset_info.json in"):
        Tfds(root=tmp_path)
    with pytest.raises(ValueError, match="Give either `name`"):
        Tfds()
    with pytest.raises(ValueError, match=r"no split 'val'. Found: .*train"):
        Tfds("tiny", prepared, "val")
    with pytest.raises(ValueError, match=r"2 features that could be `image_key`"):
        Tfds("tiny_many", prepared)
    with pytest.raises(ValueError, match=r"no label_key 'lable'. Did you mean 'label'"):
        Tfds("tiny", prepared, label_key="lable")


def test_files_that_were_changed_are_named(prepared, tmp_path):
    import shutil

    root = tmp_path / "copy"
    shutil.copytree(prepared / "tiny/1.2.0", root)
    (file,) = root.glob("*test.tfrecord*")
    data = file.read_bytes()
    file.write_bytes(data[:-1])
    with pytest.raises(ValueError, match=rf"{file.name} is cut off"):
        Tfds(root=root, split="test")
    length = int.from_bytes(data[:8], "little") + 16
    file.write_bytes(data[length:])
    with pytest.raises(ValueError, match=r"has 5 records; .* says 6"):
        Tfds(root=root, split="test")
    file.unlink()
    with pytest.raises(FileNotFoundError, match=rf"{file.name} is missing"):
        Tfds(root=root, split="test")
    info = root / "dataset_info.json"
    text = info.read_text()
    info.write_text(text.replace('"tiny"', '"../../tiny"'))
    with pytest.raises(ValueError, match=r"names the file .* in its own folder"):
        Tfds(root=root, split="test")
    for cut in ("", text[:200], "[" * 100_000):
        info.write_text(cut)
        with pytest.raises(ValueError, match=r"dataset_info.json or .* is damaged"):
            Tfds(root=root, split="test")
        with pytest.raises(ValueError, match=r"dataset_info.json"):
            detect_source(root)


def test_records_that_do_not_fit_their_checksum_are_left_out(prepared, tmp_path):
    import shutil

    root = tmp_path / "copy"
    shutil.copytree(prepared / "tiny/1.2.0", root)
    (file,) = root.glob("*test.tfrecord*")
    data = bytearray(file.read_bytes())
    data[-5] ^= 1  # the last byte of the last record
    file.write_bytes(data)
    source = Tfds(root=root, split="test")
    report = DataReport(source, max_bad=0.2)
    batches = make_dataset(source, Preprocessing((16, 16)), 2, report=report)
    assert sum(len(images) for images, _ in batches) == 5
    ((name, detail),) = report.skipped["record.damaged"]
    assert name.endswith("test[5]") and "Record 5 is damaged" in detail
    assert file.name in detail and report.read == report.used + 1 == 6


def test_boxes_are_pixels_of_the_upright_image(prepared):
    source = Tfds("tiny_boxes", prepared, "test")
    assert source.info.task == "detection" and source.labels() is None
    assert source.info.class_names == ("ant", "bee", "cow")
    counts = []
    for index, element in enumerate(source.raw_dataset().as_numpy_iterator()):
        record = source.record(index)
        height, width = inspect_image(record["encoded"]).upright_size
        expected = [
            [0.2 * k * width, 0.1 * k * height, width, 0.5 * height]
            for k in range(len(record["boxes"]))
        ]
        expected = np.reshape(expected, (-1, 4))
        np.testing.assert_allclose(record["boxes"], expected, rtol=1e-5)
        assert record["box_labels"].tolist() == list(range(len(expected)))
        assert record["is_crowd"].tolist() == [k == 1 for k in range(len(expected))]
        assert record["area"].tolist() == [10.0 * k for k in range(len(expected))]
        del element["index"]
        assert element.keys() == record.keys()
        for key, value in element.items():
            np.testing.assert_array_equal(value, record[key], key)
            assert key == "encoded" or value.dtype == record[key].dtype
        counts.append(len(expected))
    assert sorted(counts) == [0, 0, 1, 1, 2, 2]
    objects = source.objects()
    assert np.diff(objects["row_splits"]).tolist() == counts
    assert "encoded" not in objects and objects["boxes"].dtype == np.float32
    many = Tfds("tiny_boxes", prepared, "test", task="classification")
    assert many.info.multi_label and many.labels().shape == (6, 3)
    with pytest.raises(ValueError, match=r"tiny/1.2.0 has no boxes: none of its feat"):
        Tfds("tiny", prepared, task="detection")
    task = "instance_segmentation"
    with pytest.raises(ValueError, match=r"tiny/1.2.0 has no boxes"):
        Tfds("tiny", prepared, task=task)
    with pytest.raises(ValueError, match=r"has boxes, but no masks: .*objects/bbox"):
        Tfds("tiny_boxes", prepared, task=task)


def test_instances(prepared):
    task = "instance_segmentation"
    source = Tfds("tiny_instances", prepared, "test", task=task)
    assert source.info.task == task and source.info.class_names[1] == "bee"
    counts = []
    for index, element in enumerate(source.raw_dataset().as_numpy_iterator()):
        record = source.record(index)
        width = inspect_image(record["encoded"]).width
        strings = [
            encode_rle(instance(width - 30, k)) for k in range(len(record["boxes"]))
        ]
        assert record["instance_masks"] == strings
        assert element["instance_masks"].tolist() == strings
        counts.append(len(strings))
    assert sorted(counts) == [0, 0, 1, 1, 2, 3]
    objects = source.objects()
    assert np.diff(objects["row_splits"]).tolist() == counts
    assert len(objects["instance_masks"]) == sum(counts)
    boxes = Tfds("tiny_instances", prepared, "test")
    assert boxes.info.task == "detection" and "instance_masks" not in boxes.record(0)
    found = detect_source(prepared / "tiny_instances/1.2.0", task)
    assert found.name == "tfds" and found.source.info.task == task


def test_masks(prepared):
    task = "semantic_segmentation"
    classes = {"pet": 1, "border": 3}
    source = Tfds("tiny_masks", prepared, "test", task=task, classes=classes, void=2)
    assert source.info.class_names == ("pet", "border") and source.labels() is None
    for index, element in enumerate(source.raw_dataset().as_numpy_iterator()):
        record = source.record(index)
        assert element["mask_encoded"] == record["mask_encoded"]
        height, width = inspect_image(record["encoded"]).upright_size
        expected = np.full((height, width), 0)
        expected[:, 7:], expected[3:5] = 1, 255
        np.testing.assert_array_equal(source.mask(index), expected)
    (_, masks), *_ = make_dataset(source, Preprocessing((20, 48)), 1)
    assert set(np.unique(masks)) == {0, 1, 255}
    with pytest.raises(ValueError, match=r"tiny/1.2.0 has 0 features that could be"):
        Tfds("tiny", prepared, task=task)
    with pytest.raises(ValueError, match=r"are not known.*Values in the masks: 1, 2"):
        Tfds("tiny_masks", prepared, task=task)


def test_a_prepared_folder_is_recognised(prepared):
    found = detect_source(prepared / "tiny_boxes/1.2.0")
    assert (found.name, found.train) == ("tfds", {"split": "train"})
    assert found.validation is None and found.source.info.task == "detection"
    found = detect_source(prepared / "tiny/1.2.0", "classification")
    assert found.source.info.task == "classification"
