"""The processes of one training on many machines, on Keras' JAX backend.

Every process does the same: it builds the same model, reads its own rows of the same
batches, and knows the same scores, so that all decide alike when to slow down or stop.
One of them writes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal

import keras
import numpy as np

from visionkit.training.interrupts import Interrupts, TrainingInterrupted
from visionkit.training.recipe_files import RecipeError
from visionkit.training.recipe_sections import ClusterRecipe, Recipe

# What `keras.distribution.initialize` reads too.
VARIABLES = {
    "job_addresses": "KERAS_DISTRIBUTION_JOB_ADDRESSES",
    "num_processes": "KERAS_DISTRIBUTION_NUM_PROCESSES",
    "process_id": "KERAS_DISTRIBUTION_PROCESS_ID",
}


@dataclasses.dataclass(frozen=True)
class Cluster:
    """Which of the processes of a training this one is.

    Attributes:
        process: From 0.
        processes: How many there are.
        coordinator: "host:port" of process 0; None where there is one process.
        heartbeat_seconds: Of silence, after which a process counts as dead.
    """

    process: int = 0
    processes: int = 1
    coordinator: str | None = None
    heartbeat_seconds: int = 100

    @property
    def writes(self) -> bool:
        """Whether this process writes files and tells how far the training is."""
        return self.process == 0

    def exchange(self, value) -> list:
        """The `value` of every process, in their order; all must ask together.

        Args:
            value: JSON types.
        """
        if self.processes == 1:
            return [value]
        from jax.experimental.multihost_utils import process_allgather

        own = np.frombuffer(json.dumps(value).encode(), np.uint8)
        sizes = process_allgather(np.array([own.size], np.int32)).ravel()
        # A power of two: each new length would be compiled anew.
        padded = np.zeros(1 << int(sizes.max()).bit_length(), np.uint8)
        padded[: own.size] = own
        rows = np.asarray(process_allgather(padded)).reshape(self.processes, -1)
        pairs = zip(rows, sizes, strict=True)
        return [json.loads(row[:size].tobytes()) for row, size in pairs]

    def check_same(self, facts: dict) -> None:
        """Refuse to train where the processes are not about the same training.

        Args:
            facts: What must be equal in all, JSON types by what it is called.

        Raises:
            RecipeError: In every process; names what differs and where.
        """
        found = self.exchange(facts)
        lines = [
            f"  {name}: process 0 has {found[0][name]!r}, process {i} {other[name]!r}"
            for i, other in enumerate(found)
            for name in facts
            if other[name] != found[0][name]
        ]
        if lines:
            raise RecipeError(
                "The processes of train.cluster do not train the same:\n"
                + "\n".join(lines)
                + "\nAll need the same recipe and data, and to resume the same run "
                "folder, on storage that all of them see."
            )


def find_cluster(recipe: Recipe) -> Cluster:
    """The cluster that the recipe and the environment describe; nothing is started.

    Raises:
        RecipeError: The backend is not JAX; some of the three options are there and
            others are missing, or one is wrong; or the batch cannot be divided.
    """
    train = recipe.train
    if train.distribute != "data_parallel":
        return Cluster()
    if keras.backend.backend() != "jax":
        raise RecipeError(
            "train.distribute: data_parallel needs Keras' JAX backend; the active one "
            f"is {keras.backend.backend()!r}. Start the process with "
            "KERAS_BACKEND=jax, or use distribute: mirrored for the GPUs of one "
            "machine."
        )
    options = train.cluster or ClusterRecipe()
    found = {key: _option(options, key) for key in VARIABLES}
    addresses, count, process = found.values()
    needed = (
        [] if (addresses, process) == (None, None) and count in (None, 1) else found
    )
    if missing := [key for key in needed if found[key] is None]:
        names = ", ".join(f"train.cluster.{key} ({VARIABLES[key]})" for key in missing)
        raise RecipeError(
            f"train.cluster: found {[k for k in found if k not in missing]}, and no "
            f"{names}. Give all three, in the recipe or by these environment "
            "variables; or none, for one process."
        )
    if not needed or (count == 1 and process == 0):
        return Cluster()
    if process >= count:
        raise RecipeError(
            f"train.cluster.process_id: found {process}; of {count} processes "
            f"(num_processes) they are numbered 0 to {count - 1}."
        )
    if recipe.data.batch_size % count:
        raise RecipeError(
            f"data.batch_size: found {recipe.data.batch_size}; with train.distribute: "
            f"data_parallel it must be a multiple of the {count} processes, each of "
            "which reads an equal share."
        )
    coordinator = _coordinator(addresses, count)
    return Cluster(process, count, coordinator, options.heartbeat_seconds)


def _option(options: ClusterRecipe, key: str):
    """What the recipe says, else the environment."""
    value, variable = getattr(options, key), VARIABLES[key]
    if value is not None or not os.environ.get(variable):
        return value
    value = os.environ[variable]
    if key == "job_addresses":
        return value
    if not value.isdecimal() or (key == "num_processes" and int(value) < 1):
        least = "1" if key == "num_processes" else "0"
        raise RecipeError(
            f"{variable}: found {value!r}; it must be a whole number, at least {least}."
        )
    return int(value)


def _coordinator(addresses, count: int) -> str:
    """The first address, after a look at all of them."""
    if isinstance(addresses, str):
        addresses = [address.strip() for address in addresses.split(",")]
    for address in addresses:
        host, _, port = address.rpartition(":")
        if not host or not port.isdecimal():
            raise RecipeError(
                f"train.cluster.job_addresses: found {address!r}; expected host:port, "
                "e.g. 10.0.0.1:12345."
            )
    if len(addresses) not in (1, count):
        raise RecipeError(
            f"train.cluster.job_addresses: found {len(addresses)} addresses for "
            f"{count} processes (num_processes); give that of process 0, or all."
        )
    return addresses[0]


@contextlib.contextmanager
def joined(cluster: Cluster, recipe: Recipe):
    """Within it Keras divides every batch among all devices of all processes.

    The processes wait for each other at its begin, and at its end, also where all were
    interrupted. When another error leaves it they do not: who waits for a process that
    is gone ends by itself. A process can be part of one such training, which must be
    the first thing that it does on JAX.

    Args:
        cluster: What `find_cluster` has found.
        recipe: With another `train.distribute` than data_parallel nothing happens.

    Raises:
        RecipeError: The devices cannot have equal shares of a batch.
        RuntimeError: The other processes did not come, or JAX has begun already.
    """
    if recipe.train.distribute != "data_parallel":
        yield
        return
    import jax

    _hide_gpus_from_tensorflow()
    if cluster.processes > 1:
        jax.distributed.initialize(
            cluster.coordinator,
            cluster.processes,
            cluster.process,
            heartbeat_timeout_seconds=cluster.heartbeat_seconds,
            shutdown_timeout_seconds=cluster.heartbeat_seconds,
        )
    if recipe.data.batch_size % jax.device_count():
        raise RecipeError(
            f"data.batch_size: found {recipe.data.batch_size}; it must be a multiple "
            f"of the {jax.device_count()} devices of all processes, each of which "
            "takes an equal share."
        )
    # The pipeline reads each process's own rows.
    distribution = keras.distribution.DataParallel(auto_shard_dataset=False)
    try:
        with distribution.scope():
            yield
    except TrainingInterrupted:
        _leave(cluster)
        raise
    _leave(cluster)


def _leave(cluster: Cluster) -> None:
    """Wait for the others, who may be waiting for the writer's last checkpoint."""
    if cluster.processes > 1:
        import jax

        cluster.exchange("done")
        jax.distributed.shutdown()


def _hide_gpus_from_tensorflow() -> None:
    """TensorFlow only reads data here, and would take the memory of every GPU."""
    import tensorflow as tf

    with contextlib.suppress(RuntimeError):  # it has begun, and has what it took
        tf.config.set_visible_devices([], "GPU")


class Agreement(keras.callbacks.Callback):
    """At an epoch's end all processes know the scores of process 0, and all bad files.

    Scores are equal but for the last bits, which are enough for one process to stop and
    another to go on. Each process finds the unreadable files of its own rows.

    Args:
        cluster: The processes.
        reports: `DataReport` by split.
    """

    order = -3  # before all that reads the scores

    def __init__(self, cluster: Cluster, reports: dict):
        super().__init__()
        self.cluster, self.reports = cluster, reports

    def on_epoch_end(self, epoch, logs=None):
        """Exchange them."""
        states = {name: r.to_dict()["state"] for name, r in self.reports.items()}
        scores = {name: float(value) for name, value in logs.items()}
        found = self.cluster.exchange({"scores": scores, "states": states})
        logs.update(found[0]["scores"])
        for name, report in self.reports.items():
            bad = {
                row[0]: row for other in found for row in other["states"][name]["bad"]
            }
            report.restore({"state": {**states[name], "bad": list(bad.values())}})
            report.check()


class Preemption(Interrupts):
    """SIGTERM, sent to any of the processes, stops all of them after the same batch.

    JAX has the signal's handler then, and tells the others. Otherwise as `Interrupts`,
    but the validation of an epoch's end is waited for.

    Args:
        checkpointer: Saves.
    """

    def __init__(self, checkpointer):
        super().__init__(checkpointer, signals=())

    def on_train_batch_end(self, batch, logs=None):
        """Stop, where all have agreed to, unless the epoch's end is next."""
        from jax.experimental.multihost_utils import reached_preemption_sync_point

        step = self.checkpointer.progress.global_step
        if self.received is None and reached_preemption_sync_point(step):
            self.received = signal.SIGTERM
        super().on_train_batch_end(batch, logs)
