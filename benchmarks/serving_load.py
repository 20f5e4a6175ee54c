"""Clients that ask a server for as long as they are told, every answer judged."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import itertools
import os
import random
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from serving_clients import CLIENTS, digest, pictures, same, unusable

VERDICTS = ("good", "refused", "busy", "wrong", "lost")
EVERY = 0.5  # seconds between two looks at the server's process


@dataclasses.dataclass(frozen=True, slots=True)
class Asked:
    """One request.

    Attributes:
        client: Who asked; the requests of one client follow each other.
        sent: When, in seconds of `time.perf_counter`.
        seconds: Until its answer was there.
        verdict: "good", "refused" (a broken image was), "busy", "wrong" or "lost".
        version: Whose answer it is, as far as is known.
    """

    client: int
    sent: float
    seconds: float
    verdict: str
    version: int | None


@dataclasses.dataclass(frozen=True, slots=True)
class Sample:
    """The server's process at one moment: what it has answered, holds and has used."""

    requests: int
    seconds: float
    megabytes: float
    threads: int
    files: int
    cpu: float


class Load:
    """Images that are asked for, and the answers that a single client got to them.

    Args:
        target: Where to ask: "url", "grpc", "name" and "input" of the model, the
            "signature", and the "pid" of the server's process, 0 if it is not ours.
        images: A folder of images, or None for drawn ones.
        bad: Share of the requests that are broken images.
    """

    def __init__(self, target: dict, images: str | None, bad: float):
        self.target = target
        self.good, self.broken = pictures(images)
        self._keys = [digest(image) for image in self.good]
        self._bad = bad
        self._expected = collections.defaultdict(dict)  # protocol -> version -> answers
        self.examples: dict[str, str] = {}  # protocol and verdict -> an answer or error
        self._asked = itertools.count()
        self.requests = 0
        self.samples: list[Sample] = []

    def learn(self, protocol: str, version: int = 0, target: dict | None = None) -> int:
        """Get the answers of a version with one client, one image after the other.

        Args:
            protocol: "rest" or "grpc".
            version: Which is asked; 0 the newest, and what is asked later is then not
                told from other versions.
            target: The server that is asked; default the one of the load.

        Returns:
            How many different answers there are: what is answered alike everywhere
            could be exchanged unseen.
        """
        client = CLIENTS[protocol](target or self.target, version or None)
        answers = {}
        for key, image in zip(self._keys, self.good, strict=True):
            verdict, answer, _ = client.ask(image)
            if verdict != "good":
                raise SystemExit(f"A good image was not answered: {answer}")
            answers[key] = answer
        client.close()
        self._expected[protocol][version] = answers
        return len({repr(client.values(answer)) for answer in answers.values()})

    def run(
        self,
        clients: Mapping[str, int],
        going: Callable[[int], bool],
        *,
        fresh: bool = False,
    ) -> dict[str, list[Asked]]:
        """Ask with many clients at once.

        Args:
            clients: Protocol -> how many.
            going: Told how many requests have begun: whether one more shall.
            fresh: Every other client opens a connection for each request.

        Returns:
            Protocol -> its requests.
        """
        asked = {protocol: [] for protocol in clients}
        names = [name for name, count in clients.items() for _ in range(count)]
        threads = [
            threading.Thread(
                target=self._client,
                args=(number, name, asked[name], going, fresh and number % 2 == 1),
            )
            for number, name in enumerate(names)
        ]
        over = threading.Event()
        watcher = threading.Thread(target=self._watch, args=(over,))
        watcher.start()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        over.set()
        watcher.join()
        return asked

    def _client(self, number, protocol, asked: list, going, fresh: bool) -> None:
        rng, client = random.Random(number), CLIENTS[protocol](self.target)
        while going(next(self._asked)):
            broken = rng.random() < self._bad
            index = rng.randrange(len(self.broken if broken else self.good))
            image = (self.broken if broken else self.good)[index]
            sent = time.perf_counter()
            verdict, answer, version = client.ask(image)
            seconds = time.perf_counter() - sent
            if verdict == "good" and broken:
                marked = unusable(client.values(answer))
                verdict = "refused" if marked else "wrong"
                answer = "a broken image was answered"
            elif verdict == "good":
                version = self._origin(client, self._keys[index], answer, version)
                verdict = "wrong" if version is None else verdict
            elif verdict == "refused" and not broken:
                verdict, answer = "wrong", f"a good image was refused: {answer}"
            if verdict in ("wrong", "lost"):
                self.examples.setdefault(f"{protocol} {verdict}", str(answer)[:300])
            asked.append(Asked(number, sent, seconds, verdict, version))
            self.requests += 1  # near enough, it is for the samples
            if fresh:
                client.close()
        client.close()

    def _origin(self, client, key: str, answer, named: int | None) -> int | None:
        """Whose answer this is, None if nobody's; the one that is named if any is."""
        protocol = next(n for n, kind in CLIENTS.items() if isinstance(client, kind))
        for version, answers in self._expected[protocol].items():
            expected = answers[key]
            if (version and named not in (None, version)) or (
                answer != expected
                and not same(client.values(answer), client.values(expected))
            ):
                continue
            return version
        return None

    def _watch(self, over: threading.Event) -> None:
        """Samples of the server's process until the load is over."""
        begin = time.perf_counter()
        while self.target["pid"]:
            with contextlib.suppress(OSError):
                process = Path(f"/proc/{self.target['pid']}")
                pages = int((process / "statm").read_text().split()[1])
                stat = (process / "stat").read_text().rpartition(")")[2].split()
                sample = Sample(
                    self.requests,
                    time.perf_counter() - begin,
                    pages * os.sysconf("SC_PAGESIZE") / 1e6,
                    _threads(process),
                    len(os.listdir(process / "fd")),
                    (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK"),
                )
                self.samples.append(sample)
            if over.wait(EVERY):
                return


def _threads(process: Path) -> int:
    """All but those of gRPC's core, which adds one while its calls wait for a core."""
    names = [(task / "comm").read_text() for task in (process / "task").iterdir()]
    return sum(name.strip() != "event_engine" for name in names)


def counts(asked: list[Asked]) -> dict[str, int]:
    """How often each verdict was passed."""
    found = collections.Counter(request.verdict for request in asked)
    return {verdict: found[verdict] for verdict in VERDICTS}


def percentiles(asked: list[Asked]) -> dict[str, str]:
    """Rate and delays, for people."""
    times = 1000 * np.array([request.seconds for request in asked])
    begin = min(request.sent for request in asked)
    seconds = max(request.sent + request.seconds for request in asked) - begin
    p50, p95, p99 = np.percentile(times, [50, 95, 99])
    return {
        "requests": str(len(asked)),
        "per s": f"{len(asked) / seconds:.1f}",
        "p50 ms": f"{p50:.1f}",
        "p95 ms": f"{p95:.1f}",
        "p99 ms": f"{p99:.1f}",
        "worst ms": f"{times.max():.1f}",
    }


def growth(samples: list[Sample]) -> dict[str, str]:
    """What the server's process gained behind the first fifth of the requests.

    Returns:
        "MB" from fifth to fifth, their "slope" per 10,000 requests behind the first by
        least squares, "threads" and "files", each as the median of the second fifth and
        the one of the last.
    """
    most = samples[-1].requests
    later = [sample for sample in samples if sample.requests >= most / 5]
    asked = np.array([sample.requests for sample in later], float)
    held = np.array([sample.megabytes for sample in later])
    slope = np.polyfit(asked, held, 1)[0] * 1e4 if len(later) > 2 else float("nan")
    fifth = max(1, len(later) // 4)  # a quarter of four fifths

    def medians(name: str) -> str:
        found = [getattr(sample, name) for sample in later]
        return f"{np.median(found[:fifth]):g} to {np.median(found[-fifth:]):g}"

    every = [most * i // 5 for i in range(1, 6)]
    fifths = [next(s.megabytes for s in samples if s.requests >= n) for n in every]
    return {
        "MB": ", ".join(f"{megabytes:.0f}" for megabytes in fifths),
        "slope": f"{slope:.2f}",
        "threads": medians("threads"),
        "files": medians("files"),
    }
