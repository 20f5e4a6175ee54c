"""Samples depend on their seeds alone; annotations follow pixels; nothing hangs."""

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from visionkit.data import worker_pool
from visionkit.data.albumentations import AlbumentationsPool
from visionkit.data.albumentations_policy import Policy
from visionkit.data.geometric import cut, start_geometry
from visionkit.data.mask_layers import MAX_LAYERS
from visionkit.data.rle import encode_rle
from visionkit.data.targets import map_boxes
from visionkit.data.worker_pool import SLOTS, WorkerPool

MIXED = [
    ("RandomResizedCrop", {"size": [24, 32]}),
    ("HorizontalFlip", {}),
    ("OneOf", {"transforms": ["RandomGamma", {"CLAHE": {"clip_limit": 3.0}}]}),
    ("GaussNoise", {}),
]
# Nested loops in Python: about two seconds on 200x200 pixels.
SLOW = [("GlassBlur", {"max_delta": 3, "iterations": 8, "mode": "exact", "p": 1.0})]


def pictures(count, channels=3):
    rng = np.random.default_rng(1)
    return [
        rng.integers(0, 256, (40 + 3 * i, 70 - 2 * i, channels), dtype=np.uint8)
        for i in range(count)
    ]


def samples(images, **more):
    """A data set as `read_samples` makes it, with `more` lists of annotations."""

    def element(i):
        extra = {key: values[i] for key, values in more.items()}
        seed = np.int64([7, -i])
        return {"images": images[i], "seed": seed, "image_id": np.int32(i), **extra}

    spec = tf.nest.map_structure(
        lambda x: tf.TensorSpec([None] * np.ndim(x), np.asarray(x).dtype), element(0)
    )
    channels = images[0].shape[-1]
    spec["images"] = tf.TensorSpec([None, None, channels], tf.uint8)
    spec["seed"] = tf.TensorSpec([2], tf.int64)
    dataset = tf.data.Dataset.from_generator(
        lambda: map(element, range(len(images))), output_signature=spec
    )
    return dataset.map(lambda s: {**s, **start_geometry(tf.shape(s["images"])[:2])})


def plain(specs, images):
    """The same calls, one after another in this process."""
    policy = Policy(specs)
    seeds = [[0, 7, -i % 2**64] for i in range(len(images))]
    return [policy(s, x)["image"] for s, x in zip(seeds, images, strict=True)]


def until(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.01)


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_samples_are_those_of_one_plain_process(workers):
    images = pictures(14)
    with AlbumentationsPool(MIXED, workers) as pool:
        found = list(pool.apply(samples(images)).as_numpy_iterator())
        assert len(pool.pids) == workers
    assert [sample["image_id"] for sample in found] == list(range(14))
    for sample, image in zip(found, plain(MIXED, images), strict=True):
        np.testing.assert_array_equal(sample["images"], image)
        np.testing.assert_array_equal(sample["placement"], [1, 1, 0, 0])
        np.testing.assert_array_equal(sample["visible"], [0, 0, 24, 32])


def test_policy_is_albumentations_and_draws_from_the_seed_alone():
    import random

    import albumentations

    image = pictures(1)[0]
    mine = Policy([("HorizontalFlip", {}), ("RandomBrightnessContrast", {})])
    mine([4], image)
    generator = np.random.default_rng([3, 5])
    theirs = albumentations.Compose(
        [albumentations.HorizontalFlip(), albumentations.RandomBrightnessContrast()]
    )
    draws = random.Random(int(generator.integers(2**63)))
    theirs.set_random_state(generator, draws)
    draws.getrandbits(31)
    np.testing.assert_array_equal(
        mine([3, 5], image)["image"], theirs(image=image)["image"]
    )


def test_transforms_draw_independently():
    image = np.arange(4, dtype=np.uint8).reshape(2, 2, 1)
    policy = Policy([("HorizontalFlip", {"p": 0.5}), ("VerticalFlip", {"p": 0.5})])
    corners = [int(policy([seed], image)["image"][0, 0, 0]) for seed in range(400)]
    assert min(corners.count(corner) for corner in range(4)) > 70


def test_worker_imports_neither_tensorflow_nor_keras():
    code = (
        "import sys, visionkit.data.worker as w; w.Policy([('CLAHE', {})])\n"
        "bad = {'tensorflow', 'keras', 'torch', 'jax'} & set(sys.modules)\n"
        "assert not bad, bad\n"
        "import cv2; assert cv2.getNumThreads() == 1"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("specs", "message"),
    [
        ([("CLAEH", {})], "no transform 'CLAEH'. Did you mean 'CLAHE'"),
        (
            [("CLAHE", {"cliplimit": 2})],
            "no option 'cliplimit'. Did you mean 'clip_limit'",
        ),
        ([("CLAHE", {"p": 1.5})], "`CLAHE`: p: Input should be less than"),
        ([("RandomCrop", {"height": 9})], "width: Field required"),
        ([("OneOf", {"transforms": [{"Blurr": {}}]})], "Did you mean 'Blur'"),
        ([("OneOf", {"transforms": [3]})], "`OneOf` lists names"),
        ([("MaskDropout", {})], "`MaskDropout` needs mask"),
    ],
)
def test_wrong_policies_are_refused(specs, message):
    with pytest.raises(ValueError, match=message):
        Policy(specs)


def test_what_is_wrong_is_known_before_the_first_sample():
    with pytest.raises(ValueError, match="Did you mean 'CLAHE'"):
        AlbumentationsPool([("CLAEH", {})], 1).apply(samples(pictures(1)))
    with pytest.raises(ValueError, match="CamelCase"):
        AlbumentationsPool([("flip", {})])
    with pytest.raises(ValueError, match="`workers` must be at least 1"):
        AlbumentationsPool([("CLAHE", {})], 0)


def test_masks_without_room_are_left_out_and_told():
    """More objects over one another than there are layers."""
    image = pictures(1)[0]
    whole = encode_rle(np.ones(image.shape[:2], bool))
    count = MAX_LAYERS + 2
    boxes = {
        "boxes": np.float32([[0, 0, image.shape[1], image.shape[0]]] * count),
        "labels": np.arange(count, dtype=np.int32),
    }
    dataset = samples(
        [image],
        bounding_boxes=[boxes],
        instance_masks=[np.array([whole] * count)],
        mask_size=[np.int32(image.shape[:2])],
    )
    notes = []
    report = SimpleNamespace(note=lambda *what: notes.append(what))
    with AlbumentationsPool([("Transpose", {"p": 1.0})], 1) as pool:
        (sample,) = pool.apply(dataset, report=report).as_numpy_iterator()
    assert sample["bounding_boxes"]["labels"].tolist() == list(range(MAX_LAYERS))
    turned = encode_rle(np.ones(image.shape[1::-1], bool))
    assert sample["instance_masks"].tolist() == [turned] * MAX_LAYERS
    assert sample["mask_size"].tolist() == list(image.shape[1::-1])
    assert notes == [("masks.over_max_layers", 0)]


@pytest.mark.parametrize("channels", [1, 3])
def test_boxes_and_masks_follow_pixels(channels):
    """A bright rectangle, its mask and its box stay together."""
    rng = np.random.default_rng(3)
    images, masks, boxes = [], [], []
    for _ in range(16):
        image = np.zeros((60, 90, channels), np.uint8)
        mask = np.zeros((60, 90), np.uint8)
        y, x = rng.integers(5, 25), rng.integers(5, 40)
        image[y : y + 24, x : x + 30] = 250
        mask[y : y + 24, x : x + 30] = 3
        mask[:2] = 255
        rows = [[x, y, x + 30, y + 24], [1, 2, 1, 2], [x, y, x + 30, y + 24]]
        images.append(image)
        masks.append(mask)
        boxes.append(
            {
                "boxes": np.float32(rows),
                "labels": np.int32([4, 5, 6]),
                "is_crowd": np.array([False, False, True]),
            }
        )
    specs = [
        ("HorizontalFlip", {"p": 0.5}),
        ("RandomRotate90", {"p": 1.0}),
        ("Affine", {"translate_px": [-20, 20], "p": 1.0}),
        ("RandomCrop", {"height": 50, "width": 50, "pad_if_needed": True}),
        ("Resize", {"height": 100, "width": 150}),
    ]
    dataset = samples(images, segmentation_masks=masks, bounding_boxes=boxes)
    # What a fused crop leaves: boxes still in the pixels of the whole image.
    dataset = dataset.map(lambda sample: cut(sample, tf.constant([3, 2, 55, 80])))
    seen, voids = 0, 0
    with AlbumentationsPool(specs, 2) as pool:
        for sample in pool.apply(dataset).as_numpy_iterator():
            image, mask = sample["images"][..., 0], sample["segmentation_masks"]
            assert image.shape == mask.shape == (100, 150)
            assert set(np.unique(mask)) <= {0, 3, 255}
            voids += (mask[2:-2] == 255).all(axis=1).any()
            rows = map_boxes(tf.nest.map_structure(tf.constant, sample))
            assert len(rows["labels"]) <= 1  # no crowd, no box without area
            if not len(rows["boxes"]):
                continue
            seen += 1
            assert int(rows["labels"][0]) == 4 and not bool(rows["is_crowd"][0])
            for bright in (image > 125, mask == 3):
                ys, xs = np.nonzero(bright)
                edges = [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
                np.testing.assert_allclose(rows["boxes"][0], edges, atol=3.1)
    assert seen >= 10 and voids


def test_samples_without_boxes_stay_without():
    none = {"boxes": np.zeros((0, 4), np.float32), "labels": np.zeros(0, np.int32)}
    images = pictures(3)
    dataset = samples(images, bounding_boxes=[none] * 3)
    with AlbumentationsPool([("RandomCrop", {"height": 9, "width": 8})], 1) as pool:
        for sample in pool.apply(dataset).as_numpy_iterator():
            assert sample["bounding_boxes"]["boxes"].shape == (0, 4)
            assert sample["images"].shape == (9, 8, 3)


def test_new_values_leave_annotations_alone():
    boxes = {"boxes": np.float32([[1, 2, 9, 9]]), "labels": np.int32([1])}
    dataset = samples(
        pictures(2), bounding_boxes=[boxes] * 2, instance_masks=[np.array([b"x"])] * 2
    ).map(lambda sample: cut(sample, tf.constant([3, 2, 20, 20])))
    with AlbumentationsPool([("InvertImg", {"p": 1.0})], 1) as pool:
        for old, new in zip(dataset, pool.apply(dataset), strict=True):
            np.testing.assert_array_equal(new["images"], 255 - old["images"])
            for key in old.keys() - {"images", "bounding_boxes"}:
                np.testing.assert_array_equal(new[key], old[key])


def test_error_in_a_transform_names_it_and_the_record():
    images = pictures(8)
    source = SimpleNamespace(record_name=lambda index: f"photo_{index}.jpg")
    specs = [("HorizontalFlip", {}), ("CenterCrop", {"height": 40, "width": 60})]
    with AlbumentationsPool(specs, 2) as pool:
        dataset = pool.apply(samples(images), source)
        # Two are too narrow, in two workers: either may be the first to say so.
        with pytest.raises(tf.errors.OpError, match=r"CenterCrop failed on photo_[67]"):
            list(dataset)
        assert "photo_6.jpg" in str(pool.error) or "photo_7.jpg" in str(pool.error)
        assert not pool.pids
    with (
        AlbumentationsPool([("ToFloat", {"p": 1.0})], 1) as pool,
        pytest.raises(tf.errors.OpError, match="keep pixels uint8"),
    ):
        list(pool.apply(samples(images)))


def test_names_are_not_looked_up_without_an_error():
    """A TFRecord's would be read from the disk, with the image, for every sample."""
    asked = []
    source = SimpleNamespace(record_name=asked.append)
    with AlbumentationsPool([("InvertImg", {"p": 1.0})], workers=1) as pool:
        assert len(list(pool.apply(samples(pictures(2)), source))) == 2
    assert not asked


def test_killed_worker_is_replaced_and_its_sample_redone():
    image = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    pool = WorkerPool({"specs": SLOW}, 1, timeout=60.0)
    pool.open()
    answers = {}

    def work(name):
        try:
            answers[name] = pool.run([1], [image], name)[0]
        except RuntimeError as error:
            answers[name] = error

    def kill_at_work(name, times):
        """Kills the worker whenever it has begun with the sample."""
        memories = pool._workers[0].memories
        killed = {0.0, *(memory.started for memory in memories)}
        thread = threading.Thread(target=work, args=[name])
        thread.start()
        for _ in range(times):
            until(lambda: not killed >= {memory.started for memory in memories})
            killed.update(memory.started for memory in memories)
            os.kill(pool.pids[0], signal.SIGKILL)
        thread.join()

    with pytest.warns(RuntimeWarning, match="ended by signal 9; it is replaced"):
        kill_at_work("once", 1)
        expected = Policy(SLOW)([1], image)["image"]
        np.testing.assert_array_equal(answers["once"], expected)
        assert pool.restarts == 1
        kill_at_work("twice", 2)
    assert "died twice" in str(answers["twice"]) and "on twice" in str(answers["twice"])
    assert not pool.pids


def test_samples_that_come_while_a_worker_starts_wait_for_it():
    image = np.random.default_rng(0).integers(0, 256, (90, 90, 3), dtype=np.uint8)
    pool = WorkerPool({"specs": SLOW}, 1, timeout=60.0)
    pool.open()
    memories = pool._workers[0].memories
    with (
        pytest.warns(RuntimeWarning, match="it is replaced"),
        ThreadPoolExecutor(SLOTS) as threads,
    ):
        runs = [threads.submit(pool.run, [0], [image], "killed")]
        until(lambda: any(memory.started for memory in memories))
        os.kill(pool.pids[0], signal.SIGKILL)
        time.sleep(0.3)  # the new one is still importing
        for i in range(1, SLOTS):  # also in the slot of its first word
            runs.append(threads.submit(pool.run, [i], [image], str(i)))
        for i, run in enumerate(runs):
            expected = Policy(SLOW)([i], image)["image"]
            np.testing.assert_array_equal(run.result()[0], expected)
    pool.close()


def test_stuck_worker_ends_in_an_error():
    image = np.zeros((200, 200, 3), np.uint8)
    pool = WorkerPool({"specs": SLOW}, 1, timeout=0.2)
    pool.open()
    with pytest.raises(RuntimeError, match=r"GlassBlur took longer than 0.2 s on b"):
        pool.run([1], [image], "b")
    pool.open()
    os.kill(pool.pids[0], signal.SIGSTOP)  # before it has begun
    with pytest.raises(RuntimeError, match="took longer"):
        pool.run([1], [image], "b")
    assert not pool.pids


def test_workers_end_when_idle_and_begin_again(monkeypatch):
    monkeypatch.setattr(worker_pool, "IDLE_SECONDS", 0.3)
    image = pictures(1)[0]
    pool = WorkerPool({"specs": MIXED}, 1, timeout=60.0)
    pool.open()
    first = pool.run([1], [image], "a")[0]
    (pid,) = pool.pids
    until(lambda: not alive(pid))
    until(lambda: not pool.pids)
    np.testing.assert_array_equal(pool.run([1], [image], "a")[0], first)
    pool.close()
    with pytest.raises(RuntimeError, match="closed"):
        pool.run([1], [image], "a")


def test_large_samples_give_their_memory_back():
    large = np.zeros((3000, 2500, 3), np.uint8)
    pool = WorkerPool({"specs": [("InvertImg", {"p": 1.0})]}, 1, timeout=60.0)
    pool.open()
    for image in (large, pictures(1)[0], large):
        np.testing.assert_array_equal(pool.run([1], [image], "a")[0], 255 - image)
    fds = [memory.fd for memory in pool._workers[0].memories]
    assert all(os.fstat(fd).st_size < 17 << 20 for fd in fds)
    pool.close()


def test_no_leak_over_twenty_epochs():
    def state():
        with open("/proc/self/statm") as file:
            pages = int(file.read().split()[1])
        return (
            len(pool.pids),
            threading.active_count(),
            len(os.listdir("/proc/self/fd")),
            len(os.listdir("/dev/shm")),
        ), pages * 4096

    pool = AlbumentationsPool(MIXED, 2)
    endless = pool.apply(samples(pictures(12)).repeat()).prefetch(2).take(12)

    def epochs(number):
        for _ in range(number):
            for _ in endless:  # left with samples still in work
                pass
        gc.collect()

    epochs(4)
    before, memory = state()
    pids = pool.pids
    epochs(20)
    after, grown = state()
    assert after == before and pool.pids == pids
    assert grown - memory < 20 << 20
    pool.close()
    assert not any(map(alive, pids))  # nor a zombie
    after, _ = state()
    assert after[0] == 0 and after[2] < before[2]


def test_workers_end_with_the_program_however_it_ends():
    code = (
        "import os, sys, numpy as np\n"
        "from visionkit.data.worker_pool import WorkerPool\n"
        "pool = WorkerPool({'specs': [('InvertImg', {})]}, 1, 60.0); pool.open()\n"
        "print(*pool.pids, flush=True)\n"
        "os.kill(os.getpid(), 9) if sys.argv[1] == 'kill' else None"
    )
    for end in ("exit", "kill"):
        run = subprocess.run([sys.executable, "-c", code, end], stdout=subprocess.PIPE)
        (pid,) = map(int, run.stdout.split())
        until(lambda pid=pid: not alive(pid))
