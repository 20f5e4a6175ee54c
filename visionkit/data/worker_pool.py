"""A pool of worker processes that transform samples; knows nothing of TensorFlow.

Each worker owns a few slots of shared memory: while it works on one sample, the next
ones already lie in the others. A call takes a slot, so there are never more samples in
flight than slots, and whoever comes then waits.
"""

from __future__ import annotations

import threading
import time
import warnings
import weakref

import numpy as np

from visionkit.data.shared_arrays import anonymous_memory
from visionkit.data.worker import WorkerProcess

# Per worker: enough to do until the parent gets its turn, on a busy machine too.
SLOTS = 4
IDLE_SECONDS = 30.0  # without a sample, and the workers end; the next starts them again


class _Worker:
    """Some slots and the process that serves them, replaced when it dies."""

    def __init__(self, setup: dict):
        self.memories = [anonymous_memory() for _ in range(SLOTS)]
        self.free = list(range(SLOTS))
        self.setup = setup
        self.lock = threading.Lock()
        self.stopped = False
        self.process = WorkerProcess(self.memories, setup)

    def replace(self, dead: WorkerProcess) -> bool:
        """Starts a process in the place of `dead`, unless another thread has."""
        with self.lock:
            if self.stopped or self.process is not dead:
                return False
            process = WorkerProcess(self.memories, self.setup)
            # Before others may use it: its first answer is not that of a sample.
            answer = process.ready()
            self.process = process
        if "error" in answer:  # the library was changed under a running program
            raise RuntimeError(answer["error"])
        return True

    def stop(self):
        """Ends the process for good."""
        with self.lock:
            self.stopped = True
            self.process.stop()


class WorkerPool:
    """Runs samples through worker processes; may be called from many threads.

    Args:
        setup: Arguments of `albumentations_policy.Policy`.
        workers: Number of processes.
        timeout: Seconds that one sample may take.

    Attributes:
        restarts: Workers that died and were replaced.
        error: The first error of a sample, which ended the work; or None.
    """

    def __init__(self, setup: dict, workers: int, timeout: float):
        self.setup, self.size, self.timeout = setup, workers, timeout
        self.restarts = 0
        self.error: BaseException | None = None
        self._workers: list[_Worker] = []
        self._changed = threading.Condition()
        self._closed = False
        self._last_used = time.monotonic()
        self._stopped = threading.Event()
        weakref.finalize(self, _stop, self._workers)  # at the latest at exit

    @property
    def pids(self) -> list[int]:
        """The process ids of the living workers."""
        return [worker.process.pid for worker in list(self._workers)]

    def open(self) -> dict:
        """Starts the workers; they start again by themselves after a pause.

        Returns:
            What a worker says of the setup: {"spatial": bool}.

        Raises:
            ValueError: The setup is wrong; says in what.
            RuntimeError: A worker does not start.
        """
        with self._changed:
            self.error, self._closed = None, False
            return self._start()

    def close(self):
        """Ends the workers. Samples in work fail; `open` begins anew."""
        with self._changed:
            self._closed = True
            self._end_workers()

    def run(self, seed: list[int], arrays: list, name: object) -> list:
        """One sample's arrays, transformed.

        Args:
            seed: Integers >= 0 that decide every draw.
            arrays: The image and the targets, in the setup's order.
            name: What prints as the sample's name, which only errors do.

        Raises:
            RuntimeError: A transform fails, takes too long, or kills its worker twice;
                or an earlier sample did. Names the transform and the sample.
        """
        worker, slot = self._take()
        memory = worker.memories[slot]
        try:
            return self._attempt(worker, slot, {"seed": seed}, arrays, name)
        except BaseException as error:
            with self._changed:
                if worker in self._workers:  # not closed, and perhaps opened again
                    self.error = self.error or error
                    self._end_workers()  # what they are at, nobody wants any more
            raise
        finally:
            memory.shrink()
            with self._changed:
                worker.free.append(slot)
                self._last_used = time.monotonic()
                self._changed.notify()

    def _attempt(self, worker, slot, request, arrays, name):
        memory, deaths = worker.memories[slot], 0
        while True:
            process = worker.process
            memory.started = 0.0
            request = {**request, "slot": slot, "layout": memory.write(arrays)}
            try:
                process.send(request)
                answer = process.receive(slot, memory, self.timeout)
            except TimeoutError:
                process.stop()
                raise RuntimeError(
                    f"The albumentations transforms of {self._names()} took longer "
                    f"than {self.timeout:g} s on {name}; the worker was stopped."
                ) from None
            except EOFError:
                self._check_open(worker)
                # Only what was in work when a worker died is tried just once more.
                deaths += bool(memory.started)
                if deaths == 2:
                    raise RuntimeError(
                        "A worker process died twice in the albumentations "
                        f"transforms of {self._names()} on {name}."
                    ) from None
                self._replace(worker, process)
                continue
            if "error" in answer:
                where = answer["transform"] or f"one of {self._names()}"
                raise RuntimeError(
                    f"albumentations' {where} failed on {name}: {answer['error']}"
                )
            return [np.array(array) for array in memory.read(answer["layout"])]

    def _replace(self, worker: _Worker, process: WorkerProcess):
        status = process.stop()
        if worker.replace(process):
            with self._changed:
                self.restarts += 1
            cause = f"by signal {-status}" if status < 0 else f"with status {status}"
            warnings.warn(
                f"A worker process of albumentations was ended {cause}; it is replaced "
                f"and its sample done again (time {self.restarts}).",
                RuntimeWarning,
                stacklevel=2,
            )

    def _take(self) -> tuple[_Worker, int]:
        """A slot of the least busy worker, as soon as one is free."""
        with self._changed:
            while True:
                self._check_open()
                if not self._workers:
                    self._start()
                worker = max(self._workers, key=lambda worker: len(worker.free))
                if worker.free:
                    return worker, worker.free.pop()
                self._changed.wait()

    def _check_open(self, worker: _Worker | None = None):
        if self.error is not None:
            raise RuntimeError(f"Another sample failed: {self.error}")
        if self._closed or (worker and worker.stopped):
            raise RuntimeError("The pool of albumentations' workers is closed.")

    def _start(self) -> dict:
        if self._workers:
            return self._answer
        try:
            for _ in range(self.size):
                self._workers.append(_Worker(self.setup))
            answers = [worker.process.ready() for worker in self._workers]
        except BaseException:
            self._end_workers()
            raise
        self._answer = answers[0]
        if "error" in self._answer:
            self._end_workers()
            raise ValueError(self._answer["error"])
        self._last_used = time.monotonic()
        stopped = self._stopped = threading.Event()
        threading.Thread(
            target=_end_when_idle,
            args=(weakref.ref(self, lambda _: stopped.set()), stopped),
            name="albumentations-idle",
            daemon=True,
        ).start()
        return self._answer

    def _end_workers(self):
        _stop(self._workers)
        self._stopped.set()
        self._changed.notify_all()

    def _end_if_idle(self) -> float:
        """Seconds until it is worth asking again."""
        with self._changed:
            idle = time.monotonic() - self._last_used
            busy = any(len(worker.free) < SLOTS for worker in self._workers)
            if idle >= IDLE_SECONDS and not busy:
                self._end_workers()
            return IDLE_SECONDS if busy else max(IDLE_SECONDS - idle, 0.1)

    def _names(self) -> str:
        return ", ".join(name for name, _ in self.setup["specs"])


def _stop(workers: list[_Worker]):
    """Ends all workers, each with what it holds."""
    while workers:
        workers.pop().stop()


def _end_when_idle(pool: weakref.ref, stopped: threading.Event):
    wait = IDLE_SECONDS
    while not stopped.wait(wait):
        alive = pool()
        if alive is None:
            return
        wait = alive._end_if_idle()
        del alive
