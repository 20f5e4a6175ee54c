"""One worker process of albumentations: the parent's end, and the process itself.

The process imports albumentations, OpenCV and NumPy, neither TensorFlow nor Keras.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import warnings
import weakref
from pathlib import Path

from visionkit.data.albumentations_policy import Policy, failed_in
from visionkit.data.shared_arrays import Memory, receive, send, wait

START_SECONDS = 120.0  # for a worker to import albumentations, on a busy machine

_ROOT = str(Path(__file__).parents[2])  # where this package is found
# One core per worker: the libraries below must not start threads of their own.
_ENVIRONMENT = {
    "NO_ALBUMENTATIONS_UPDATE": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}
# What a transform frees is kept for the next: glibc gives images' memory back to the
# system, which then clears it anew, a sixth of a worker's time. A user's own go first.
_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),  # glibc takes no more
    "MALLOC_TRIM_THRESHOLD_": str(64 << 20),
}


class WorkerProcess:
    """One life of a worker; its pipes close with the last thread that uses them.

    Args:
        memories: One for each sample it may hold; a later life may have the same.
        setup: Arguments of `albumentations_policy.Policy`.
    """

    def __init__(self, memories: list[Memory], setup: dict):
        inbox, self._requests = os.pipe()
        pipes = [os.pipe() for _ in memories]
        self._answers = [answers for answers, _ in pipes]
        weakref.finalize(self, _close, [self._requests, *self._answers])
        outboxes = [outbox for _, outbox in pipes]
        slots = [(memory.fd, fd) for memory, fd in zip(memories, outboxes, strict=True)]
        arguments = json.dumps({"requests": inbox, "slots": slots})
        path = os.pathsep.join(filter(None, [_ROOT, os.environ.get("PYTHONPATH")]))
        try:
            self._child = subprocess.Popen(
                [sys.executable, "-P", "-m", "visionkit.data.worker", arguments],
                stdin=subprocess.DEVNULL,
                stdout=2,  # what a library prints is not for our standard output
                pass_fds=[inbox, *(fd for slot in slots for fd in slot)],
                env={**_MEMORY, **os.environ, **_ENVIRONMENT, "PYTHONPATH": path},
            )
        finally:
            _close([inbox, *outboxes])
        send(self._requests, setup)

    @property
    def pid(self) -> int:
        """Of the system; another process may have it after `stop`."""
        return self._child.pid

    def ready(self) -> dict:
        """Its first answer, which is about the setup."""
        if not wait(self._answers[0], START_SECONDS):
            self.stop()
            raise RuntimeError(
                "A worker process of albumentations did not start within "
                f"{START_SECONDS:.0f} s. Is the machine overloaded?"
            )
        try:
            return receive(self._answers[0])
        except EOFError:
            code = self.stop()
            raise RuntimeError(
                "A worker process of albumentations ended before it was ready, with "
                f"status {code}; what it said is in the standard error output. Is "
                "there enough memory?"
            ) from None

    def send(self, request: dict):
        """Hands over a sample; an EOFError if the process died."""
        try:
            send(self._requests, request)
        except BrokenPipeError:
            raise EOFError from None

    def receive(self, slot: int, memory: Memory, timeout: float) -> dict:
        """The answer for a slot; an EOFError if the process died.

        Raises:
            TimeoutError: `timeout` seconds have passed since its work began.
        """
        # Until it begins, it waits for the samples in the other slots.
        latest = time.monotonic() + len(self._answers) * timeout
        left = timeout
        while not wait(self._answers[slot], left):
            end = memory.started + timeout if memory.started else latest
            left = min(end - time.monotonic(), timeout)
            if left <= 0:
                raise TimeoutError
        return receive(self._answers[slot])

    def stop(self) -> int:
        """Ends it at once, as it has no state; returns its status."""
        self._child.kill()
        return self._child.wait()


def _close(fds: list[int]):
    for fd in fds:
        os.close(fd)


def _work(policy: Policy, memory: Memory, request: dict) -> dict:
    try:
        image, *others = memory.read(request["layout"])
        answer = policy(
            request["seed"], image, **dict(zip(policy.targets, others, strict=True))
        )
        # Not over the input, of which the answer may be a view.
        layout = memory.write(list(answer.values()), behind=request["layout"])
        return {"layout": layout}
    except Exception as error:
        text = f"{type(error).__name__}: {error}"[:2000]
        return {"error": text, "transform": failed_in(error)}


def main(requests: int, slots: list[tuple[int, int]]):
    """Answers requests until the parent is gone.

    Args:
        requests: Descriptor to read from: the policy, then one sample after another.
        slots: Descriptors of each slot: its memory, and where its answers go.
    """
    # Ctrl-C and a polite shutdown are the parent's affair; it ends when that does.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    warnings.simplefilter("ignore")
    inbox = open(requests, "rb")  # noqa: SIM115
    memories = [Memory(fd) for fd, _ in slots]
    try:
        setup = json.loads(inbox.readline())
        try:
            policy = Policy(**setup)
        except (ValueError, ImportError) as error:
            send(slots[0][1], {"error": str(error)})
            return
        send(slots[0][1], {"spatial": policy.spatial})
        for line in inbox:
            request = json.loads(line)
            memory = memories[request["slot"]]
            memory.refresh()
            memory.started = time.monotonic()
            send(slots[request["slot"]][1], _work(policy, memory, request))
    except OSError:
        return  # the parent has closed the pool, or is no more


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
