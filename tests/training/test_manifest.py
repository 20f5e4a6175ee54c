"""A run is resumed on the data that it was started with, or told how they differ."""

import os
import shutil

import pytest
from PIL import Image

from visionkit.data.sources.digits import Digits
from visionkit.data.sources.image_folder import ImageFolder
from visionkit.training.manifest import (
    MANIFEST_NAME,
    describe_source,
    differences,
    keep_manifest,
)
from visionkit.training.recipe_files import RecipeError


@pytest.fixture
def images(tmp_path):
    """A folder of two classes of three images."""
    for name in (b"cat", b"caf\xe9"):
        folder = os.path.join(os.fsencode(tmp_path), b"images", name)
        os.makedirs(folder)
        for i in range(3):
            with open(os.path.join(folder, b"%d.png" % i), "wb") as file:
                Image.new("RGB", (8, 6 + i), (i, 0, 0)).save(file, "PNG")
    return tmp_path / "images"


def keep(folder, images, **options):
    sources = {"train": ImageFolder(images), "validation": ImageFolder(images)}
    return keep_manifest(folder, sources, **options)


def grow(file):
    with file.open("ab") as f:
        f.write(b"more")


def swap(cat):
    os.rename(cat / "0.png", os.path.join(os.fsencode(cat.parent), b"caf\xe9/9.png"))


CHANGES = {
    "new": (lambda cat: shutil.copy(cat / "0.png", cat / "new.png"), "1 .*cat/new.png"),
    "gone": (lambda cat: (cat / "1.png").unlink(), r"1 files \(cat/1.png\) gone"),
    "size": (lambda cat: grow(cat / "2.png"), ".*cat/2.png. of another size"),
    "moved": (swap, r"1 files \(caf\udce9/9.png\) new"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_other_files_are_refused_by_name_unless_forced(tmp_path, images, change):
    assert keep(tmp_path, images, resume=False) == set()
    assert keep(tmp_path, images, resume=True) == set()
    alter, message = CHANGES[change]
    alter(images / "cat")
    before = (tmp_path / MANIFEST_NAME).read_bytes()
    with pytest.raises(RecipeError, match=f"(?s)train: {message}.*--force"):
        keep(tmp_path, images, resume=True)
    assert (tmp_path / MANIFEST_NAME).read_bytes() == before
    assert keep(tmp_path, images, resume=True, force=True) == {"train", "validation"}
    assert keep(tmp_path, images, resume=True) == set()  # they are the run's now


def test_other_classes_are_refused_even_so(tmp_path, images):
    keep(tmp_path, images, resume=False)
    (images / "cat").rename(images / "dog")
    with pytest.raises(RecipeError, match=r"(?s)classes were .*'cat'.*need a new run"):
        keep(tmp_path, images, resume=True, force=True)


def test_data_in_another_place_are_the_same(images):
    before = describe_source(ImageFolder(images))
    assert len(before["sizes"]) == 6 and "cat/0.png" in before["sizes"]
    moved = images.rename(images.parent / "elsewhere")
    assert differences(before, describe_source(ImageFolder(moved))) == []


@pytest.mark.parametrize("task", ["detection", "instance_segmentation"])
def test_other_annotations_of_the_same_images_are_told(task):
    source = Digits(task, "validation", num_scenes=3)
    before = describe_source(source)
    assert differences(before, describe_source(source)) == []
    source.record(1)["boxes"][0, 0] += 1
    after = describe_source(source)
    assert differences(before, after) == ["the annotations are others"]


def test_records_without_files_are_counted():
    sources = [Digits("semantic_segmentation", "train", n) for n in (3, 4)]
    before, after = map(describe_source, sources)
    assert differences(before, after) == ["2 files (encoded 3, mask_encoded 3) new"]


def test_a_run_of_a_version_without_manifests_goes_on(tmp_path, images):
    assert keep(tmp_path, images, resume=True) == set()
    assert (tmp_path / MANIFEST_NAME).is_file()
