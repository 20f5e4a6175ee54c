"""albumentations' transforms in worker processes, as a step of tf.data.

Under `tf.numpy_function` alone they would share one core, since Python runs one thread
at a time. Here each call only carries a sample to a worker and waits for it.
"""

from __future__ import annotations

import dataclasses
import os

import numpy as np

from visionkit.data.albumentations_policy import RLE_MARK
from visionkit.data.geometric import start_geometry
from visionkit.data.lazy import tf
from visionkit.data.sources.base import Source
from visionkit.data.worker_pool import SLOTS, WorkerPool

TIMEOUT = 60.0  # seconds for one sample; a policy takes milliseconds


class AlbumentationsPool:
    """A list of albumentations transforms, run in worker processes.

    What becomes of a sample depends on its own seed alone: it is the same for any
    number of workers, and in whatever order they finish.

    ```python
    with AlbumentationsPool([("CLAHE", {"p": 0.1}), ("HorizontalFlip", {})]) as pool:
        for sample in pool.apply(samples):
            ...
    ```

    The workers also end 30 seconds after the last sample, until one comes again, and
    with the program.

    Args:
        specs: (name, options) of each transform, in order, as albumentations 2.0 calls
            them. `OneOf` and its kind take their transforms in a recipe's form.
        workers: Number of processes; by default one per usable core.
        seed: Joined with the seed of each sample.
        timeout: Seconds that one sample may take.

    Raises:
        ValueError: A name not in CamelCase, or options that are no dict. Whether
            albumentations knows them is found out by `apply`.
    """

    def __init__(self, specs, workers: int | None = None, seed=0, timeout=TIMEOUT):
        if not specs:
            raise ValueError("`specs` must name a transform. Received: specs=[]")
        for name, options in specs:
            if not (name.isidentifier() and name[0].isupper()):
                raise ValueError(
                    "albumentations' transforms are named in CamelCase, such as "
                    f"`HorizontalFlip`. Received: {name!r}"
                )
            if not isinstance(options, dict):
                raise ValueError(
                    f"The options of `{name}` must be a dict. Received: {options!r}"
                )
        workers = _usable_cores() if workers is None else workers
        if workers < 1 or seed < 0 or timeout <= 0:
            raise ValueError(
                "`workers` must be at least 1, `seed` not negative and `timeout` "
                f"positive. Received: workers={workers}, seed={seed}, timeout={timeout}"
            )
        self.specs = [(name, dict(options)) for name, options in specs]
        self.workers, self.seed, self.timeout = workers, int(seed), timeout
        self._pools: dict[tuple, WorkerPool] = {}

    @property
    def restarts(self) -> int:
        """How many workers died, for instance for want of memory, and were replaced."""
        return sum(pool.restarts for pool in self._pools.values())

    @property
    def error(self) -> Exception | None:
        """The first failure in a worker; it ended the data set."""
        errors = (pool.error for pool in self._pools.values())
        return next((error for error in errors if error), None)

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers that are running."""
        return [pid for pool in self._pools.values() for pid in pool.pids]

    def close(self):
        """Ends the workers. A data set made before fails; `apply` begins anew."""
        for pool in self._pools.values():
            pool.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def apply(self, dataset, source=None, report=None):
        """The data set with every sample transformed, in the same order.

        Args:
            dataset: A `tf.data.Dataset` of samples as `reading.read_sample` makes them.
            source: The `Source` they come from; gives errors the record's name.
            report: The `DataReport` that is told of images of which an instance mask
                was left out ("masks.over_max_layers").

        Returns:
            A `tf.data.Dataset` of samples. Where pixels may move, masks move along by
            the nearest pixel, and what comes from outside is void; boxes and
            proposals are in pixels of the new image, clipped, those with less than a
            tenth left dropped with their rows; and the sample's geometry begins anew.
            Boxes of instance masks are tight around what is left of them.

        Raises:
            ValueError: albumentations does not know a transform or an option, or a
                transform cannot move what the samples have.
            RuntimeError: The workers do not start.
        """
        spec = dataset.element_spec
        targets = [
            target
            for target, key in (
                ("mask", "segmentation_masks"),
                ("bboxes", "bounding_boxes"),
                ("masks", "instance_masks"),
                ("window", "instance_masks"),
            )
            if key in spec
        ]
        pool, spatial = self._open(targets)

        def run(seed, index, *arrays):
            name = f"record {index}" if source is None else _NameOf(source, index)
            seed = [self.seed, *(int(part) % 2**64 for part in seed)]
            answer = pool.run(seed, list(arrays), name)
            if spatial and "masks" in targets and answer.pop()[0] and report:
                report.note("masks.over_max_layers", index)
            return answer

        def transform(sample):
            if not spatial:
                return _change_values(sample, run)
            return _move_pixels(sample, run, targets)

        in_flight = self.workers * SLOTS
        # As one element's data set: behind the reporting of bad records, which calls
        # Python, deterministic ops would let a plain map do one sample at a time.
        samples = tf.data.Dataset.range(1).flat_map(
            lambda _: dataset.map(transform, in_flight, deterministic=True)
        )
        # Threads that wait for a worker must not keep others from decoding.
        options = tf.data.Options()
        options.threading.private_threadpool_size = in_flight + (os.cpu_count() or 1)
        return samples.with_options(options)

    def _open(self, targets) -> tuple[WorkerPool, bool]:
        """The running pool for samples with these targets, and whether pixels move."""
        from visionkit.data.targets import MIN_VISIBLE

        key = tuple(targets)
        if key not in self._pools:
            setup = {
                "specs": self.specs,
                "targets": targets,
                "min_visible": MIN_VISIBLE,
            }
            self._pools[key] = WorkerPool(setup, self.workers, self.timeout)
        return self._pools[key], self._pools[key].open()["spatial"]


@dataclasses.dataclass(frozen=True)
class _NameOf:
    """A record's name, looked up when it is printed: a TFRecord's is on the disk."""

    source: Source
    index: int

    def __str__(self):
        return self.source.record_name(self.index)


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _change_values(sample, run):
    """The sample with other values in the same pixels; the rest stays as it is."""
    old = sample["images"]

    def change(seed, index, image):
        return run(seed, index, image)[0]

    inputs = [sample["seed"], sample["image_id"], old]
    images = tf.numpy_function(change, inputs, tf.uint8, stateful=False)
    return {**sample, "images": tf.ensure_shape(images, old.shape)}


def _move_pixels(sample, run, targets):
    """The sample with its pixels in new places, all annotations with them."""
    from visionkit.data.targets import map_boxes, map_proposals

    inputs, kinds = [sample["images"]], [tf.uint8]
    if "mask" in targets:
        inputs.append(sample["segmentation_masks"])
        kinds.append(tf.uint8)
    if "bboxes" in targets:
        rows = map_boxes(sample)
        boxes, count = rows["boxes"], tf.shape(rows["boxes"])[0]
        if "proposals" in sample:
            boxes = tf.concat([boxes, map_proposals(sample)], axis=0)
        number = tf.range(tf.shape(boxes)[0])[:, None]
        inputs.append(tf.concat([boxes, tf.cast(number, tf.float32)], axis=1))
        kinds.append(tf.float32)
    if "masks" in targets:
        # Nothing but a crop, of whole pixels, was before.
        start = tf.cast(tf.round(-sample["placement"][2:]), tf.int32)
        window = tf.concat([start, sample["mask_size"]], axis=0)
        inputs += [rows.pop("instance_masks"), window]
        kinds.append(tf.string)
        del rows["cut"]

    def move(*arrays):
        answer = run(*_joined(arrays, targets))
        at = len(kinds) - 1
        if "masks" in targets:
            text = answer[at].tobytes()
            answer[at] = np.array(text.split(RLE_MARK) if text else [], "S")
            at -= 1
        if "bboxes" in targets:  # an empty list of boxes has lost its shape
            answer[at] = np.float32(answer[at]).reshape(-1, 5)
        return answer

    inputs = [sample["seed"], sample["image_id"], *inputs]
    answer = list(tf.numpy_function(move, inputs, kinds, stateful=False))
    channels = sample["images"].shape[-1]
    images = tf.ensure_shape(answer.pop(0), [None, None, channels])
    out = {**sample, "images": images, **start_geometry(tf.shape(images)[:2])}
    if "mask" in targets:
        out["segmentation_masks"] = tf.ensure_shape(answer.pop(0), [None, None])
    if "bboxes" in targets:
        boxes = tf.ensure_shape(answer.pop(0), [None, 5])
        left = tf.cast(tf.round(boxes[:, 4]), tf.int32)
        if "proposals" in sample:
            out["proposals"] = tf.boolean_mask(boxes[:, :4], left >= count)
            boxes, left = boxes[left < count], left[left < count]
        rows = {key: tf.gather(value, left) for key, value in rows.items()}
        out["bounding_boxes"] = {**rows, "boxes": boxes[:, :4]}
    if "masks" in targets:
        out["instance_masks"] = tf.ensure_shape(answer.pop(0), [None])
        out["mask_size"] = tf.shape(images)[:2]
    return out


def _joined(arrays, targets):
    """`arrays` with the RLE strings, the last but one, as one array of bytes."""
    if "masks" not in targets:
        return arrays
    *before, regions, window = arrays
    text = RLE_MARK.join(regions.tolist())
    return [*before, np.frombuffer(text, np.uint8), window]
