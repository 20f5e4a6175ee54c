"""The data path without TensorFlow: equal to its twin, and shuffled repeatably."""

import subprocess
import sys

import numpy as np
import pytest
from pictures import classification_source, encode, picture
from PIL import Image

from visionkit.data.arrays import ArrayDataset, load_images
from visionkit.data.image_header import BadImage
from visionkit.types import Preprocessing


@pytest.mark.parametrize(
    "mode", ["letterbox", "stretch", "center_crop", "shortest_edge"]
)
@pytest.mark.parametrize("channels", [1, 3])
def test_load_images_equals_the_graph_twin(mode, channels):
    from visionkit.data.decode import decode_image
    from visionkit.data.resize import resize_image

    sizes = ((48, 64), (33, 20), (201, 77), (2, 90))
    images = [encode(picture(*size, seed=i)) for i, size in enumerate(sizes)]
    exif = Image.Exif()
    exif[0x0112] = 6
    images.append(encode(picture(50, 70), exif=exif))
    preprocessing = Preprocessing((40, 56), mode, channels)
    loaded = load_images(images, preprocessing)
    np.testing.assert_array_equal(loaded.image_sizes, [*sizes, (70, 50)])
    for image, ours, placement in zip(
        images, loaded.images, loaded.placements, strict=True
    ):
        twin, twin_placement = resize_image(
            decode_image(image, channels), preprocessing
        )
        assert abs(twin.numpy().astype(int) - ours).max() <= 2
        np.testing.assert_array_equal(twin_placement, placement)


def test_load_images_reads_sources_paths_and_16_bits(tmp_path):
    source = classification_source(3, format="PNG")
    preprocessing = Preprocessing((20, 30))
    from_source = load_images(source, preprocessing).images
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for path, record in zip(paths, source.records, strict=True):
        path.write_bytes(record["encoded"])
    np.testing.assert_array_equal(load_images(paths, preprocessing).images, from_source)
    deep = Image.fromarray(np.full((20, 30), 100 * 257, np.uint16))
    assert (load_images([encode(deep)], preprocessing).images == 100).all()
    with pytest.raises(BadImage, match=r"image\.empty"):
        load_images([b""], preprocessing)


def test_array_dataset_shuffles_by_seed_and_epoch():
    images = np.arange(10).reshape(10, 1, 1, 1)
    target = {"labels": np.arange(10)}

    def epochs(seed):
        data = ArrayDataset(images, target, 3, shuffle=True, seed=seed)
        out = []
        for _ in range(2):
            batches = [data[i] for i in range(len(data))]
            assert len(batches) == 3
            for x, y in batches:
                np.testing.assert_array_equal(x.ravel(), y["labels"])
            out.append(np.concatenate([y["labels"] for _, y in batches]))
            data.on_epoch_end()
        return out

    first, second = epochs(4)
    assert len(set(first)) == 9 and (first != second).any()
    np.testing.assert_array_equal(epochs(4), [first, second])
    assert (epochs(5)[0] != first).any()


def test_array_dataset_keeps_the_rest_and_repeats_few():
    images = np.zeros((5, 2, 3, 1))
    data = ArrayDataset(images, np.arange(5), 2)
    assert [len(data[i][0]) for i in range(len(data))] == [2, 2, 1]
    few = ArrayDataset(images, np.arange(5), 8, shuffle=True)
    assert len(few) == 1 and np.bincount(few[0][1]).min() == 1 and len(few[0][1]) == 8


def test_array_dataset_draws_transforms_repeatably():
    def transform(images, target, rng):
        return images + rng.random(), target

    data = ArrayDataset(np.zeros((4, 1, 2, 1)), np.arange(4), 2, transform=transform)
    assert data[0][0].max() != data[1][0].max()
    np.testing.assert_array_equal(data[1][0], data[1][0])


def test_array_dataset_refuses_rows_that_do_not_match():
    with pytest.raises(ValueError, match="'images': 3, 'target': 2"):
        ArrayDataset(np.zeros((3, 1, 1, 1)), np.zeros(2), 1)
    with pytest.raises(ValueError, match="at least one image"):
        ArrayDataset(np.zeros((0, 1, 1, 1)), np.zeros(0), 1)


def test_arrays_work_where_tensorflow_cannot_be_imported():
    code = (
        "import sys, os; sys.modules['tensorflow'] = None; "
        "os.environ['KERAS_BACKEND'] = 'jax'; import visionkit.data.arrays"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
