"""Every file of a class folder is an image with that label, or in `skipped`."""

from __future__ import annotations

import collections
import os
from pathlib import Path

import numpy as np
import pytest

from visionkit.data.sources.image_folder import ImageFolder, find_splits

SIGN_DIGITS = Path(__file__).parents[2] / "../shared/data/sign_digits"


def make(root, *names):
    for name in names:
        path = os.path.join(os.fsencode(root), os.fsencode(name))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if not name.endswith("/"):
            with open(path, "wb") as file:
                file.write(b"content is not read")
    return root


def rules(source):
    return {os.path.basename(skip.name): skip.rule for skip in source.skipped}


def test_flat_folder_is_sorted_by_bytes(tmp_path):
    names = ("b/2.JPG", "b/10.jpeg", "B/x.png", "a/c.webp", "a/deep/er/d.Gif")
    source = ImageFolder(make(tmp_path, *names))
    assert source.info.class_names == ("B", "a", "b")
    assert source.info.split == "all"
    records = [source.record(i) for i in range(len(source))]
    found = [os.path.relpath(os.fsdecode(r["path"]), tmp_path) for r in records]
    assert found == ["B/x.png", "a/c.webp", "a/deep/er/d.Gif", "b/10.jpeg", "b/2.JPG"]
    assert [r["label"] for r in records] == source.labels().tolist() == [0, 1, 1, 2, 2]
    assert source.columns()["path"].tolist() == [r["path"] for r in records]
    assert source.columns()["label"].dtype == np.int32


def test_raw_dataset_matches_the_records(tmp_path):
    source = ImageFolder(make(tmp_path, "a/1.jpg", "b/\udce9.jpg", "b/2.jpg"))
    elements = list(source.raw_dataset().as_numpy_iterator())
    assert [e["path"] for e in elements] == [source.record(i)["path"] for i in range(3)]
    shuffled = source.raw_dataset(seed=7).as_numpy_iterator()
    assert sorted(e["index"] for e in shuffled) == [0, 1, 2]


def test_names_that_are_not_utf8(tmp_path):
    source = ImageFolder(
        make(
            tmp_path, "caf\udce9/n\udcff.jpg", "z/new\nline.jpg", "z/😀.jpg", "z/-a.jpg"
        )
    )
    assert source.info.class_names == ("caf\udce9", "z")
    assert source.record(0)["path"].endswith(b"caf\xe9/n\xff.jpg")
    assert source.record_name(0).endswith("caf\udce9/n\udcff.jpg")
    assert len(source) == 4


def test_what_is_not_used_is_accounted_for(tmp_path):
    make(
        tmp_path,
        *("a/ok.jpg", "b/ok.jpg", "a/.hidden.jpg", ".git/x.jpg", "__MACOSX/a/x.jpg"),
        *("a/x.tif", "a/y.HEIC", "a/notes.txt", "a/folder.jpg/z.jpg", "loose.png"),
    )
    os.mkfifo(tmp_path / "a/fifo.jpg")
    (tmp_path / "a/broken.jpg").symlink_to("missing.jpg")
    (tmp_path / "a/link.jpg").symlink_to("ok.jpg")
    source = ImageFolder(tmp_path)
    assert len(source) == 3
    assert rules(source) == {
        "x.tif": "image.format",
        "y.HEIC": "image.format",
        "folder.jpg": "image.not_a_file",
        "fifo.jpg": "image.not_a_file",
        "broken.jpg": "image.unreadable",
        "loose.png": "image.no_class",
    }
    details = {skip.name: skip.detail for skip in source.skipped}
    assert "convert it to JPEG or PNG" in details[str(tmp_path / "a/x.tif")]


def test_links_to_folders_are_followed_once(tmp_path):
    make(tmp_path, "data/a/1.jpg", "data/b/2.jpg", "elsewhere/3.jpg")
    (tmp_path / "data/c").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data/a/loop").symlink_to(tmp_path / "data/a")
    source = ImageFolder(tmp_path / "data")
    assert source.labels().tolist() == [0, 1, 2]


@pytest.mark.parametrize("validation", ["val", "valid", "validation", "Validation"])
def test_split_folders(tmp_path, validation):
    make(tmp_path, "train/a/1.jpg", "train/b/2.jpg", f"{validation}/b/3.jpg")
    make(tmp_path, f"{validation}/a/4.jpg", "notes/x.txt", "train/loose.jpg")
    assert list(find_splits(tmp_path)) == ["train", "validation"]
    train = ImageFolder(tmp_path)
    assert (train.info.split, len(train)) == ("train", 2)
    assert rules(train) == {"notes": "image.no_class", "loose.jpg": "image.no_class"}
    held = ImageFolder(tmp_path, split="validation")
    assert held.info.class_names == ("a", "b")
    assert held.record(1) == {
        "path": os.fsencode(tmp_path / validation / "b/3.jpg"),
        "label": 1,
    }
    with pytest.raises(FileNotFoundError, match=r"no 'test' split. Found: train, val"):
        ImageFolder(tmp_path, split="test")


def test_train_defines_the_labels_of_every_split(tmp_path):
    make(tmp_path, "train/a/1.jpg", "train/b/2.jpg", "train/c/3.jpg", "test/c/4.jpg")
    with pytest.warns(UserWarning, match=r"Classes without an image .*'a', 'b'"):
        source = ImageFolder(tmp_path, split="test")
    assert source.info.num_classes == 3
    assert source.labels().tolist() == [2]
    make(tmp_path, "test/dog/5.jpg")
    with pytest.raises(ValueError, match=r"lacks: \['dog'\]"):
        ImageFolder(tmp_path, split="test")


def test_a_class_called_train_is_no_split(tmp_path):
    make(tmp_path, "train/1.jpg", "bus/2.jpg")
    assert ImageFolder(tmp_path).info.class_names == ("bus", "train")


def test_empty_class_is_kept_with_a_warning(tmp_path):
    make(tmp_path, "a/1.jpg", "b/", "c/2.jpg")
    with pytest.warns(UserWarning, match=r"Classes without an image .*'b'"):
        source = ImageFolder(tmp_path)
    assert source.info.class_names == ("a", "b", "c")
    assert source.labels().tolist() == [0, 2]


def test_errors_say_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"No such folder.*one folder of"):
        ImageFolder(tmp_path / "missing")
    make(tmp_path, "file", "one/set/a/1.jpg", "one/set/b/1.jpg", "no/a/x.txt", "no/b/")
    with pytest.raises(NotADirectoryError, match="is a file"):
        ImageFolder(tmp_path / "file")
    with pytest.raises(ValueError, match=r"found one, 'set'.*Did you mean.*one/set'"):
        ImageFolder(tmp_path / "one")
    with pytest.raises(ValueError, match=r"No image in the 2 class folders.*\.jpg"):
        ImageFolder(tmp_path / "no")
    with pytest.raises(ValueError, match="found none"):
        ImageFolder(tmp_path / "no/b")
    with pytest.raises(FileNotFoundError, match="no split folders"):
        ImageFolder(tmp_path / "one/set", split="validation")
    with pytest.raises(ValueError, match="`split` must be one of"):
        ImageFolder(tmp_path / "one/set", split="vall")


@pytest.mark.skipif(not SIGN_DIGITS.is_dir(), reason="sign_digits is not here")
def test_sign_digits():
    source = ImageFolder(next(p.parent for p in sorted(SIGN_DIGITS.rglob("0"))))
    assert len(source) == 2062
    assert source.info.class_names == tuple("0123456789")
    assert min(collections.Counter(source.labels().tolist()).values()) > 200
